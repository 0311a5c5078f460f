//! The permissions of clients: OAuth 2.0 scopes (RFC 6749 §3.3).

use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Create connect sessions.
    SessionsCreate,
    /// Submit Connect's results, import tokens.
    ConnectionsWrite,
    /// Read connections, never their secrets.
    ConnectionsRead,
    /// Delink and invalidate.
    ConnectionsRevoke,
    /// Reveal tokens.
    TokensRead,
    /// Call Dapi on a connection's behalf.
    DapiCall,
    /// Erase a user.
    UsersErase,
    /// Use other APIs' tokens.
    UpstreamsUse,
    /// Administer the client's own app.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 9] = [
        Self::SessionsCreate,
        Self::ConnectionsWrite,
        Self::ConnectionsRead,
        Self::ConnectionsRevoke,
        Self::TokensRead,
        Self::DapiCall,
        Self::UsersErase,
        Self::UpstreamsUse,
        Self::Admin,
    ];

    /// Returns the scope's name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionsCreate => "sessions:create",
            Self::ConnectionsWrite => "connections:write",
            Self::ConnectionsRead => "connections:read",
            Self::ConnectionsRevoke => "connections:revoke",
            Self::TokensRead => "tokens:read",
            Self::DapiCall => "dapi:call",
            Self::UsersErase => "users:erase",
            Self::UpstreamsUse => "upstreams:use",
            Self::Admin => "admin",
        }
    }

    /// Describes for people what the scope permits.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::SessionsCreate => "make connect sessions",
            Self::ConnectionsWrite => "hand in Connect's results, import tokens",
            Self::ConnectionsRead => "see connections, never their secrets",
            Self::ConnectionsRevoke => "delink and invalidate",
            Self::TokensRead => "read tokens in the clear",
            Self::DapiCall => "call Dapi on a connection's behalf",
            Self::UsersErase => "erase a user",
            Self::UpstreamsUse => "use other APIs' tokens",
            Self::Admin => "administer the client's own app",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.map(Self::as_str)))
            .examples([Self::ConnectionsRead.as_str()])
            .build()
            .into()
    }
}

impl utoipa::ToSchema for Scope {}

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of a name that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such scope; there are: {}", Scopes::all())]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// A set of scopes. Displayed as in OAuth: names separated by spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// Returns the empty set.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// Returns the set of all scopes.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Returns whether the set contains `scope`.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns whether every scope of this set is in `other`.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Returns the scopes that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the scopes in their fixed order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// Returns the names as the database stores them.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter().map(|scope| scope.as_str().to_owned()).collect()
    }

    /// Reads the names that the database stores. A name that this release does not know grants nothing.
    #[must_use]
    pub fn from_names(names: &[String]) -> Self {
        names.iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Display for Scopes {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(' ').filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

impl serde::Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!(Scopes::all().to_string().parse(), Ok(Scopes::all()));
        assert_eq!(Scopes::from_names(&Scopes::all().names()), Scopes::all());
    }

    #[test]
    fn order_and_repetition_do_not_matter_and_an_unknown_name_does() {
        let scopes: Scopes = "tokens:read  admin tokens:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "tokens:read admin");
        assert_eq!("admin Admin".parse::<Scopes>(), Err(UnknownScope));
        assert!("".parse::<Scopes>().unwrap().is_empty());
    }

    #[test]
    fn a_subset_lacks_nothing_of_what_it_has() {
        let admin: Scopes = [Scope::Admin].into_iter().collect();
        assert!(admin.is_subset_of(Scopes::all()) && !Scopes::all().is_subset_of(admin));
        assert!(Scopes::none().is_subset_of(Scopes::none()));
    }
}
