//! Concluding an exchange: its outcome is committed in one transaction, as often as it takes, and
//! changes what the rules say.

use std::time::{Duration, Instant};

use crate::connections::bank_login::LockedConnection;
use crate::connections::model::{Answer, Attempt, Connection, Transition};
use crate::connections::transitions::store::{Activation, SealedToken};
use crate::connections::{ConnectionAad, Context, backoff, bank_login, model, sql, transitions};
use crate::database::{Conn, Fault};

/// The first wait before an exchange is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// How long an answer is kept in memory for a database that does not take it.
const HOLD_ANSWER: Duration = Duration::from_mins(15);

/// An exchange's outcome, sealed and ready to be committed, as often as it takes.
pub struct Outcome {
    pub aad: ConnectionAad,
    pub dapi_connection_id: String,
    pub epoch: i32,
    pub answer: Answer,
    pub token: Option<SealedToken>,
    pub retry_after: Option<Duration>,
}

/// What became of an outcome.
pub struct Concluded {
    /// The word for it, as metrics tell it.
    pub what: &'static str,
    /// The connection, where that is how it is known to stand.
    pub active: Option<Connection>,
}

impl Concluded {
    const fn new(what: &'static str) -> Self {
        Self { what, active: None }
    }
}

/// Commits an outcome, and goes on trying where the database does not take it. Whether a COMMIT that
/// went unanswered was applied is read back by the epoch, so that trying again is safe.
pub async fn commit_outcome(context: &Context, outcome: &Outcome) -> Concluded {
    let given_up = Instant::now() + HOLD_ANSWER;
    let mut wait = Duration::from_millis(50);
    // From the moment it exists: an answer that waits is one that a crash would lose.
    let _waiting = Waiting::new(context);
    loop {
        let error = match conclude(context, outcome).await {
            Ok(concluded) => return concluded,
            Err(error) => error,
        };
        tracing::warn!(cause = %error, "an outcome could not be committed, trying again");
        if Instant::now() + wait > given_up {
            tracing::error!("an outcome was given up; the lease's end brings the next attempt");
            context.metrics.answers_lost.inc();
            return Concluded::new("lost");
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

/// Counts an answer that waits in memory for the database.
struct Waiting<'a>(&'a Context);

impl<'a> Waiting<'a> {
    fn new(context: &'a Context) -> Self {
        context.metrics.answers_waiting.inc();
        Self(context)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.answers_waiting.dec();
    }
}

async fn conclude(context: &Context, outcome: &Outcome) -> Result<Concluded, sqlx::Error> {
    let ConnectionAad { app, id, .. } = outcome.aad;
    if let Some(token) = outcome.token.clone() {
        let activation = Activation { app, id, epoch: outcome.epoch, token };
        match context.batches.activate(activation).await {
            Ok(Some(active)) => return Ok(Concluded { what: "active", active: Some(active) }),
            // Not so simple: another connection of the login has to be looked at.
            Ok(None) => {}
            Err(error) if Fault::of(&error).is_passing() => return Err(error),
            Err(error) => {
                tracing::debug!(cause = %error, "not activated by itself, the login is looked at");
            }
        }
    }
    let mut tx = context.pool.begin().await?;
    // What is locked for long is tried again, and holds up no connection of the pool meanwhile.
    bank_login::wait_briefly(&mut tx).await?;
    let what = conclude_locked(context, &mut tx, outcome).await?;
    tx.commit().await?;
    Ok(Concluded::new(what))
}

async fn conclude_locked(
    context: &Context,
    tx: &mut Conn,
    outcome: &Outcome,
) -> Result<&'static str, sqlx::Error> {
    let ConnectionAad { app, user, id } = outcome.aad;
    let locked =
        bank_login::lock_bank_login(tx, app, &outcome.dapi_connection_id, Some(id), user).await?;
    // The user was erased meanwhile, and with them the key that would open the token.
    let Some(me) = locked.me else { return Ok("erased") };
    if me.settled_epoch == Some(outcome.epoch) {
        return Ok("active");
    }
    let attempt = Attempt {
        current: me.lease_epoch == outcome.epoch,
        unanswered_before: me.unanswered,
        window_open: me.window_open,
        probe: context.dapi.settings().exchange_probe,
    };
    let transition = model::after_exchange(me.state, attempt, locked.login, outcome.answer.clone());
    if let (Transition::Activate { .. }, Some(in_force), Some(token)) =
        (&transition, &me.revoked_by, &outcome.token)
    {
        transitions::store::store_revoked_token(tx, &me, outcome.epoch, token, in_force).await?;
        return Ok("revoked");
    }
    apply_exchange_transition(context, tx, &me, &transition, outcome).await?;
    Ok(transition_label(&transition))
}

fn transition_label(transition: &Transition) -> &'static str {
    match transition {
        Transition::Activate { .. } => "active",
        Transition::Hold => "held",
        Transition::GiveWay { .. } => "superseded",
        Transition::Fail(status, _) => status.as_str(),
        Transition::TryAgain { .. } => "unsettled",
        Transition::Delink | Transition::EndRevocation { .. } => "revoked",
        Transition::DropToken => "dropped",
        Transition::Nothing => "stale",
    }
}

async fn apply_exchange_transition(
    context: &Context,
    tx: &mut Conn,
    me: &LockedConnection,
    transition: &Transition,
    outcome: &Outcome,
) -> Result<(), sqlx::Error> {
    let epoch = outcome.epoch;
    match (transition, &outcome.token) {
        (Transition::Hold, Some(token)) => {
            transitions::store::store_token(tx, me, epoch, token, sql::WAIT_FOR_DELINKING).await
        }
        (Transition::Delink, Some(token)) => {
            transitions::store::store_token(tx, me, epoch, token, Duration::ZERO).await
        }
        (Transition::TryAgain { unanswered, what }, _) => {
            tracing::warn!(what, "an exchange settled nothing and will be tried again");
            let wait = backoff(RETRY.0, RETRY.1, me.attempts, outcome.retry_after);
            transitions::store::schedule_retry(tx, me, *unanswered, what, wait).await
        }
        (Transition::DropToken, _) => {
            tracing::error!("a token came that no connection could take; it stays live at Dapi");
            context.metrics.tokens_dropped.inc();
            Ok(())
        }
        _ => {
            transitions::apply(context, tx, me, transition, Some((epoch, outcome.token.as_ref())))
                .await
        }
    }
}
