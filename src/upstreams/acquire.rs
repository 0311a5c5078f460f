//! Lending the token: to a caller who reads it, or to a call that uses it. Every lending is on record
//! before the token leaves.

use std::fmt::Write as _;

use super::model::Failure;
use super::store::{self, Seen};
use super::{Context, Failed, UpstreamToken, fetch, token_aad};
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, UpstreamId};
use crate::base::text;
use crate::vault::{KeyOwner, Vault, WrappedKey};

/// How often somebody who wants a token looks for it before they are told to come back: once, again when
/// the flight that was under way has landed, and again should that one have been another's.
const LOOKS: u32 = 3;
/// The longest reason that is kept, in bytes.
const MAX_REASON: usize = 500;

/// What a token is wanted for, as the audit trail tells it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// To be handed to the caller.
    Read,
    /// For a call with this method to this path.
    Call(&'a str, &'a str),
}

impl Purpose<'_> {
    const fn action(&self) -> &'static str {
        match self {
            Self::Read => "upstream.token_read",
            Self::Call(..) => "upstream.called",
        }
    }

    /// A path may hold secrets and people's names, and stays in the trail for good: it is told by a keyed
    /// hash, equal for equal paths of one app.
    fn reason(&self, vault: &Vault, app: AppId, name: &str) -> String {
        match self {
            Self::Read => name.to_owned(),
            Self::Call(method, path) => {
                let app = app.uuid();
                let parts = [&b"upstream path"[..], app.as_bytes(), path.as_bytes()];
                let hash = vault.secret_hashes().hash(&parts);
                let hash = hash.as_bytes().iter().take(8).fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                text::tame(&format!("{name} {method} path:{hash}"), MAX_REASON)
            }
        }
    }
}

/// A token that is lent.
#[derive(Debug)]
pub(super) struct AcquiredToken {
    pub(super) id: UpstreamId,
    pub(super) token: UpstreamToken,
    /// Tells this token from the one before and the one after.
    pub(super) epoch: i32,
    /// Whole seconds of life that it has left, one at least.
    pub(super) expires_in: i64,
    pub(super) base_url: Option<String>,
}

/// Why there is no token at the moment.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) kind: Failure,
    pub(super) oauth_error: Option<String>,
    pub(super) detail: String,
    /// Seconds until somebody asks the upstream again.
    pub(super) retry_after: u64,
}

/// What became of the wish for a token.
#[derive(Debug)]
pub(super) enum AcquireOutcome {
    /// The token.
    Token(Box<AcquiredToken>),
    /// The upstream gave none, and is not asked again for a while.
    Failing(Failing),
    /// There is no such upstream.
    Unknown,
    /// Too many wait, or it takes too long.
    Busy,
}

/// Lends the token of the app's upstream `name`. Where it is due, another is fetched in the background
/// while this one serves; where there is none, this waits for it.
pub(super) async fn acquire(
    context: &Context,
    actor: &Actor,
    app: AppId,
    name: &str,
    purpose: Purpose<'_>,
) -> Result<AcquireOutcome, Failed> {
    let (actor, reason) = (AuditActor::from(actor), purpose.reason(&context.vault, app, name));
    for _ in 0..LOOKS {
        let mut conn = context.pool.acquire().await?;
        let seen = store::acquire(&mut conn, &actor, app, name, purpose.action(), &reason).await?;
        drop(conn);
        let Some(seen) = seen else { return Ok(AcquireOutcome::Unknown) };
        let id = seen.id;
        if seen.token.is_some() {
            if seen.refresh_due {
                drop(fetch::begin(context, app, id, None));
            }
            context.metrics.lent.inc();
            return Ok(
                open(context, app, seen)?.map_or(AcquireOutcome::Busy, AcquireOutcome::Token)
            );
        }
        if let Some(failing) = failing(seen) {
            return Ok(AcquireOutcome::Failing(failing));
        }
        let landing = fetch::begin(context, app, id, None);
        if context.single_flight.wait(landing).await.is_err() {
            break;
        }
    }
    Ok(AcquireOutcome::Busy)
}

/// Has the token fetched anew that the upstream's API refused, and waits for that.
pub(super) async fn renew(context: &Context, app: AppId, refused: &AcquiredToken) {
    let landing = fetch::begin(context, app, refused.id, Some(refused.epoch));
    // Whether it came, and whether there was a place to wait, the next lending tells.
    let _ = context.single_flight.wait(landing).await;
}

fn open(context: &Context, app: AppId, seen: Seen) -> Result<Option<Box<AcquiredToken>>, Failed> {
    let key = context.vault.unwrap(&WrappedKey {
        id: seen.key_id,
        owner: KeyOwner::App(app),
        master_key_id: seen.master_key_id,
        wrapped: seen.wrapped,
    })?;
    let held = seen.token.zip(seen.token_epoch).zip(seen.expires_in);
    let Some(((sealed, epoch), expires_in)) = held else { return Ok(None) };
    let token = sealed.open(&key, &token_aad(app, seen.id))?;
    Ok(Some(Box::new(AcquiredToken {
        id: seen.id,
        token,
        epoch,
        expires_in,
        base_url: seen.base_url,
    })))
}

fn failing(seen: Seen) -> Option<Failing> {
    Some(Failing {
        retry_after: u64::try_from(seen.cooling?).unwrap_or(1),
        kind: Failure::parse(&seen.failure?)?,
        oauth_error: seen.oauth_error,
        detail: seen.failure_detail?,
    })
}
