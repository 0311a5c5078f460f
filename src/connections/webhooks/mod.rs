//! Plaid's webhooks: verified, deduplicated, and applied to the connection of their item.
//!
//! Anybody can send one, so that the checks go from what costs nothing to what is scarce: the header's form and age, the
//! body's digest, the app (a list in memory), the key (cached; look-ups are limited), the signature. Only then is
//! anything written.
//!
//! A webhook may come before the exchange of its item is recorded, when the item is not known here. It is kept and the
//! background work applies it as soon as a connection of the item is active: it looks at the table and not at the moment,
//! so that it does not matter which of the two transactions commits first, or whether a replica dies between them.

mod apps;
mod keys;
pub mod routes;
pub mod store;

use std::time::Instant;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::common::named::named;
use crate::connections::attention::store::{clear_attention, set_attention};
use crate::connections::bank_login::LockedConnection;
use crate::connections::deferred::Reconciler;
use crate::connections::effects::Effects;
use crate::connections::isolation::{found, isolated};
use crate::connections::model::{RevocationKind, Status};
use crate::connections::revocation::{Request, revoke_in};
use crate::connections::{ConnectionError, Context, bank_login};
use crate::database::{Conn, retry};
use crate::providers::Provider;
use crate::providers::plaid::{ItemEvent, ItemWebhook, Unverified, Verification};
use apps::{Apps, Unreadable};
use keys::{Found, Keys};
use store::Kept;

/// How many kept webhooks one pass applies.
const PORTION: i64 = 100;
/// Failures after which a pass ends: each may have waited for a lock timeout, and other work waits for the pass.
const FAILURES: usize = 3;

/// What became of a webhook, as its metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied to its connection.
    Applied,
    /// No connection of its item is usable yet; it is kept for an hour.
    Kept,
    /// It concerns no connection.
    Ignored,
    /// It was received before.
    Repeated,
    /// The signature is missing or has another form or algorithm.
    Unsigned,
    /// It was issued too long ago, or in the future.
    Stale,
    /// The signature is about another body.
    Altered,
    /// No app of Plaid's has this name.
    UnknownApp,
    /// The key is not Plaid's or has expired, or it did not sign this.
    Forged,
    /// The key could not be looked up, or the database did not take the webhook. Plaid sends it again.
    Failed,
}

named!(Outcome {
    Applied => "applied",
    Kept => "kept",
    Ignored => "ignored",
    Repeated => "repeated",
    Unsigned => "unsigned",
    Stale => "stale",
    Altered => "altered",
    UnknownApp => "unknown_app",
    Forged => "forged",
    Failed => "failed",
});

/// What the threads of a replica know together about senders of webhooks. Clones share it.
#[derive(Clone, Debug)]
pub struct Receiver {
    apps: Apps,
    keys: Keys,
    clock: Clock,
}

impl Receiver {
    /// Creates a receiver that knows nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { apps: Apps::new(clock.clone()), keys: Keys::new(clock.clone()), clock }
    }

    /// Reads the header; whatever fails here has cost nothing.
    fn read<'a>(&self, header: Option<&'a str>) -> Result<Verification<'a>, Outcome> {
        let header = header.ok_or(Outcome::Unsigned)?;
        Verification::read(header, self.clock.now()).map_err(|error| match error {
            Unverified::Unsigned => Outcome::Unsigned,
            Unverified::Stale => Outcome::Stale,
        })
    }

    /// Returns the app whose webhook this is, if Plaid signed it.
    async fn verify(
        &self,
        context: &Context,
        app: &str,
        verification: &Verification<'_>,
        body: &[u8],
    ) -> Result<AppId, Outcome> {
        if !verification.is_of(body) {
            return Err(Outcome::Altered);
        }
        let app = self.apps.find(context, app).await.map_err(|Unreadable| Outcome::Failed)?;
        let app = app.ok_or(Outcome::UnknownApp)?;
        match self.keys.find(context, app, verification.key_id()).await {
            Found::Key(key) if key.is_expired(self.clock.now()) => Err(Outcome::Forged),
            Found::Key(key) if verification.is_signed_by(&key) => Ok(app),
            Found::Key(_) | Found::Unknown => Err(Outcome::Forged),
            Found::Unavailable => Err(Outcome::Failed),
        }
    }
}

