//! The types of events. No I/O, and no import of a sibling module.

use serde::Serialize;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! event_types {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum EventType {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The type's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_types! {
    /// The token is sealed and usable.
    ConnectionActive "connection.active";
    /// The provider refused the code, or the login is another user's.
    ConnectionRejected "connection.rejected";
    /// The code's window closed before an exchange succeeded.
    ConnectionExpired "connection.expired";
    /// The provider consumed the code and its answer was lost.
    ConnectionOrphaned "connection.orphaned";
    /// Revoked, and the provider has not confirmed it yet.
    ConnectionRevoking "connection.revoking";
    /// Delinked for certain.
    ConnectionDelinked "connection.delinked";
    /// The token is dead, superseded, or revoked without a confirmation.
    ConnectionInvalidated "connection.invalidated";
    /// The connection needs its user.
    ConnectionAttention "connection.attention";
    /// The connection does not need its user any more.
    ConnectionAttentionCleared "connection.attention_cleared";
    /// Everything of a user was destroyed.
    UserErased "user.erased";
    /// The last connection of a bulk revocation has ended.
    RevocationFinished "revocation.finished";
    /// A client was disabled.
    ClientDisabled "client.disabled";
    /// A webhook was disabled: by request, because it answered 410, or because it failed for three days.
    WebhookDisabled "webhook.disabled";
    /// Asked for by `POST …/test`; only its webhook gets it, and `GET /v1/events` leaves it out.
    WebhookTest "webhook.test";
}

// By hand: the derive macro sees no literal in what another macro passes on, and would name the variants.
impl PartialSchema for EventType {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.iter().map(|kind| kind.as_str());
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        kind.description(Some("What happened.")).build().into()
    }
}

impl ToSchema for EventType {}

impl EventType {
    /// The types that webhooks choose from: all but the test, which goes where it was asked for.
    pub const SENT: &[Self] = match Self::ALL.split_last() {
        Some((Self::WebhookTest, sent)) => sent,
        _ => Self::ALL,
    };

    /// Returns the type of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_as_it_is_written() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
