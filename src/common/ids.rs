//! Ids: `UUIDv7` (RFC 9562 §5.7) with a prefix that names the kind, `conn_0199…`.
//!
//! In PostgreSQL they are plain `uuid`; everywhere else they are text with the prefix, so that an id of the
//! wrong kind is refused before any query runs.

/// The error of a text that is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_xxxxxxxx-xxxx-7xxx-xxxx-xxxxxxxxxxxx")]
pub struct InvalidId {
    /// The expected prefix, without the underscore.
    pub prefix: &'static str,
}

fn new_uuid() -> uuid::Uuid {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
    uuid::Uuid::now_v7()
}

/// Parses `prefix_uuid`. Accepts only the hyphenated lower-case form, so that each id has one spelling.
fn parse(prefix: &'static str, text: &str) -> Result<uuid::Uuid, InvalidId> {
    let invalid = InvalidId { prefix };
    let uuid_text =
        text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or(invalid)?;
    let uuid = uuid::Uuid::try_parse(uuid_text).map_err(|_| invalid)?;
    let mut canonical = [0; uuid::fmt::Hyphenated::LENGTH];
    if uuid.as_hyphenated().encode_lower(&mut canonical) == uuid_text {
        Ok(uuid)
    } else {
        Err(invalid)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent, no_pg_array)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// The prefix, without the underscore that follows it.
            pub const PREFIX: &'static str = $prefix;

            /// Creates an id that sorts after all ids that this process created before.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an id out of nowhere should be asked for by name")]
            pub fn new() -> Self {
                Self(new_uuid())
            }

            /// Returns the id without its prefix, as PostgreSQL stores it.
            #[must_use]
            pub const fn uuid(self) -> uuid::Uuid {
                self.0
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(uuid: uuid::Uuid) -> Self {
                Self(uuid)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.as_hyphenated())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse($prefix, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")))
                    .examples([concat!($prefix, "_0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71")])
                    .build()
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(
    /// A process that serves requests; each start creates a new one.
    ReplicaId, "replica"
);
id!(
    /// A Dapi application, the tenant boundary.
    AppId, "app"
);
id!(
    /// The app's own user. The only id by which the audit trail refers to a user.
    UserId, "usr"
);
id!(
    /// One linked bank login of one user.
    ConnectionId, "conn"
);
id!(
    /// A connect session.
    SessionId, "cs"
);
id!(
    /// A key that seals data or hashes it.
    DataKeyId, "key"
);
id!(
    /// A row of the audit trail.
    AuditEventId, "evt"
);
id!(
    /// An access token that this service issued: its `jti`.
    AccessTokenId, "at"
);
id!(
    /// Another API, reached with OAuth 2.0 client credentials.
    UpstreamId, "ups"
);
id!(
    /// A token lease: the right to make one call with a connection's token.
    TokenLeaseId, "turn"
);
id!(
    /// One of Plaid's link tokens.
    LinkTokenId, "link"
);
id!(
    /// One secret of an OAuth client.
    ClientSecretId, "sec"
);
id!(
    /// A bulk revocation.
    BulkRevocationId, "ord"
);
id!(
    /// The erasure of a user, and its receipt.
    ErasureId, "ers"
);
id!(
    /// An event, under which it is read and delivered.
    EventId, "event"
);
id!(
    /// An endpoint to which an app's events are sent.
    WebhookId, "wh"
);
id!(
    /// One secret of a webhook.
    WebhookSecretId, "whs"
);

id!(
    /// An operator: a person of the deployment.
    OperatorId, "op"
);
id!(
    /// A signed-in operator's session in the console.
    OperatorSessionId, "ops"
);

id!(
    /// A request that waits for a second person.
    ApprovalId, "apr"
);

id!(
    /// The export of an app to another deployment.
    ExportId, "exp"
);
id!(
    /// A key that an export is sealed to.
    ImportKeyId, "ikey"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = ConnectionId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_made_one_after_the_other_sort_in_that_order() {
        let ids: Vec<_> = (0..1000).map(|_| ConnectionId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn an_id_of_another_kind_or_spelling_is_refused() {
        let id = ConnectionId::new().to_string();
        let simple = id.replace('-', "");
        let upper = format!("conn_{}", id["conn_".len()..].to_uppercase());
        let wrong_kind = id.replace("conn_", "usr_");
        for text in [
            "",
            "conn",
            "conn_",
            "conn_x",
            &id[5..],
            &simple,
            &upper,
            &wrong_kind,
            &format!("{id} "),
        ] {
            let refused = InvalidId { prefix: "conn" };
            assert_eq!(text.parse::<ConnectionId>(), Err(refused), "{text:?}");
        }
    }
}
