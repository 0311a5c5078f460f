//! Acquiring the token, for a caller who reads it or for a call that uses it. Every use is in the
//! audit trail before the token leaves.

use super::model::Failure;
use super::store::{self, Lookup};
use super::{Context, UpstreamError, UpstreamToken, fetch, token_aad};
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, UpstreamId};
use crate::common::text;
use crate::vault::Vault;

/// How often the token is looked up before the caller is asked to retry: once, again after the
/// flight that it joined, and once more if that one was another caller's and brought nothing.
const MAX_LOOKUPS: u32 = 3;
/// The maximum length of an audit reason, in bytes.
const MAX_REASON: usize = 500;

/// What a token is acquired for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// To return it to the caller.
    Read,
    /// For a call with this method and path.
    Call(&'a str, &'a str),
}

impl Purpose<'_> {
    const fn action(&self) -> &'static str {
        match self {
            Self::Read => "upstream.token_read",
            Self::Call(..) => "upstream.called",
        }
    }

    /// Returns the reason for the audit trail. A path may hold secrets and names, and the trail is
    /// permanent: it stores a keyed hash, equal for equal paths of one app. The literal is frozen.
    fn reason(&self, vault: &Vault, app: AppId, name: &str) -> String {
        match self {
            Self::Read => name.to_owned(),
            Self::Call(method, path) => {
                let key = vault.secret_hashes_of(app);
                let hash = key.hash(&[b"upstream path", app.uuid().as_bytes(), path.as_bytes()]);
                let hash = hex::encode(hash.as_bytes());
                text::tame(&format!("{name} {method} path:{hash:.16}"), MAX_REASON)
            }
        }
    }
}

/// An acquired token.
#[derive(Debug)]
pub(super) struct AcquiredToken {
    pub(super) id: UpstreamId,
    pub(super) token: UpstreamToken,
    /// Distinguishes this token from its predecessor and its successor.
    pub(super) epoch: i32,
    /// Whole seconds until it expires, at least one.
    pub(super) expires_in: i64,
    pub(super) base_url: Option<String>,
}

/// Why there is no token at the moment.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) kind: Failure,
    pub(super) oauth_error: Option<String>,
    pub(super) detail: String,
    /// Seconds until the next token request.
    pub(super) retry_after: u64,
}

/// The outcome of acquiring a token.
#[derive(Debug)]
pub(super) enum AcquireOutcome {
    Token(Box<AcquiredToken>),
    /// The last token request failed, and the next one is postponed.
    Failing(Failing),
    /// The app has no upstream of this name.
    Unknown,
    /// Too many requests wait, or the token request takes too long.
    Busy,
}

/// Acquires the token of the app's upstream `name`. If a refresh is due, it starts in the
/// background while this token serves; if there is no token, this waits for one.
pub(super) async fn acquire(
    context: &Context,
    actor: &Actor,
    app: AppId,
    name: &str,
    purpose: Purpose<'_>,
) -> Result<AcquireOutcome, UpstreamError> {
    let (actor, reason) = (AuditActor::from(actor), purpose.reason(&context.vault, app, name));
    for _ in 0..MAX_LOOKUPS {
        let mut conn = context.pool.acquire().await?;
        let found = store::acquire(&mut conn, &actor, app, name, purpose.action(), &reason).await?;
        drop(conn);
        let Some(found) = found else { return Ok(AcquireOutcome::Unknown) };
        let id = found.id;
        if found.token.is_some() {
            if found.refresh_due {
                drop(fetch::begin(context, app, id, None));
            }
            context.metrics.acquired.inc();
            return Ok(open(context, app, found)
                .await?
                .map_or(AcquireOutcome::Busy, AcquireOutcome::Token));
        }
        if let Some(failing) = failing(found) {
            return Ok(AcquireOutcome::Failing(failing));
        }
        let flight = fetch::begin(context, app, id, None);
        if context.single_flight.wait(flight).await.is_err() {
            break;
        }
    }
    Ok(AcquireOutcome::Busy)
}

/// Fetches a successor to a token that the upstream's API refused, and waits for it.
pub(super) async fn renew(context: &Context, app: AppId, refused: &AcquiredToken) {
    let flight = fetch::begin(context, app, refused.id, Some(refused.epoch));
    // The next `acquire` finds out whether it arrived.
    let _ = context.single_flight.wait(flight).await;
}

async fn open(
    context: &Context,
    app: AppId,
    found: Lookup,
) -> Result<Option<Box<AcquiredToken>>, UpstreamError> {
    let key = context.vault.unwrap(&found.key).await?;
    let token = found.token.zip(found.token_epoch).zip(found.expires_in);
    let Some(((sealed, epoch), expires_in)) = token else { return Ok(None) };
    let token = sealed.open(&key, &token_aad(app, found.id))?;
    Ok(Some(Box::new(AcquiredToken {
        id: found.id,
        token,
        epoch,
        expires_in,
        base_url: found.base_url,
    })))
}

fn failing(found: Lookup) -> Option<Failing> {
    Some(Failing {
        retry_after: u64::try_from(found.cooling?).unwrap_or(1),
        kind: Failure::parse(&found.failure?)?,
        oauth_error: found.oauth_error,
        detail: found.failure_detail?,
    })
}
