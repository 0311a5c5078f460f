//! `--wait`: staying until something has ended, and showing what it waits for.

use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use super::output::{Output, Progress};

/// How often the state is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The options of a command that can wait.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Wait {
    /// Stay until it is through, and show what it waits for.
    #[arg(long)]
    wait: bool,
    /// Stay at most this many seconds; the exit status is 1 if it is not through by then.
    #[arg(long, requires = "wait", value_name = "SECONDS")]
    timeout: Option<u32>,
}

impl Wait {
    /// Begins to wait, for as many steps as `total` says if that is known.
    pub(super) fn begin(self, output: &Output, total: Option<u64>) -> Waiting {
        Waiting {
            until: self.timeout.map(|it| Instant::now() + Duration::from_secs(it.into())),
            progress: self.wait.then(|| output.progress(total)),
        }
    }
}

/// A command that waits.
pub(super) struct Waiting {
    until: Option<Instant>,
    /// `None` if the command is not to wait.
    progress: Option<Progress>,
}

impl Waiting {
    /// Shows how many steps are done, and of how many.
    pub(super) fn steps(&self, done: i64, total: i64) {
        if let Some(progress) = &self.progress {
            progress.steps(done, total);
        }
    }

    /// Shows the state and pauses. Returns `false` at once if the command is not to wait.
    ///
    /// # Errors
    /// Returns an error with the state when the time is over.
    pub(super) async fn goes_on(&self, state: &str) -> Result<bool, Failure> {
        let Some(progress) = &self.progress else { return Ok(false) };
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Err(Failure::Other(format!("not through in time: {state}")));
        }
        progress.message(state);
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(true)
    }
}
