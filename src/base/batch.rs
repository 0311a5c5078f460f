//! Gathering calls of the same moment into one: what arrives together is asked, and committed,
//! together.
//!
//! There is no timer. A lone call runs at once; what comes while it is under way waits for it and
//! then goes as one. Every caller still gets an answer of their own, after their own commit.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, OnceLock, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// What a batch does: up to a number of inputs in, an output for each out, in their order.
type Run<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + Send + Sync>;

/// A queue of calls of one kind, and the task that runs them.
pub struct Batch<I, O> {
    queue: OnceLock<mpsc::UnboundedSender<Call<I, O>>>,
    runtime: Handle,
    /// What the task takes with it when the first call starts it.
    idle: Mutex<Option<(usize, Run<I, O>)>>,
}

struct Call<I, O> {
    input: I,
    answer: oneshot::Sender<O>,
}

impl<I: Send + 'static, O: Send + 'static> Batch<I, O> {
    /// `run` gets at most `most` inputs and returns an output for each, in their order. The first
    /// call starts the task, on the runtime in which this is called; it ends when the batch is dropped.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new<R, F>(most: usize, run: R) -> Self
    where
        R: Fn(Vec<I>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<O>> + Send + 'static,
    {
        let run: Run<I, O> = Box::new(move |inputs| run(inputs).boxed());
        Self {
            queue: OnceLock::new(),
            runtime: Handle::current(),
            idle: Mutex::new(Some((most, run))),
        }
    }

    /// Runs one call, with whatever else waits. `None` where `run` panicked or its runtime is gone.
    pub async fn call(&self, input: I) -> Option<O> {
        let (answer, answered) = oneshot::channel();
        self.queue.get_or_init(|| self.start()).send(Call { input, answer }).ok()?;
        answered.await.ok()
    }

    fn start(&self) -> mpsc::UnboundedSender<Call<I, O>> {
        let (queue, waiting) = mpsc::unbounded_channel();
        if let Some((most, run)) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.runtime.spawn(serve(waiting, most, run));
        }
        queue
    }
}

impl<I, O> std::fmt::Debug for Batch<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

async fn serve<I, O>(
    mut waiting: mpsc::UnboundedReceiver<Call<I, O>>,
    most: usize,
    run: Run<I, O>,
) {
    let mut calls = Vec::new();
    while waiting.recv_many(&mut calls, most).await > 0 {
        answer(std::mem::take(&mut calls), &run).await;
    }
}

async fn answer<I, O>(calls: Vec<Call<I, O>>, run: &Run<I, O>) {
    // Whoever has gone meanwhile is as if they had never come.
    let calls = calls.into_iter().filter(|call| !call.answer.is_closed());
    let (inputs, answers): (Vec<_>, Vec<_>) =
        calls.map(|Call { input, answer }| (input, answer)).unzip();
    if inputs.is_empty() {
        return;
    }
    // A panic is its callers' misfortune and nobody else's; it is on record by the panic hook.
    let Ok(outputs) = AssertUnwindSafe(run(inputs)).catch_unwind().await else { return };
    for (answer, output) in answers.into_iter().zip(outputs) {
        let _ = answer.send(output);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;

    use super::*;

    type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Doubles numbers as often as it is let, and remembers what came together.
    fn doubling(most: usize) -> (Batch<u32, u32>, Arc<Semaphore>, Seen) {
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Seen::default());
        let (let_in, remember) = (Arc::clone(&gate), Arc::clone(&seen));
        let batch = Batch::new(most, move |numbers: Vec<u32>| {
            let (let_in, remember) = (Arc::clone(&let_in), Arc::clone(&remember));
            async move {
                let_in.acquire().await.unwrap().forget();
                assert!(!numbers.contains(&13), "thirteen");
                remember.lock().unwrap().push(numbers.clone());
                numbers.into_iter().map(|number| number * 2).collect()
            }
        });
        (batch, gate, seen)
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_under_way_goes_together_in_the_next() {
        let (batch, gate, seen) = doubling(3);
        let calls = futures_util::future::join_all((1..=5).map(|number| batch.call(number)));
        gate.add_permits(10);
        let outputs = calls.await;
        assert_eq!(outputs, [Some(2), Some(4), Some(6), Some(8), Some(10)]);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.concat(), [1, 2, 3, 4, 5]);
        assert!(seen.iter().all(|together| together.len() <= 3), "{seen:?}");
    }

    #[tokio::test]
    async fn a_panic_fails_those_who_were_in_it_and_nobody_after_them() {
        let (batch, gate, _) = doubling(1);
        gate.add_permits(10);
        assert_eq!(batch.call(13).await, None);
        assert_eq!(batch.call(4).await, Some(8));
    }

    #[tokio::test]
    async fn who_has_gone_before_it_began_is_not_served() {
        let (batch, gate, seen) = doubling(1);
        let first = batch.call(1);
        let impatient = async {
            let gone = tokio::time::timeout(std::time::Duration::ZERO, batch.call(2)).await;
            assert!(gone.is_err());
            gate.add_permits(10);
            batch.call(3).await
        };
        assert_eq!(futures_util::future::join(first, impatient).await, (Some(2), Some(6)));
        assert_eq!(seen.lock().unwrap().concat(), [1, 3]);
    }
}
