//! The hand-over of a chain from one deployment to another: an app that was moved here brings its trail, and the chain goes on
//! after the link with which it left.
//!
//! What is known of the source (its public keys, the head that it signed, what it had archived) is signed by this deployment,
//! so that the owner of the database cannot add a key by which a chain of their own would verify.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chain;
use super::checkpoint::Checkpoint;
use super::model::{Head, LINK_VERSION};
use super::store;
use crate::common::ids::{AppId, ExportId};
use crate::database::Conn;

/// The `typ` of a hand-over's JWS (RFC 7515 §4.1.9). No other token of this service has it.
pub const TYP: &str = "strongroom-app-import+jwt";

/// The claims that a hand-over's signature covers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The deployment that took the app over, by its public URL.
    pub iss: String,
    /// The app.
    pub sub: AppId,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// The export.
    pub export: ExportId,
    /// The deployment that the app comes from, by its public URL.
    pub source: String,
    /// The last link that was made there.
    pub head: Head,
    /// The public keys of the source (RFC 7517): they verify what it signed about this app.
    pub keys: Vec<Value>,
    /// The signed statements of the months that the source had archived.
    pub archives: Vec<String>,
}

impl Handover {
    /// Reads the claims of a JWS without verifying it, for what is no proof.
    #[must_use]
    pub fn peek(jws: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(jws.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&payload).ok()
    }

    /// Returns what the source stated about the chain, as a checkpoint that the chain here has to continue.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            iss: self.source.clone(),
            sub: self.sub,
            iat: self.iat,
            seq: self.head.seq,
            hash: self.head.hash.to_string(),
            version: LINK_VERSION,
        }
    }
}

/// Returns the signed hand-overs of an app, the latest first.
///
/// # Errors
/// The database's.
pub async fn handovers(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT statement FROM app_imports WHERE app_id = $1 ORDER BY imported_at DESC",
        app.uuid(),
    )
    .fetch_all(conn)
    .await
}

/// Returns the export of the last import of which the app's trail tells, as far as it is in the database. Its head covers those
/// before it.
///
/// # Errors
/// The database's.
pub async fn last_import_in_the_trail(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"-- name: last_import_in_the_trail
         SELECT split_part((array_agg(reason ORDER BY id DESC))[1], ' ', 1) AS "export?"
         FROM audit_events WHERE app_id = $1 AND action = 'app.imported'"#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Returns where an app's chain stands; `None` while rows wait for their links.
///
/// # Errors
/// The database's.
pub async fn complete_head(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<Head>> {
    let waits = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM audit_unlinked WHERE app_id = $1) AS "it!""#,
        app.uuid(),
    )
    .fetch_one(&mut *conn)
    .await?;
    let head = store::head(conn, app).await?;
    Ok((!waits).then_some(head))
}

/// Links the rows that wait, as the background work does.
///
/// # Errors
/// The database's.
pub async fn link_waiting(conn: &mut Conn) -> sqlx::Result<()> {
    chain::round_on(conn).await?;
    Ok(())
}

/// Lets the chain of an app that arrives go on after links that were archived: as the owner, who alone writes heads.
///
/// # Errors
/// The database's.
pub async fn go_on_after(conn: &mut Conn, app: AppId, head: Head) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO audit_heads (app_id, seq, hash) VALUES ($1, $2, $3)
         ON CONFLICT (app_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        app.uuid(),
        head.seq,
        head.hash.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes an app's rows, which arrived with their links, from the queue of the chainer.
///
/// # Errors
/// The database's.
pub async fn forget_waiting(conn: &mut Conn, app: AppId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM audit_unlinked WHERE app_id = $1", app.uuid()).execute(conn).await?;
    Ok(())
}
