//! Work that its caller's going does not end.

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::problem::Problem;

/// Begins `work` in a task of its own, in the caller's span; the result waits for it. Once begun it runs to its
/// end, whatever becomes of the connection that asked for it, and a shutdown waits for it: a change that arrived
/// whole is made whole.
///
/// # Errors
/// A panic of `work`, as an internal problem.
pub fn detached<T: Send + 'static>(
    tasks: &TaskTracker,
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Result<T, Problem>> {
    let task = tasks.spawn(Box::pin(work).in_current_span());
    async move { task.await.map_err(Problem::internal) }
}
