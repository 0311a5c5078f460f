//! Reveals a token in the clear: an exception with a scope and a budget of its own, always audited.

mod budget;
mod last_use;
pub mod routes;
pub mod store;

pub use budget::Budgets;
pub use last_use::LastUses;

use std::time::{Duration, Instant};

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::Status;
use crate::connections::opened_keys::open_before_reveal;
use crate::connections::query::store::ViewQuery;
use crate::connections::{ConnectionAad, ConnectionError, Context};
use crate::providers::{AccessToken, UserSecret};
use crate::vault::OpenedKeys;

/// For how long a locked row is retried: a revocation or a supersession holds it for one commit. Limited by time and
/// not by count, because a slow database makes each try long.
const RETRY_LOCKED_FOR: Duration = Duration::from_secs(2);
/// The pause before a locked row is retried.
const LOCKED_PAUSE: Duration = Duration::from_millis(5);

/// A token in the clear, with what a call to Dapi needs besides it.
#[derive(Debug)]
pub struct RevealedSecrets {
    pub client_user_id: String,
    pub login_id: Option<String>,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    pub access_token: AccessToken,
    /// `None` if the connection came through Dapi's own wire and no call has brought it yet.
    pub user_secret: Option<UserSecret>,
}

/// What became of a request to reveal a token.
#[derive(Debug)]
pub enum Reveal {
    /// The secrets. The audit event is committed.
    Secrets(Box<RevealedSecrets>),
    /// There is no usable token.
    NotActive(Status),
    /// There is no such connection.
    Unknown,
    /// The row stayed locked for [`RETRY_LOCKED_FOR`].
    Busy,
}

/// Reveals a token. The audit event is committed before the token is returned.
pub async fn reveal(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    reason: &str,
) -> Result<Reveal, ConnectionError> {
    let actor = AuditActor::from(actor);
    let keys = open_before_reveal(context, app, id).await?;
    let give_up_at = Instant::now() + RETRY_LOCKED_FOR;
    loop {
        let request = store::Reveal { actor: actor.clone(), app, id, reason: reason.to_owned() };
        if let Some(row) = context.batch(request).await? {
            context.metrics.reveals.inc();
            context.uses.record(context, app, id);
            let secrets = open(context, &keys, app, id, row).await?;
            return Ok(Reveal::Secrets(Box::new(secrets)));
        }
        match context.batch(ViewQuery { app, id }).await? {
            None => return Ok(Reveal::Unknown),
            Some(connection) if connection.status != Status::Active => {
                return Ok(Reveal::NotActive(connection.status));
            }
            Some(_) if Instant::now() > give_up_at => return Ok(Reveal::Busy),
            Some(_) => tokio::time::sleep(LOCKED_PAUSE).await,
        }
    }
}

async fn open(
    context: &Context,
    keys: &OpenedKeys,
    app: AppId,
    id: ConnectionId,
    row: store::Revealed,
) -> Result<RevealedSecrets, ConnectionError> {
    let aad = ConnectionAad { app, user: row.user, id };
    let key = keys.of(&context.vault, &row.user_key).await?;
    Ok(RevealedSecrets {
        access_token: row.access_token.open_bound(
            &key,
            &aad.access_token(),
            row.binding.as_ref(),
        )?,
        user_secret: row
            .user_secret
            .map(|sealed| sealed.open(&key, &aad.user_secret()))
            .transpose()?,
        client_user_id: row.client_user_id,
        login_id: row.login_id,
        dapi_user_id: row.dapi_user_id,
        dapi_token_id: row.dapi_token_id,
    })
}
