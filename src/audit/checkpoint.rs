//! Checkpoints: signed statements of an app's chain at one time, to be kept out of reach of the database's
//! owner. A chain that was truncated or rewritten as a whole is consistent in itself; only a checkpoint
//! shows the difference.

use serde::{Deserialize, Serialize};

use super::model::{Head, LINK_VERSION};
use super::store;
use crate::common::ids::AppId;
use crate::common::signer::Signer;
use crate::database::{self, Conn};

/// The `typ` of a checkpoint's JWS (RFC 7515 §4.1.9). No other token of this service has it.
pub const TYP: &str = "strongroom-audit-checkpoint+jwt";

/// The claims that a checkpoint's signature covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The service that signed it, by its public URL.
    pub iss: String,
    /// The app that the chain belongs to.
    pub sub: AppId,
    /// When the checkpoint was made, in seconds since 1970.
    pub iat: i64,
    /// The number of links in the chain.
    pub seq: i64,
    /// The hash of the last link, in hexadecimal.
    pub hash: String,
    /// The version of the links' encoding (`LINK_VERSION`).
    pub version: i16,
}

impl Checkpoint {
    /// Whether it states another hash for this position.
    #[must_use]
    pub fn contradicts(&self, head: Head) -> bool {
        self.seq == head.seq && self.hash != head.hash.to_string()
    }
}

/// A checkpoint with its signature.
#[derive(Clone, Debug)]
pub struct SignedCheckpoint {
    /// The claims in the clear, for the answer.
    pub claims: Checkpoint,
    /// The claims as a JWS in the compact form (RFC 7515 §7.1).
    pub jws: String,
}

/// Signs the current end of an app's chain; returns `None` if no key signs.
pub async fn checkpoint(
    conn: &mut Conn,
    app: AppId,
    signer: &Signer,
) -> sqlx::Result<Option<SignedCheckpoint>> {
    let now = database::now(conn).await?;
    let head = store::head(conn, app).await?;
    let claims = Checkpoint {
        iss: signer.issuer().to_owned(),
        sub: app,
        iat: now.unix_timestamp(),
        seq: head.seq,
        hash: head.hash.to_string(),
        version: LINK_VERSION,
    };
    let jws = serde_json::to_value(&claims).ok().and_then(|value| signer.sign(TYP, &value));
    Ok(jws.map(|jws| SignedCheckpoint { claims, jws }))
}
