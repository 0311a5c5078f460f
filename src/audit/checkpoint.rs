//! Checkpoints: what an app's chain was at a time, signed, to be kept where the database's owner cannot
//! reach. A chain that is cut off or rewritten as a whole holds together, and not with these.

use serde::{Deserialize, Serialize};

use super::model::LINK_VERSION;
use super::store;
use crate::base::ids::AppId;
use crate::base::signer::Signer;
use crate::database::Conn;

/// The `typ` of a checkpoint's JWS (RFC 7515 §4.1.9), which no other token of this service has.
pub const TYP: &str = "strongroom-audit-checkpoint+jwt";

/// The claims of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The service that signed it.
    pub iss: String,
    /// The app whose chain it is.
    pub sub: AppId,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// How many links the chain had.
    pub seq: i64,
    /// The hash of the last, in hexadecimal.
    pub hash: String,
    /// The version of the links' encoding.
    pub version: i16,
}

/// A checkpoint as it is handed out.
#[derive(Clone, Debug)]
pub struct SignedCheckpoint {
    /// What it says.
    pub claims: Checkpoint,
    /// The same as a JWS in the compact form (RFC 7515 §7.1).
    pub jws: String,
}

/// A checkpoint of the app's chain as it is; `None` where no key signs.
pub async fn checkpoint(
    conn: &mut Conn,
    app: AppId,
    signer: &Signer,
) -> sqlx::Result<Option<SignedCheckpoint>> {
    let now = store::now(conn).await?;
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
