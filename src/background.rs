//! The loops that drive the background work: one per [`Part`] of the reconciler, woken by a timer, by requests
//! and by the gate; the chainer of the audit trail; the dispatcher of events; and the refresher of the OAuth directory. Every replica
//! runs all of them: locks and leases in PostgreSQL keep replicas apart.
//!
//! May import: audit, config, connections, database, events, oauth, operators, vault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::audit::chain;
use crate::config::OauthConfig;
use crate::connections::reconcile;
use crate::connections::reconcile::{Part, Round};
use crate::database::Pool;
use crate::oauth::Directory;
use crate::vault::{Vault, VaultError};
use crate::{audit, connections, events, oauth, operators, vault};

/// How long after the start the first rounds begin: each opens a connection to PostgreSQL, and together they would keep
/// both from the first callers.
const AFTER_THE_START: Duration = Duration::from_millis(200);
/// The minimum pause between two rounds: what is due may already be claimed by another replica.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// How often ended sessions and tokens are deleted and the gauges are updated.
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// How often the directory is refreshed.
const REFRESH: Duration = Duration::from_secs(1);
/// How often it is looked whether a master key is to be tried.
const WATCH_MASTERS: Duration = Duration::from_millis(500);
/// How often new rows of the audit trail are linked.
const LINK: Duration = Duration::from_millis(500);
/// How often new events are dispatched: the first delivery of an event is to leave within a second of its commit.
const DISPATCH: Duration = Duration::from_millis(150);
/// How often events that are older than they are kept are deleted.
const SWEEP_EVENTS: Duration = Duration::from_mins(10);
/// How often deliveries that are due again are looked for.
const SEND: Duration = Duration::from_millis(500);
/// The pause after a round that failed.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);
/// After how many refreshes the directory writes down which clients and secrets were used.
const RECORD_USES_EVERY: u32 = 15;

/// Runs the reconcilers, the chainer and the dispatcher until `stop`.
pub async fn run(
    context: connections::Context,
    events: events::Context,
    oauth: Arc<OauthConfig>,
    audit: audit::Metrics,
    stop: CancellationToken,
) {
    if stop.run_until_cancelled(tokio::time::sleep(AFTER_THE_START)).await.is_none() {
        return;
    }
    let chainer = link_audit(context.pool.clone(), audit, stop.clone());
    let due = Notify::new();
    let dispatcher = dispatch_events(events.clone(), &due, stop.clone());
    let sender = send_events(events, &due, stop.clone());
    tokio::join!(rounds(context, oauth, stop), chainer, dispatcher, sender);
}

/// Runs the parts of the background work concurrently until `stop`, so that none waits for another.
async fn rounds(context: connections::Context, oauth: Arc<OauthConfig>, stop: CancellationToken) {
    let wakers = Part::ALL.map(|_| Notify::new());
    let parts = Part::ALL.iter().zip(&wakers);
    let parts = parts.map(|(part, waker)| rounds_of(&context, *part, waker, &wakers, &stop));
    tokio::join!(
        futures_util::future::join_all(parts),
        forward_wakeups(&context, &wakers, &stop),
        run_housekeeping(&context, &oauth, &stop)
    );
}

/// Wakes every part when a request asks for it or the gate has a free slot.
async fn forward_wakeups(
    context: &connections::Context,
    wakers: &[Notify],
    stop: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.wake.notified() => {}
            () = context.providers.gate().freed() => {}
        }
        wakers.iter().for_each(Notify::notify_one);
    }
}

/// Runs rounds of one part until `stop`: as soon as something becomes due, when the part is woken, and at the
/// latest after the interval. A row that is due but was not claimed, because it is locked or keeps failing,
/// does not bring the next round forward.
async fn rounds_of(
    context: &connections::Context,
    part: Part,
    waker: &Notify,
    wakers: &[Notify],
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let began = Instant::now();
        let pause = match one_round(context, part).await {
            Ok((round, pause)) => {
                if round.found_work() {
                    // The result of one part may be what another waits for.
                    wakers.iter().for_each(Notify::notify_one);
                }
                pause.saturating_sub(began.elapsed())
            }
            Err(error) => {
                tracing::warn!(cause = %error, "a round of the background work failed");
                reconcile::round_failed(context);
                context.pace.sweep_interval.min(Duration::from_secs(1))
            }
        };
        tokio::time::sleep(MIN_PAUSE).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = waker.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs the housekeeping periodically until `stop`.
async fn run_housekeeping(
    context: &connections::Context,
    oauth: &OauthConfig,
    stop: &CancellationToken,
) {
    loop {
        if let Err(error) = housekeeping(context, oauth).await {
            tracing::warn!(cause = %error, "housekeeping failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HOUSEKEEPING) => {}
        }
    }
}

/// Links the audit trail in a loop of its own: a round of the reconciler may take longer than a link should
/// wait.
async fn link_audit(pool: Pool, metrics: audit::Metrics, stop: CancellationToken) {
    let mut last_measured: Option<Instant> = None;
    loop {
        if let Err(error) = chain::counted_round(&pool, &metrics).await {
            tracing::warn!(cause = %error, "the audit trail could not be linked");
        }
        if last_measured.is_none_or(|last| last.elapsed() >= HOUSEKEEPING) {
            last_measured = Some(Instant::now());
            if let Err(error) = chain::measure(&pool, &metrics).await {
                tracing::warn!(cause = %error, "the rows that wait for their links could not be counted");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LINK) => {}
        }
    }
}

/// Tries the master keys that are elsewhere until `stop`, so that an outage and its end are known without requests.
pub async fn watch_masters(vault: Vault, stop: CancellationToken) {
    loop {
        vault.probe_masters().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH_MASTERS) => {}
        }
    }
}