/// Records a verified webhook and applies it, in one transaction.
async fn record(
    context: &Context,
    app: AppId,
    digest: [u8; 32],
    issued_at: time::OffsetDateTime,
    webhook: &ItemWebhook,
) -> Result<Outcome, ConnectionError> {
    let kept = Kept { app, digest, issued_at, webhook: webhook.clone() };
    let (outcome, effects) = retry(|| async {
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        if !store::insert(&mut tx, &kept).await? {
            return Ok::<_, ConnectionError>((Outcome::Repeated, Effects::default()));
        }
        let applied = apply(&mut tx, &kept).await?;
        fail::fail_point!("webhook::before_commit");
        tx.commit().await?;
        Ok(applied.map_or((Outcome::Kept, Effects::default()), |done| (Outcome::Applied, done)))
    })
    .await?;
    effects.apply(context);
    Ok(outcome)
}

/// Applies a webhook to the connection of its item. Returns `None` if there is none that it can be applied to yet.
async fn apply(tx: &mut Conn, kept: &Kept) -> Result<Option<Effects>, ConnectionError> {
    let Kept { app, webhook, .. } = kept;
    let Some((id, user)) = store::connection_of(tx, *app, &webhook.item_id).await? else {
        return Ok(None);
    };
    let login = Some(webhook.item_id.as_str());
    let locked = bank_login::lock_bank_login(tx, *app, login, Some(id), user).await?;
    let Some(me) = locked.me else { return Ok(None) };
    let effects = match (webhook.event, me.status) {
        (ItemEvent::PermissionRevoked, Status::Active | Status::Pending) => end(tx, &me).await?,
        (_, Status::Active) => notice(tx, &me, kept).await?,
        // It ended meanwhile. A pending one is told once it is active.
        _ => return Ok(None),
    };
    store::mark_applied(tx, kept).await?;
    Ok(Some(effects))
}

/// Ends a connection whose item is dead. It goes through `revoking`, as Plaid recommends: `/item/remove` makes sure that
/// nothing lives on there.
async fn end(tx: &mut Conn, me: &LockedConnection) -> Result<Effects, ConnectionError> {
    let request = Request {
        kind: RevocationKind::Invalidate,
        reason: Some("Plaid's webhook USER_PERMISSION_REVOKED"),
        unconfirmed: None,
    };
    let (_, effects) = revoke_in(tx, &Actor::service(), me.app, me.id, request).await?;
    Ok(effects)
}

/// Records what is the matter with the login of an active connection.
async fn notice(
    tx: &mut Conn,
    me: &LockedConnection,
    kept: &Kept,
) -> Result<Effects, ConnectionError> {
    let (app, id, actor) = (me.app, me.id, AuditActor::from(&Actor::service()));
    match kept.webhook.event {
        // Webhooks arrive in any order: trouble from before the repair or before the link is past, and so is a repair from
        // before the trouble.
        ItemEvent::LoginRequired if store::is_past(tx, kept, id).await? => {}
        ItemEvent::LoginRequired => {
            let since = Some(kept.issued_at);
            set_attention(tx, &actor, app, id, &kept.webhook.code, since).await?;
        }
        ItemEvent::LoginRepaired if store::is_repair_past(tx, kept, id).await? => {}
        ItemEvent::LoginRepaired => {
            clear_attention(tx, &actor, app, id, Some(kept.issued_at)).await?;
        }
        // Calls still work, and attention would stop them: it is on record, and nothing else changes.
        ItemEvent::LoginExpiring => {
            store::record_expiry(tx, &actor, app, id, &kept.webhook.code).await?;
        }
        ItemEvent::PermissionRevoked => {}
    }
    Ok(Effects::default().changed(id))
}

/// Applies the kept webhooks whose item has become known. Returns how many.
pub async fn reconcile(context: &Context) -> usize {
    const WEBHOOKS: Reconciler = Reconciler::Webhooks;
    let except = context.deferred.rows(WEBHOOKS, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        store::due(&mut conn, PORTION, &except).await
    };
    let due = found(context, WEBHOOKS, due.await);
    let (mut applied, mut failures) = (0, 0);
    for (kept, connection) in due {
        let apply = Box::pin(apply_kept(context, &kept));
        let done = isolated(context, WEBHOOKS, connection, apply).await;
        applied += usize::from(done == Some(true));
        failures += usize::from(done.is_none());
        if failures == FAILURES {
            break;
        }
    }
    applied
}

async fn apply_kept(context: &Context, kept: &Kept) -> Result<bool, ConnectionError> {
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    if !store::lock_waiting(&mut tx, kept).await? {
        return Ok(false);
    }
    let applied = apply(&mut tx, kept).await?;
    tx.commit().await?;
    let Some(effects) = applied else { return Ok(false) };
    effects.apply(context);
    Ok(true)
}

/// Reads what a verified webhook says about an item, if it concerns a connection.
fn read(context: &Context, body: &[u8]) -> Option<ItemWebhook> {
    ItemWebhook::read(body, |code| context.providers.needs_attention(Provider::Plaid, code))
}
