//! Whether a master key that is elsewhere can be used, and a circuit breaker: while it cannot, one call at a time finds
//! out whether it can again, after a wait that doubles and is jittered; all others fail at once. So an outage costs no
//! request more than one wait, and what returns is not met by all of them together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::associated_data::random;

/// The wait before the first trial.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait before a trial, jitter not counted.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// After how long a trial counts as abandoned, because its task is gone.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

/// The state of one key.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    last_success: Option<Instant>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    cause: String,
    failures: u32,
    retry_at: Instant,
    trial: Option<Instant>,
}

/// An outage, as it is reported.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) since: Instant,
    pub(super) cause: String,
    /// When the next trial is due.
    pub(super) retry_in: Duration,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the outage, if there is one.
    pub(super) fn outage(&self, now: Instant) -> Option<Report> {
        self.state().outage.as_ref().map(|outage| outage.report(now))
    }

    /// Returns when a call last succeeded.
    pub(super) fn last_success(&self) -> Option<Instant> {
        self.state().last_success
    }

    /// Admits a call, or says why not. During an outage it admits one at a time, when its wait is over.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Report> {
        let mut state = self.state();
        let Some(outage) = &mut state.outage else { return Ok(()) };
        let in_trial = outage.trial.is_some_and(|began| now < began + TRIAL_LIMIT);
        if now < outage.retry_at || in_trial {
            return Err(outage.report(now));
        }
        outage.trial = Some(now);
        Ok(())
    }

    /// Records a call that succeeded. Returns how long the outage lasted that it ended.
    pub(super) fn succeeded(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        state.last_success = Some(now);
        state.outage.take().map(|outage| now.saturating_duration_since(outage.since))
    }

    /// Records a call that failed. Returns whether it began an outage.
    pub(super) fn failed(&self, now: Instant, cause: &str) -> bool {
        let mut state = self.state();
        let before = state.outage.take();
        let began = before.is_none();
        // Calls that were under way together count as one failure.
        let same_wave = before.as_ref().is_some_and(|outage| now < outage.retry_at);
        let failures = before.as_ref().map_or(1, |outage| outage.failures + u32::from(!same_wave));
        let retry_at = match &before {
            Some(outage) if same_wave => outage.retry_at,
            _ => now + wait(failures),
        };
        let since = before.map_or(now, |outage| outage.since);
        state.outage =
            Some(Outage { since, cause: cause.to_owned(), failures, retry_at, trial: None });
        began
    }
}

impl Outage {
    fn report(&self, now: Instant) -> Report {
        let retry_in = self.retry_at.saturating_duration_since(now);
        Report { since: self.since, cause: self.cause.clone(), retry_in }
    }
}

/// The wait after so many failures: doubling, half of it at random.
fn wait(failures: u32) -> Duration {
    let whole =
        FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    let share = random::<1>().map_or(0.5, |[byte]| f64::from(byte) / 255.0);
    whole.mul_f64(share.mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_admits_one_trial_at_a_time_after_its_wait() {
        let (health, start) = (Health::default(), Instant::now());
        assert!(health.admit(start).is_ok());
        assert!(health.failed(start, "down"));
        assert!(!health.failed(start, "down"), "the same outage");
        assert!(health.admit(start).is_err());
        let later = start + FIRST_WAIT;
        assert!(health.admit(later).is_ok());
        assert!(health.admit(later).is_err(), "a trial is under way");
        assert!(health.admit(later + TRIAL_LIMIT).is_ok(), "its task is gone");
        assert_eq!(health.succeeded(later), Some(FIRST_WAIT));
        assert!(health.admit(later).is_ok() && health.outage(later).is_none());
    }

    #[test]
    fn the_wait_doubles_to_a_limit_and_is_jittered() {
        for (failures, whole) in [(1, FIRST_WAIT), (2, FIRST_WAIT * 2), (30, LONGEST_WAIT)] {
            let waits: Vec<_> = (0..50).map(|_| wait(failures)).collect();
            assert!(waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }

    #[test]
    fn calls_that_fail_together_lengthen_the_wait_once() {
        let (health, start) = (Health::default(), Instant::now());
        for _ in 0..100 {
            health.failed(start, "down");
        }
        assert!(health.outage(start).unwrap().retry_in <= FIRST_WAIT);
    }
}