/// Dispatches events in a loop of its own. It polls, so that a change is found alike whether this replica, another or a
/// command committed it.
async fn dispatch_events(context: events::Context, due: &Notify, stop: CancellationToken) {
    let (mut last_measured, mut last_swept): (Option<Instant>, Option<Instant>) = (None, None);
    let is_over = |last: Option<Instant>, pause| last.is_none_or(|last| last.elapsed() >= pause);
    loop {
        let pause = match events::dispatch::round(&context).await {
            Ok((dispatched, 0)) => {
                if dispatched > 0 {
                    due.notify_one();
                }
                DISPATCH
            }
            Ok(_) => AFTER_A_FAILURE,
            Err(error) => {
                tracing::warn!(cause = %error, "events could not be dispatched");
                AFTER_A_FAILURE
            }
        };
        if is_over(last_measured, HOUSEKEEPING) {
            last_measured = Some(Instant::now());
            if let Err(error) = events::dispatch::measure(&context).await {
                tracing::warn!(cause = %error, "events and deliveries could not be counted");
            }
        }
        if is_over(last_swept, SWEEP_EVENTS) {
            last_swept = Some(Instant::now());
            if let Err(error) = events::sweep(&context).await {
                tracing::warn!(cause = %error, "events could not be swept");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Begins deliveries in a loop of its own: when events were dispatched, when an attempt has ended, and for what is due
/// again every half second. The attempts are tasks of their own, which a shutdown waits for.
async fn send_events(context: events::Context, due: &Notify, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match events::delivery::round(&context).await {
            Ok(_) => SEND,
            Err(error) => {
                tracing::warn!(cause = %error, "deliveries could not be begun");
                AFTER_A_FAILURE
            }
        };
        // What ends or comes meanwhile is claimed together.
        tokio::time::sleep(MIN_PAUSE).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = due.notified() => {}
            () = context.sender.freed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs one round of a part; returns how long to pause, measured from the round's beginning.
async fn one_round(
    context: &connections::Context,
    part: Part,
) -> Result<(Round, Duration), connections::ConnectionError> {
    // Before the round, so that what becomes due while it runs is not missed.
    let next_due = reconcile::next_due(context).await?;
    let round = reconcile::part(context, part).await;
    if round.found_work() {
        tracing::info!(
            expired = round.expired,
            exchanges = round.exchanges,
            delinks = round.delinks,
            settled = round.decided,
            released = round.released,
            erased = round.erased,
            "the background work claimed rows"
        );
    }
    let mut pause = context.pace.sweep_interval.min(next_due.unwrap_or(Duration::MAX));
    if round.gate_full {
        // The gate remembers a declared demand for a few seconds only.
        pause = pause.min(Duration::from_secs(1));
        pause = pause.min(context.providers.gate().opens_in().unwrap_or(pause));
    }
    Ok((round, pause))
}

/// Deletes what has ended and rotates what is due. Public so that tests can run it on demand.
pub async fn housekeeping(
    context: &connections::Context,
    config: &OauthConfig,
) -> Result<(), connections::ConnectionError> {
    reconcile::housekeeping(context).await?;
    let mut conn = context.pool.acquire().await?;
    // One failure must not keep the others from running.
    let tokens = oauth::delete_ended_tokens(&mut conn).await;
    let secrets = oauth::delete_ended_secrets(&mut conn).await;
    let jtis = oauth::delete_ended_jtis(&mut conn).await;
    let changes = vault::delete_old_changes(&mut conn).await;
    let rotating = context.vault.count_rotating(&mut conn).await;
    let months = audit::prepare_months(&mut conn).await;
    let sessions = operators::delete_old_sessions(&mut conn).await;
    oauth::signing_keys::reconcile(&mut conn, &context.vault, config).await?;
    tokens?;
    secrets?;
    jtis?;
    changes?;
    rotating?;
    months?;
    sessions?;
    Ok(())
}

/// Refreshes the directory every second until `stop`, and drops data keys that were destroyed. A refresh that hangs is cancelled, so that the loop
/// notices when the database comes back.
pub async fn refresh_directory(
    directory: Directory,
    pool: Pool,
    vault: Vault,
    stop: CancellationToken,
) {
    for round in (1..=RECORD_USES_EVERY).cycle() {
        let last = stop.is_cancelled();
        vault.sweep_kept();
        let refresh = async {
            let mut conn = pool.acquire().await?;
            directory.refresh(&mut conn, &vault).await?;
            vault.evict_changed(&mut conn).await?;
            if round == RECORD_USES_EVERY || last {
                directory.note_uses(&mut conn).await?;
            }
            Ok::<_, VaultError>(())
        };
        match tokio::time::timeout(oauth::STALE_AFTER, refresh).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(cause = %error, "the directory could not be refreshed");
            }
            Err(_) => tracing::warn!("the directory's refresh took too long"),
        }
        if last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}
