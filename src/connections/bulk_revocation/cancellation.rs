//! Cancelling a bulk revocation: what was not delinked by then never is, so that four eyes hold it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Change, ChangeOutcome, change, store};
use crate::approvals::{self, AskError, Gated, Kind, NewRequest};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, BulkRevocationId};
use crate::config::FourEyes;
use crate::database::Conn;
use crate::vault::Vault;

/// A cancellation that waits for a second person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedCancellation {
    /// The bulk revocation.
    pub id: BulkRevocationId,
    /// For the audit trail, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Cancels a bulk revocation, or records that this waits for a second person. Idempotent. The reason is for the audit trail.
///
/// # Errors
/// See [`AskError`].
pub async fn cancel(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    app: AppId,
    id: BulkRevocationId,
    reason: Option<&str>,
) -> Result<Gated<ChangeOutcome>, AskError> {
    let Some(found) = store::find_progress(conn, app, id).await? else {
        return Ok(Gated::Done(ChangeOutcome::Unknown));
    };
    // Otherwise there is nothing to give up.
    let gives_up = found.status.may_be_cancelled();
    let request = json!(RequestedCancellation { id, reason: reason.map(str::to_owned) });
    let new = NewRequest {
        app: Some(app),
        kind: Kind::Cancellation,
        request: request.to_string(),
        described: request,
        matched: Some(found.telling + found.waiting),
    };
    match approvals::ask(conn, vault, actor, gives_up && four_eyes.is_on(), &new).await? {
        Gated::Awaits(awaiting) => Ok(Gated::Awaits(awaiting)),
        Gated::Done(permitted) => {
            let cancel = Change::Cancel { permitted: &permitted, reason };
            Ok(Gated::Done(change(conn, actor, app, id, cancel).await?))
        }
    }
}
