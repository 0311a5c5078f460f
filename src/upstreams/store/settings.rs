//! The settings of upstreams: insert, view, change, delete.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::known;
use crate::common::ids::{AppId, UpstreamId};
use crate::database::Conn;
use crate::outbound::OutboundUrl;
use crate::upstreams::ClientSecret;
use crate::upstreams::model::{Auth, Failure, LastFailure, Settings, TokenTimes, Upstream};
use crate::vault::Sealed;

/// The maximum length of a list: upstreams are systems that an app calls, not its users.
const MAX_LISTED: i64 = 1000;

struct Row {
    id: UpstreamId,
    name: String,
    token_url: String,
    client_id: String,
    auth: String,
    scope: Option<String>,
    parameters: String,
    base_url: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    token_asked_at: Option<OffsetDateTime>,
    token_refresh_at: Option<OffsetDateTime>,
    token_expires_at: Option<OffsetDateTime>,
    failures: i32,
    failure: Option<String>,
    failure_detail: Option<String>,
    oauth_error: Option<String>,
    retry_at: Option<OffsetDateTime>,
}

impl Row {
    fn upstream(self) -> sqlx::Result<Upstream> {
        let times = self.token_asked_at.zip(self.token_refresh_at).zip(self.token_expires_at);
        let token = times.map(|((fetched_at, refresh_at), expires_at)| TokenTimes {
            fetched_at,
            refresh_at,
            expires_at,
        });
        let failure = match self.failure.zip(self.failure_detail).zip(self.retry_at) {
            None => None,
            Some(((word, detail), retry_at)) => Some(LastFailure {
                kind: known(&word, Failure::parse(&word))?,
                oauth_error: self.oauth_error,
                detail,
                attempts: self.failures,
                retry_at,
            }),
        };
        Ok(Upstream {
            id: self.id,
            name: self.name,
            token_url: self.token_url,
            client_id: self.client_id,
            auth: known(&self.auth, Auth::parse(&self.auth))?,
            scope: self.scope,
            parameters: read_parameters(&self.parameters)?,
            base_url: self.base_url,
            created_at: self.created_at,
            updated_at: self.updated_at,
            token,
            failure,
        })
    }
}

pub(super) fn read_parameters(json: &str) -> sqlx::Result<BTreeMap<String, String>> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn write_parameters(settings: &Settings) -> String {
    // A map of strings always serializes.
    serde_json::to_string(&settings.parameters).unwrap_or_else(|_| "{}".to_owned())
}

/// Returns the app's upstreams, by name.
pub async fn list(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Upstream>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: UpstreamId", name, token_url, client_id, auth, scope,
                parameters::text AS "parameters!", base_url, created_at, updated_at,
                token_asked_at, token_refresh_at, token_expires_at,
                failures, failure, failure_detail, oauth_error, retry_at
         FROM upstreams WHERE app_id = $1 ORDER BY name LIMIT $2"#,
        app.uuid(),
        MAX_LISTED,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::upstream).collect()
}

/// Returns the app's upstream of this name.
pub async fn find(conn: &mut Conn, app: AppId, name: &str) -> sqlx::Result<Option<Upstream>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: UpstreamId", name, token_url, client_id, auth, scope,
                parameters::text AS "parameters!", base_url, created_at, updated_at,
                token_asked_at, token_refresh_at, token_expires_at,
                failures, failure, failure_detail, oauth_error, retry_at
         FROM upstreams WHERE app_id = $1 AND name = $2"#,
        app.uuid(),
        name,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::upstream).transpose()
}

/// Inserts an upstream. Returns `false` if the name is taken.
pub(in crate::upstreams) async fn insert(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    name: &str,
    settings: &Settings,
    secret: &Sealed<ClientSecret>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO upstreams (id, app_id, name, token_url, client_id, client_secret, auth, scope,
                                parameters, base_url)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10)
         ON CONFLICT (app_id, name) DO NOTHING",
        id.uuid(),
        app.uuid(),
        name,
        settings.token_url.as_str(),
        settings.client_id,
        secret.as_bytes(),
        settings.auth.as_str(),
        settings.scope,
        write_parameters(settings),
        settings.base_url.as_ref().map(OutboundUrl::as_str),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The settings as they are stored, unparsed: the service's present settings may be stricter.
#[derive(Debug)]
pub(in crate::upstreams) struct StoredSettings {
    pub(in crate::upstreams) id: UpstreamId,
    pub(in crate::upstreams) token_url: String,
    pub(in crate::upstreams) client_id: String,
    pub(in crate::upstreams) auth: String,
    pub(in crate::upstreams) scope: Option<String>,
    pub(in crate::upstreams) parameters: String,
    pub(in crate::upstreams) base_url: Option<String>,
}

/// Returns the settings of an upstream, locked until the transaction ends. The lock does not block
/// foreign keys.
pub(in crate::upstreams) async fn lock(
    conn: &mut Conn,
    app: AppId,
    name: &str,
) -> sqlx::Result<Option<StoredSettings>> {
    sqlx::query_as!(
        StoredSettings,
        r#"SELECT id AS "id: UpstreamId", token_url, client_id, auth, scope,
                parameters::text AS "parameters!", base_url
         FROM upstreams WHERE app_id = $1 AND name = $2 FOR NO KEY UPDATE"#,
        app.uuid(),
        name,
    )
    .fetch_optional(conn)
    .await
}

/// Writes changed settings. Drops the cached token, the wait after a failure and a lease: the epoch
/// moves on, so that a token request in flight, which used the old settings, cannot record its
/// outcome.
pub(in crate::upstreams) async fn change(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    settings: &Settings,
    secret: Option<&Sealed<ClientSecret>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE upstreams SET
            token_url = $3, client_id = $4, client_secret = coalesce($5, client_secret), auth = $6,
            scope = $7, parameters = $8::text::jsonb, base_url = $9, updated_at = strongroom_now(),
            access_token = NULL, token_epoch = NULL, token_asked_at = NULL, token_refresh_at = NULL,
            token_expires_at = NULL, lease_epoch = lease_epoch + 1, leased_until = NULL,
            failures = 0, failure = NULL, failure_detail = NULL, oauth_error = NULL, retry_at = NULL
         WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        settings.token_url.as_str(),
        settings.client_id,
        secret.map(Sealed::as_bytes),
        settings.auth.as_str(),
        settings.scope,
        write_parameters(settings),
        settings.base_url.as_ref().map(OutboundUrl::as_str),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes an upstream with its secret and its token. Returns `false` if there is none of this
/// name.
pub(in crate::upstreams) async fn delete(
    conn: &mut Conn,
    app: AppId,
    name: &str,
) -> sqlx::Result<bool> {
    let done =
        sqlx::query!("DELETE FROM upstreams WHERE app_id = $1 AND name = $2", app.uuid(), name,)
            .execute(conn)
            .await?;
    Ok(done.rows_affected() == 1)
}
