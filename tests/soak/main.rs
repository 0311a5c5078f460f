//! The real binary, killed with SIGKILL at random moments under load, again and again: no code is left
//! without an end, none is exchanged twice, and nothing is used after its revocation was acknowledged.
//!
//! `make soak` runs it. `STRONGROOM_SOAK_KILLS` says how often it kills (1,000), `STRONGROOM_SOAK_SEED` makes
//! the moments the same again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::duration_suboptimal_units,
    clippy::similar_names,
    clippy::needless_pass_by_value,
    clippy::cast_possible_truncation,
    dead_code,
    unused_imports,
    reason = "a test that panics says where, tells its figures, and shares its support with other tests"
)]

#[path = "../api/support/mod.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};

use support::{Api, Process, Stage, TestApp, for_user, id};

const REPLICAS: usize = 2;
const WORKERS: u64 = 8;

/// Numbers that follow from a seed (xorshift64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// What the callers know.
#[derive(Default)]
struct Known {
    /// Connections that were seen active.
    links: Mutex<Vec<String>>,
    /// When the revocation of a connection was acknowledged, for the first time.
    acknowledged: Mutex<HashMap<String, Instant>>,
    /// Codes for which a caller was told that they are safe.
    accepted: Mutex<HashSet<String>>,
    exchanges: AtomicU64,
    revocations: AtomicU64,
    reads: AtomicU64,
    calls: AtomicU64,
    unanswered: AtomicU64,
    violations: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// The replicas that are up at this moment.
type Replicas = Arc<Mutex<[Option<Api>; REPLICAS]>>;

struct Worker {
    stage: Arc<Stage>,
    replicas: Replicas,
    known: Arc<Known>,
    token: String,
    dice: Dice,
    number: u64,
}

impl Worker {
    async fn work(mut self) {
        let mut turn = 0;
        while !self.known.over.load(Ordering::Relaxed) {
            turn += 1;
            match self.dice.throw(10) {
                0..4 => self.link(&format!("user-{}-{turn}", self.number)).await,
                4..6 => self.revoke().await,
                6..9 => self.read().await,
                _ => self.call().await,
            }
        }
    }

    fn some_replica(&mut self) -> Option<Api> {
        let at = self.dice.throw(REPLICAS as u64) as usize;
        self.replicas.lock().unwrap()[at].clone()
    }

    fn some_link(&mut self) -> Option<String> {
        let links = self.known.links.lock().unwrap();
        let latest = links.len().min(40) as u64;
        (latest > 0).then(|| links[links.len() - 1 - self.dice.throw(latest) as usize].clone())
    }

