//! The one loop that drives the background work, woken by a timer and by a bell, the chainer of the audit
//! trail beside it, and the refresher that keeps the OAuth directory in step. Safe to run in every replica.
//!
//! Knows: audit, config, connections, oauth.

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
use crate::{audit, connections, oauth};

/// The least pause between two rounds: what is due may be another replica's already.
const BREATHER: Duration = Duration::from_millis(20);
/// How often sessions and tokens that ended are forgotten and the gauges are brought up to date.
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// How often the directory is refreshed.
const REFRESH: Duration = Duration::from_secs(1);
/// How often what was written to the audit trail is linked.
const LINK: Duration = Duration::from_millis(500);
/// After how many refreshes the directory writes down who was heard of.
const NOTE_EVERY: u32 = 15;

/// Runs the reconcilers and the chainer until `stop`.
pub async fn run(
    context: connections::Context,
    oauth: Arc<OauthConfig>,
    audit: audit::Metrics,
    stop: CancellationToken,
) {
    let chainer = link_audit(context.pool.clone(), audit, stop.clone());
    tokio::join!(rounds(context, oauth, stop), chainer);
}

/// Runs the parts of the background work beside each other until `stop`, so that none waits for another.
async fn rounds(context: connections::Context, oauth: Arc<OauthConfig>, stop: CancellationToken) {
    let bells = Part::ALL.map(|_| Notify::new());
    let parts = Part::ALL.iter().zip(&bells);
    let parts = parts.map(|(part, bell)| rounds_of(&context, *part, bell, &bells, &stop));
    tokio::join!(
        futures_util::future::join_all(parts),
        hear(&context, &bells, &stop),
        keep_house(&context, &oauth, &stop)
    );
}

/// Passes on what a request or a free place at the gate wakes the background work for.
async fn hear(context: &connections::Context, bells: &[Notify], stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.wake.notified() => {}
            () = context.dapi.gate().freed() => {}
        }
        bells.iter().for_each(Notify::notify_one);
    }
}

/// Runs rounds of one part until `stop`: as soon as something becomes due, when its bell rings, and at the
/// latest when the interval has passed. What is due and was not taken up, because it is locked or nobody
/// knows what to do with it, does not bring the next round forward.
async fn rounds_of(
    context: &connections::Context,
    part: Part,
    bell: &Notify,
    bells: &[Notify],
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let began = Instant::now();
        let pause = match one_round(context, part).await {
            Ok((round, pause)) => {
                if round.found_work() {
                    // What one part did may be what another waits for.
                    bells.iter().for_each(Notify::notify_one);
                }
                pause.saturating_sub(began.elapsed())
            }
            Err(error) => {
                tracing::warn!(cause = %error, "a round of the background work failed");
                reconcile::round_failed(context);
                context.pace.sweep_interval.min(Duration::from_secs(1))
            }
        };
        tokio::time::sleep(BREATHER).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Forgets what has ended, every now and then until `stop`.
async fn keep_house(context: &connections::Context, oauth: &OauthConfig, stop: &CancellationToken) {
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

/// Links what was committed to the audit trail, beside the rounds: a round may take longer than a link
/// may wait.
async fn link_audit(pool: Pool, metrics: audit::Metrics, stop: CancellationToken) {
    let mut last_measured: Option<Instant> = None;
    loop {
        if let Err(error) = chain::counted_round(&pool, &metrics).await {
            tracing::warn!(cause = %error, "the audit trail could not be linked");
        }
        if last_measured.is_none_or(|last| last.elapsed() >= HOUSEKEEPING) {
            last_measured = Some(Instant::now());
            if let Err(error) = chain::measure(&pool, &metrics).await {
                tracing::warn!(cause = %error, "what waits for its link could not be counted");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LINK) => {}
        }
    }
}

/// One round of a part; returns how long to pause, counted from its beginning.
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
            settled = round.settled,
            released = round.released,
            erased = round.erased,
            "the background work took something up"
        );
    }
    let mut pause = context.pace.sweep_interval.min(next_due.unwrap_or(Duration::MAX));
    if round.gate_full {
        // The gate keeps in mind for a few seconds only that there is something to take up.
        pause = pause.min(Duration::from_secs(1));
        pause = pause.min(context.dapi.gate().opens_in().unwrap_or(pause));
    }
    Ok((round, pause))
}

/// Forgets what has ended and rotates what is due; for a test also by hand.
pub async fn housekeeping(
    context: &connections::Context,
    config: &OauthConfig,
) -> Result<(), connections::ConnectionError> {
    reconcile::housekeeping(context).await?;
    let mut conn = context.pool.acquire().await?;
    // None keeps the others from being done.
    let tokens = oauth::delete_ended_tokens(&mut conn).await;
    let secrets = oauth::delete_ended_secrets(&mut conn).await;
    oauth::signing_keys::reconcile(&mut conn, &context.vault, config).await?;
    tokens?;
    secrets?;
    Ok(())
}

/// Refreshes the directory every second until `stop`. A refresh that hangs is given up, so that a
/// database that comes back is noticed.
pub async fn refresh_directory(
    directory: Directory,
    pool: Pool,
    vault: Vault,
    stop: CancellationToken,
) {
    for round in (1..=NOTE_EVERY).cycle() {
        let last = stop.is_cancelled();
        let refresh = async {
            let mut conn = pool.acquire().await?;
            directory.refresh(&mut conn, &vault).await?;
            if round == NOTE_EVERY || last {
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
