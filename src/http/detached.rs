//! Work that outlives its caller's connection.

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::problem::Problem;

/// Spawns `work` in a task, in the caller's span, and returns a future of its result. Once spawned
/// it runs to its end, even if the connection is closed, and a shutdown waits for it: a request
/// that arrived completely is carried out completely.
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
