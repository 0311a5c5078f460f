//! Hand-overs of a trail: what this deployment has signed about those that an app was moved from.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::audit::Checkpoint;
use crate::audit::handover::{self, Handover};
use crate::cli::Failure;
use crate::common::ids::AppId;
use crate::database::{Conn, LongWork};
use crate::oauth::statements;

/// What is known of the deployments that an app comes from.
pub(in crate::cli) struct Handovers {
    /// The keys that were given, and those of these deployments.
    pub(in crate::cli) keys: Vec<Value>,
    /// Where the chain was handed over.
    pub(in crate::cli) checkpoints: Vec<Checkpoint>,
    /// Hand-overs that no key verifies; and the last one of which the trail tells, if it is not on record. The chain before them is
    /// not proved.
    pub(in crate::cli) unproved: usize,
}

/// Verifies the hand-overs of an app with these keys.
///
/// # Errors
/// The database's.
pub(in crate::cli) async fn handovers(
    conn: &mut Conn,
    app: AppId,
    keys: &[Value],
) -> sqlx::Result<Handovers> {
    let mut known = Handovers { keys: keys.to_vec(), checkpoints: Vec::new(), unproved: 0 };
    let statements = handover::handovers(conn, app).await?;
    conn.allow(LongWork::AuditVerification).await?;
    let mut last = handover::last_import_in_the_trail(conn, app).await?;
    for jws in statements {
        let claims = statements::open(&jws, handover::TYP, &known.keys).ok();
        let handover = claims.and_then(|claims| serde_json::from_value::<Handover>(claims).ok());
        match handover.filter(|handover| handover.sub == app) {
            Some(handover) => {
                last.take_if(|export| *export == handover.export.to_string());
                known.checkpoints.push(handover.checkpoint());
                known.keys.extend(handover.keys);
            }
            None => known.unproved += 1,
        }
    }
    if last.is_some() {
        known.unproved = known.unproved.max(1);
    }
    Ok(known)
}

/// Returns these keys and those that were kept in files.
///
/// # Errors
/// [`Failure::Usage`] if a file holds no key set.
pub(in crate::cli) fn with_kept_keys(
    mut keys: Vec<Value>,
    files: &[PathBuf],
) -> Result<Vec<Value>, Failure> {
    for path in files {
        keys.extend(kept_keys(path)?);
    }
    Ok(keys)
}

fn kept_keys(path: &Path) -> Result<Vec<Value>, Failure> {
    let refused = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let set: Value = serde_json::from_str(&text).unwrap_or_default();
    let keys = set.get("keys").and_then(Value::as_array).cloned();
    keys.ok_or_else(|| Failure::Usage(format!("{} is no JWK set", path.display())))
}
