//! What is archived of a chain: the signed statement of each file, with which the chain is followed across the links that are gone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::handover::{self, Handover};
use super::model::{Head, LinkHash};
use crate::common::ids::AppId;
use crate::database::Conn;

/// The `typ` of an archive's JWS (RFC 7515 §4.1.9). No other token of this service has it.
pub const TYP: &str = "strongroom-audit-archive+jwt";

/// Links that follow each other without a gap. Rows that were written around the end of a month are linked in another order
/// than that of their months, so that an archive may hold several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The link before the first one.
    pub after: Head,
    /// The last one.
    pub end: Head,
}

/// The claims that an archive's signature covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatement {
    /// The service that signed it, by its public URL.
    pub iss: String,
    /// The app whose links they are.
    pub sub: AppId,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// The month: `2026_12`, or `before`.
    pub month: String,
    /// How many links the file holds.
    pub links: i64,
    /// Which, in their order.
    pub runs: Vec<Run>,
    /// SHA-256 over the file's lines before the statement, uncompressed, in hexadecimal.
    pub sha256: String,
    /// The version of the links' encoding (`LINK_VERSION`).
    pub version: i16,
}

impl ArchiveStatement {
    /// Reads the claims of a JWS without verifying it, for what is no proof.
    #[must_use]
    pub fn peek(jws: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(jws.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&payload).ok()
    }

    /// Returns where the chain stands after the archived links that follow `head`, if there are any.
    #[must_use]
    pub fn across(&self, head: Head) -> Option<Head> {
        self.runs.iter().find(|run| run.after == head).map(|run| run.end)
    }
}

/// Returns the hash of the link at a position, from the chain or from what was archived of it.
pub(super) async fn hash_of(
    conn: &mut Conn,
    app: AppId,
    seq: i64,
) -> sqlx::Result<Option<LinkHash>> {
    let hash = sqlx::query_scalar!(
        "SELECT hash FROM audit_links WHERE app_id = $1 AND seq = $2",
        app.uuid(),
        seq,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(hash) = hash {
        return Ok(LinkHash::from_bytes(&hash));
    }
    let archives = statements(conn, app).await?;
    let runs = archives.iter().filter_map(|jws| ArchiveStatement::peek(jws)).flat_map(|it| it.runs);
    Ok(runs.map(|run| run.end).find(|end| end.seq == seq).map(|end| end.hash))
}

/// Returns the statements of an app's archives: those of the deployments that it was moved from, then this one's, oldest
/// month first.
///
/// # Errors
/// The database's errors.
pub async fn statements(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<String>> {
    let handed_over = handover::handovers(conn, app).await?;
    let mut statements: Vec<_> = handed_over
        .iter()
        .filter_map(|jws| Handover::peek(jws))
        .flat_map(|handover| handover.archives)
        .collect();
    let own = sqlx::query_scalar!(
        "SELECT a.statement FROM audit_archives a JOIN audit_months m ON m.name = a.month
         WHERE a.app_id = $1 ORDER BY m.ends_at",
        app.uuid(),
    )
    .fetch_all(conn)
    .await?;
    statements.extend(own);
    Ok(statements)
}
