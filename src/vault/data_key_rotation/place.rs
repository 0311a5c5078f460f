//! The columns that hold what is sealed under the keys of users and apps, as the view `sealed_values` lists them.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres};
use uuid::Uuid;

use super::Swaps;
use crate::common::named::named;
use crate::database::Conn;
use crate::vault::keys::KeyOwner;
use crate::vault::seal::AadContext;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Code,
    AccessToken,
    UserSecret,
    SupersededAccessToken,
    SupersededUserSecret,
    ProxyToken,
    LinkToken,
    AppSecret,
    UpstreamSecret,
    UpstreamToken,
    WebhookSecret,
    WebhookSigningKey,
}

named!(Place {
    Code => "connections.code",
    AccessToken => "connections.access_token",
    UserSecret => "connections.user_secret",
    SupersededAccessToken => "superseded_tokens.access_token",
    SupersededUserSecret => "superseded_tokens.user_secret",
    ProxyToken => "proxy_tokens.token",
    LinkToken => "link_tokens.token",
    AppSecret => "apps.app_secret",
    UpstreamSecret => "upstreams.client_secret",
    UpstreamToken => "upstreams.access_token",
    WebhookSecret => "webhook_secrets.secret",
    WebhookSigningKey => "webhook_secrets.signing_key",
}, parse);

impl sqlx::Type<Postgres> for Place {
    fn type_info() -> PgTypeInfo {
        <str as sqlx::Type<Postgres>>::type_info()
    }
}

impl Decode<'_, Postgres> for Place {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let name = <&str as Decode<Postgres>>::decode(value)?;
        Self::parse(name).ok_or_else(|| format!("an unknown place of sealed values, {name}").into())
    }
}

/// Replaces the values of one column whose rows are not locked and which are still what they were, by ascending id.
macro_rules! swap {
    ($conn:ident, $swaps:ident, $table:tt, $id:tt, $column:tt) => {
        sqlx::query!(
            "-- name: seal_anew\nWITH locked AS MATERIALIZED (SELECT " + $id + " AS id FROM " + $table
                + " WHERE " + $id + " = ANY ($1) ORDER BY " + $id
                + " FOR NO KEY UPDATE SKIP LOCKED) UPDATE " + $table + " t SET " + $column + " = n.after
                 FROM locked l, unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS n (id, before, after)
                 WHERE t." + $id + " = l.id AND n.id = l.id AND t." + $column + " = n.before",
            &$swaps.rows,
            &$swaps.before,
            &$swaps.after,
        )
        .execute($conn)
        .await
    };
}

impl Place {
    /// Returns the AAD context of a value there. The names are literals of the format: see the features that seal.
    pub(super) fn aad(self, owner: KeyOwner, row: Uuid) -> AadContext {
        let (table, column) = match self {
            Self::Code => ("connections", "code"),
            // What is kept of a superseded connection is sealed for the row that it came from.
            Self::AccessToken | Self::SupersededAccessToken => ("connections", "access_token"),
            Self::UserSecret | Self::SupersededUserSecret => ("connections", "user_secret"),
            Self::ProxyToken => ("stand_ins", "token"),
            Self::LinkToken => ("link_tokens", "token"),
            Self::AppSecret => ("apps", "app_secret"),
            Self::UpstreamSecret => ("upstreams", "client_secret"),
            Self::UpstreamToken => ("upstreams", "access_token"),
            Self::WebhookSecret => ("webhook_secrets", "secret"),
            Self::WebhookSigningKey => ("webhook_secrets", "signing_key"),
        };
        AadContext { table, column, app: owner.app(), user: owner.user(), row }
    }

    /// Replaces values in one statement, which waits for no row. Returns how many it replaced.
    pub(super) async fn swap(self, conn: &mut Conn, swaps: &Swaps) -> sqlx::Result<u64> {
        let done = match self {
            Self::Code => swap!(conn, swaps, "connections", "id", "code"),
            Self::AccessToken => swap!(conn, swaps, "connections", "id", "access_token"),
            Self::UserSecret => swap!(conn, swaps, "connections", "id", "user_secret"),
            Self::SupersededAccessToken => {
                swap!(conn, swaps, "superseded_tokens", "connection_id", "access_token")
            }
            Self::SupersededUserSecret => {
                swap!(conn, swaps, "superseded_tokens", "connection_id", "user_secret")
            }
            Self::ProxyToken => swap!(conn, swaps, "proxy_tokens", "connection_id", "token"),
            Self::LinkToken => swap!(conn, swaps, "link_tokens", "id", "token"),
            Self::AppSecret => swap!(conn, swaps, "apps", "id", "app_secret"),
            Self::UpstreamSecret => swap!(conn, swaps, "upstreams", "id", "client_secret"),
            Self::UpstreamToken => swap!(conn, swaps, "upstreams", "id", "access_token"),
            Self::WebhookSecret => swap!(conn, swaps, "webhook_secrets", "id", "secret"),
            Self::WebhookSigningKey => swap!(conn, swaps, "webhook_secrets", "id", "signing_key"),
        };
        Ok(done?.rows_affected())
    }
}