    /// One request to some replica; `None` if no answer came.
    async fn post(&mut self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let Some(api) = self.some_replica() else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            return None;
        };
        let request = api.request(reqwest::Method::POST, path).bearer_auth(&self.token).json(body);
        let answered = async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.json().await.ok()?))
        };
        let answered = answered.await;
        if answered.is_none() {
            self.known.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    /// Hands a result in as often as it takes to be told what became of it.
    async fn link(&mut self, user: &str) {
        let result = self.stage.connect();
        let body = for_user(&result, user);
        while !self.known.over.load(Ordering::Relaxed) {
            match self.post("/v1/connections", &body).await {
                Some((200..=202, connection)) => {
                    let code = result["tokenID"].as_str().unwrap().to_owned();
                    self.known.accepted.lock().unwrap().insert(code);
                    self.known.exchanges.fetch_add(1, Ordering::Relaxed);
                    if connection["status"] == "active" {
                        self.known.links.lock().unwrap().push(id(&connection).to_owned());
                    }
                    return;
                }
                Some((409, problem)) if problem["code"] == "code_orphaned" => return,
                Some((503 | 429, _)) | None => tokio::time::sleep(Duration::from_millis(5)).await,
                Some((status, answer)) => {
                    return self.violation(format!("handing in: {status} {answer}"));
                }
            }
        }
    }

    fn violation(&self, what: String) {
        self.known.violations.lock().unwrap().push(what);
    }

    async fn revoke(&mut self) {
        let Some(link) = self.some_link() else { return };
        if let Some((200 | 202, _)) =
            self.post(&format!("/v1/connections/{link}/delink"), &json!({})).await
        {
            let mut acknowledged = self.known.acknowledged.lock().unwrap();
            acknowledged.entry(link).or_insert_with(Instant::now);
            self.known.revocations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a revocation of this connection had been acknowledged by `moment`.
    fn was_revoked(&self, link: &str, moment: Instant) -> bool {
        self.known.acknowledged.lock().unwrap().get(link).is_some_and(|at| *at < moment)
    }

    async fn read(&mut self) {
        let Some(link) = self.some_link() else { return };
        let began = Instant::now();
        let reason = json!({ "reason": "soak" });
        if let Some((200, _)) = self.post(&format!("/v1/connections/{link}/token"), &reason).await {
            self.known.reads.fetch_add(1, Ordering::Relaxed);
            if self.was_revoked(&link, began) {
                self.violation(format!("{link} was read after its revocation was acknowledged"));
            }
        }
    }

    async fn call(&mut self) {
        let Some(link) = self.some_link() else { return };
        let began = Instant::now();
        let path = format!("/v1/connections/{link}/dapi/metadata/accounts/get");
        if let Some((200, _)) = self.post(&path, &json!({})).await {
            self.known.calls.fetch_add(1, Ordering::Relaxed);
            if self.was_revoked(&link, began) {
                self.violation(format!("{link} was used after its revocation was acknowledged"));
            }
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Kills and starts one replica, until all have been killed as often as is asked for in all.
async fn kill_again_and_again(
    stage: Arc<Stage>,
    replicas: Replicas,
    at: usize,
    left: Arc<AtomicU64>,
    mut dice: Dice,
) {
    loop {
        let process = Process::serve(&stage, &[]).await;
        replicas.lock().unwrap()[at] = Some(process.api.clone());
        // A replica that never came to answer anything shows nothing by its death.
        let ready = || async {
            let request = process.api.request(reqwest::Method::GET, "/readyz").send().await;
            request.is_ok_and(|answer| answer.status() == 200)
        };
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.throw(2000))).await;
        let taken =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let Ok(before) = taken else { return drop(process) };
        replicas.lock().unwrap()[at] = None;
        process.kill();
        if before % 100 == 0 {
            println!("{before} kills to go");
        }
    }
}

/// Whatever a crash left behind is taken up once its lease has ended; the clock is turned for that.
async fn settle(stage: &Stage) {
    let _process = Process::serve(stage, &[]).await;
    let open = "SELECT count(*) FROM connections WHERE status IN ('pending', 'revoking')";
    let until = Instant::now() + Duration::from_secs(300);
    while stage.database.value(open).await != "0" {
        assert!(Instant::now() < until, "{} rows have no end", stage.database.value(open).await);
        stage.database.turn_clock(Duration::from_secs(140)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What PostgreSQL and Dapi say in the end.
async fn check(stage: &Stage, known: &Known) {
    let rows = stage.database.value("SELECT count(*) FROM connections").await;
    let twice = "SELECT count(*) FROM (
        SELECT dapi_token_id FROM connections GROUP BY dapi_token_id HAVING count(*) > 1) AS twice";
    assert_eq!(stage.database.value(twice).await, "0", "a code has two connections");
    let kept: HashSet<_> =
        stage.database.values("SELECT dapi_token_id FROM connections").await.into_iter().collect();
    for code in known.accepted.lock().unwrap().iter() {
        assert!(kept.contains(code), "a code that was accepted has no connection");
        let count = stage.sandbox.calls_of_code(code.parse().unwrap());
        assert!(count.exchanged <= 1, "a code was exchanged twice: {count:?}");
    }
    let by_status = stage
        .database
        .values("SELECT status || ' ' || count(*) FROM connections GROUP BY status ORDER BY status")
        .await;
    println!("{rows} connections: {}", by_status.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_used_after_its_end_however_often_it_is_killed() {
    let (kills, seed) =
        (setting("STRONGROOM_SOAK_KILLS", 1000), setting("STRONGROOM_SOAK_SEED", 1));
    let builder = TestApp::builder()
        .set("STRONGROOM_ANSWER_WITHIN", "2")
        .set("STRONGROOM_REVEALS_PER_MINUTE", "1000000");
    let stage = Arc::new(builder.stage().await);
    stage.sandbox.set_fault(Fault::new(Effect::Answer).delayed(Duration::from_millis(10))).unwrap();
    let first = Process::serve(&stage, &[]).await;
    let token = first.token().await;
    drop(first);
    let (known, replicas) = (Arc::new(Known::default()), Replicas::default());
    let dice =
        |number: u64| Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
    let workers = (0..WORKERS).map(|number| {
        let worker = Worker {
            stage: Arc::clone(&stage),
            replicas: Arc::clone(&replicas),
            known: Arc::clone(&known),
            token: token.clone(),
            dice: dice(number),
            number,
        };
        tokio::spawn(worker.work())
    });
    let workers: Vec<_> = workers.collect();
    let (began, left) = (Instant::now(), Arc::new(AtomicU64::new(kills)));
    let killers = (0..REPLICAS).map(|at| {
        let (stage, replicas, left) =
            (Arc::clone(&stage), Arc::clone(&replicas), Arc::clone(&left));
        kill_again_and_again(stage, replicas, at, left, dice(100 + at as u64))
    });
    futures_util::future::join_all(killers).await;
    known.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    println!(
        "{kills} kills in {} s (seed {seed}): {} results accepted, {} revocations acknowledged, {} reads, \
         {} calls, {} requests without an answer",
        began.elapsed().as_secs(),
        known.exchanges.load(Ordering::Relaxed),
        known.revocations.load(Ordering::Relaxed),
        known.reads.load(Ordering::Relaxed),
        known.calls.load(Ordering::Relaxed),
        known.unanswered.load(Ordering::Relaxed),
    );
    assert!(known.exchanges.load(Ordering::Relaxed) > 0, "the load did nothing");
    settle(&stage).await;
    check(&stage, &known).await;
    assert_eq!(*known.violations.lock().unwrap(), [""; 0]);
}
