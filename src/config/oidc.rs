//! The settings of the operators' sign-in by an OpenID provider.

use super::Reader;
use crate::common::secret::SecretText;

/// The OpenID provider with which operators sign in.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// The issuer, as its discovery document has it.
    pub issuer: String,
    /// This service's `client_id` there.
    pub client_id: String,
    /// This service's client secret there.
    pub client_secret: SecretText,
    /// Which claims give which role.
    pub roles: Vec<RoleOfClaim>,
}

/// A claim that gives a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleOfClaim {
    /// The claim's name, such as `groups`.
    pub claim: String,
    /// Its value, or one of its values.
    pub value: String,
    /// `auditor`, `operator` or `admin`.
    pub role: String,
}

impl RoleOfClaim {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be CLAIM:VALUE=ROLE with the role auditor, operator or admin";
        let (pair, role) = text.rsplit_once('=').ok_or(FORM)?;
        let (claim, value) = pair.split_once(':').ok_or(FORM)?;
        let known = ["auditor", "operator", "admin"].contains(&role);
        if !known || claim.is_empty() || value.is_empty() {
            return Err(FORM);
        }
        let (claim, value, role) = (claim.to_owned(), value.to_owned(), role.to_owned());
        Ok(Self { claim, value, role })
    }
}

impl OidcConfig {
    /// Reads the settings: all of them or none.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const ISSUER: &str = "STRONGROOM_OIDC_ISSUER";
        const REST: [&str; 3] =
            ["STRONGROOM_OIDC_CLIENT_ID", "STRONGROOM_OIDC_CLIENT_SECRET", "STRONGROOM_OIDC_ROLES"];
        let issuer = reader.optional(ISSUER, |text| {
            let url = url::Url::parse(text).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
            let bare = url.filter(|url| url.query().is_none() && url.fragment().is_none());
            bare.map(|_| text.to_owned()).ok_or("must be a URL without query or fragment")
        });
        let [id, secret, roles] = REST;
        for name in REST {
            if issuer.is_some() && !reader.is_set(name) {
                reader.mistake(name, format_args!("is missing while {ISSUER} is set"));
            }
            if issuer.is_none() && reader.is_set(name) && !reader.is_set(ISSUER) {
                reader.mistake(ISSUER, format_args!("is missing while {name} is set"));
            }
        }
        let client_id = reader.optional(id, |text| Ok::<_, &str>(text.to_owned()));
        let client_secret = reader.secret(secret);
        let roles = reader.list(roles, RoleOfClaim::parse);
        Some(Self { issuer: issuer?, client_id: client_id?, client_secret: client_secret?, roles })
    }
}
