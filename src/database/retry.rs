//! Retrying until a deadline, with waits that double.

use std::time::{Duration, Instant};

use super::{Fault, MaybeDatabase};

/// How long contended work is retried.
const CONTENDED_FOR: Duration = Duration::from_secs(4);
/// Between two tries of contended work.
const CONTENDED_WAITS: Waits =
    Waits::doubling(Duration::from_millis(20), Duration::from_millis(320));

/// Waits between two tries: the first, and the longest that it doubles up to.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    first: Duration,
    longest: Duration,
}

impl Waits {
    /// Waits that begin with `first` and double up to `longest`.
    #[must_use]
    pub const fn doubling(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The first wait.
    #[must_use]
    pub const fn first(self) -> Duration {
        self.first
    }
}

/// Runs `work` until it succeeds, until it fails with an error that is not `retryable`, or until the next try would
/// begin after `deadline`.
///
/// # Errors
/// The last error of `work`.
pub async fn retry_until<T, E, F>(
    deadline: Instant,
    waits: Waits,
    mut retryable: impl FnMut(&E) -> bool,
    mut work: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut wait = waits.first;
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !retryable(&error) || Instant::now() + wait > deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(waits.longest);
    }
}

/// Retries `work` while it fails by contention, for up to four seconds. Safe if `work` is one transaction: a
/// failure by contention wrote nothing.
///
/// # Errors
/// Returns the last error of `work`.
pub async fn retry<T, E: MaybeDatabase, F>(work: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let contended = |error: &E| error.database().map(Fault::of) == Some(Fault::Contention);
    retry_until(Instant::now() + CONTENDED_FOR, CONTENDED_WAITS, contended, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits::doubling(Duration::from_millis(1), Duration::from_millis(4));

    async fn tries(deadline: Instant, succeed_at: usize) -> (Result<(), bool>, usize) {
        let mut tries = 0;
        let result = retry_until(
            deadline,
            WAITS,
            |retryable: &bool| *retryable,
            || {
                tries += 1;
                let result = if tries < succeed_at { Err(tries < 5) } else { Ok(()) };
                std::future::ready(result)
            },
        );
        (result.await, tries)
    }

    #[tokio::test]
    async fn work_is_retried_until_it_succeeds_or_cannot_be_retried() {
        let deadline = Instant::now() + Duration::from_mins(1);
        assert_eq!(tries(deadline, 3).await, (Ok(()), 3));
        assert_eq!(tries(deadline, 9).await, (Err(false), 5));
    }

    #[tokio::test]
    async fn no_try_begins_after_the_deadline() {
        assert_eq!(tries(Instant::now(), 2).await, (Err(true), 1));
    }
}
