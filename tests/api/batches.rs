//! Which callers share a statement.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, pending};
use strongroom::database::{Batch, BatchQuery, Conn};
use tokio::sync::Notify;

use crate::support::TestDatabase;

/// Asks how many callers its statement has.
struct Callers;

impl BatchQuery for Callers {
    const NAME: &'static str = "callers";
    type Output = usize;

    async fn run(conn: &mut Conn, queries: &[Self]) -> sqlx::Result<Vec<usize>> {
        sqlx::query("SELECT").execute(conn).await?;
        Ok(vec![queries.len(); queries.len()])
    }
}

/// Lets tasks ask one after the other, `times` each; returns what they were answered, by the round.
async fn ask(tasks: usize, times: usize) -> Vec<Vec<usize>> {
    let batch = Batch::new(&TestDatabase::new().await.pools().batches());
    let task = || {
        let batch = batch.clone();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..times {
                answers.push(batch.run(Callers).await.unwrap());
            }
            answers
        })
    };
    let answers = join_all((0..tasks).map(|_| task())).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    (0..times).map(|round| answers.iter().map(|of_task| of_task[round]).collect()).collect()
}

#[tokio::test]
async fn a_lone_caller_has_a_statement_of_its_own() {
    assert_eq!(ask(1, 2).await, [[1], [1]]);
}

#[tokio::test]
async fn callers_who_are_ready_at_the_same_time_share_one_statement() {
    assert_eq!(ask(10, 1).await, [[10; 10]]);
}

#[tokio::test]
async fn callers_who_are_answered_together_ask_the_next_thing_in_one_statement() {
    assert_eq!(ask(10, 3).await, [[10; 10], [10; 10], [10; 10]]);
}

#[tokio::test]
async fn a_statement_has_sixty_four_callers_at_most() {
    let mut answers = ask(100, 1).await.remove(0);
    answers.sort_unstable();
    assert_eq!(answers, [[36; 36].as_slice(), &[64; 64]].concat());
}

/// Never ends; says that it has begun.
struct Hanging(Arc<Notify>);

impl BatchQuery for Hanging {
    const NAME: &'static str = "hanging";
    type Output = ();

    async fn run(_: &mut Conn, queries: &[Self]) -> sqlx::Result<Vec<()>> {
        queries[0].0.notify_one();
        pending().await
    }
}

#[tokio::test]
async fn what_waits_for_a_runtime_that_has_ended_fails_however_much_it_is() {
    let database = TestDatabase::new().await;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let batch = {
        let _entered = runtime.enter();
        Batch::new(&database.pools().batches())
    };
    let begun = Arc::new(Notify::new());
    let mut calls = Box::pin(join_all((0..20_000).map(|_| batch.run(Hanging(begun.clone())))));
    assert!((&mut calls).now_or_never().is_none());
    begun.notified().await;
    runtime.shutdown_background();
    for answer in calls.await {
        assert!(matches!(answer, Err(sqlx::Error::WorkerCrashed)), "{answer:?}");
    }
}
