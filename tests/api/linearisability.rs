//! Revocation against reveal, under a random concurrent load on two replicas: histories are recorded
//! and checked, and so is the checker.
//!
//! A connection is a flag that goes down once. A history is linearisable if one moment can be found
//! for each connection, inside of one of its revocations, such that every reading that got the token
//! took effect before it and every refused one after it. A revocation of which no answer came, because the
//! database was in trouble or the caller did not wait, may take effect at any time after it was asked for,
//! or never.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{Answer, Api, Proxy, TestApp, TestDatabase, Trouble, id};

const LOGINS: usize = 3;
const WORKERS: u64 = 6;
const STEPS: usize = 40;
/// How much befalls the database in a load with trouble, and for how long it is well in between: from a silence
/// on it takes a statement's time until all work again.
const TROUBLES: usize = 6;
const WELL: (u64, usize) = (600, 800);
/// How long a trouble lasts.
const ILL: (u64, usize) = (50, 450);
/// The longest pause of a worker in such a load, so that it goes on for as long as the troubles do.
const IDLE: usize = 100;
const DAPI_TAKES: Duration = Duration::from_millis(30);
/// How long the server takes silent clients for alive: for longer than it lets them hold a lock.
const FORGOTTEN: Duration = Duration::from_secs(4);
/// What the contract allows for an answer while the database is in trouble, and two seconds for a machine that is
/// busy with something else.
const BOUND: Duration = Duration::from_secs(12);
/// For how long a caller asks again who heard nothing.
const UNANSWERED: Duration = Duration::from_secs(30);

/// What one call came to.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// The token was read.
    Read(String),
    /// The connection is not active.
    Refused,
    /// A revocation was acknowledged.
    Revoked,
    /// A revocation of everything of the login's user was.
    RevokedAll,
    /// A revocation was asked for, and no answer came.
    Tried,
    /// A revocation of everything of the login's user was asked for, and no answer came.
    TriedAll,
    /// A new link of the login is active.
    Linked,
    /// A new link was handed in and was not active when the answer came.
    HandedIn,
}

/// One call: when it was made, for the first time if it had to be repeated, and when its answer was there.
#[derive(Clone, Debug)]
struct Call {
    login: usize,
    connection: String,
    invoked: Instant,
    answered: Instant,
    outcome: Outcome,
}

/// Where a history contradicts every order in which its calls could have taken effect.
fn contradictions(history: &[Call]) -> Vec<String> {
    let mut found = Vec::new();
    let connections: BTreeSet<_> = history.iter().map(|call| &call.connection).collect();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for connection in connections {
        let of_it = || history.iter().filter(|call| call.connection == *connection);
        let Some(link) = of_it().find(|call| call.outcome == Outcome::Linked) else { continue };
        // Whatever may have revoked it: somebody who asked for that, or another link of its login.
        let others = || {
            history.iter().filter(|call| call.login == link.login && call.connection != *connection)
        };
        let revoked = of_it().filter(|call| call.outcome == Outcome::Revoked);
        let all = history.iter().filter(|call| call.login == link.login);
        let all = all.filter(|call| call.outcome == Outcome::RevokedAll);
        let linked =
            others().filter(|call| matches!(call.outcome, Outcome::Linked | Outcome::HandedIn));
        // Without an answer it may take effect at any time from then on.
        let tried = history.iter().filter(|call| match call.outcome {
            Outcome::Tried => call.connection == *connection,
            Outcome::TriedAll => call.login == link.login,
            _ => false,
        });
        let may_have = revoked.clone().chain(all.clone()).chain(linked.clone()).chain(tried);
        let first_try = may_have.map(|call| call.invoked).min();
        // Whatever is certain to have: a link, or an order for all, counts where it was made after this one
        // was there.
        let later =
            linked.filter(|call| call.outcome == Outcome::Linked && call.invoked > link.answered);
        let all = all.filter(|call| call.invoked > link.answered);
        let first_end = revoked.chain(all).chain(later).map(|call| call.answered).min();

        let mut tokens = BTreeSet::new();
        let mut last_read = None;
        for call in of_it() {
            let Outcome::Read(token) = &call.outcome else { continue };
            tokens.insert(token);
            last_read = last_read.max(Some(call.invoked));
            if first_end.is_some_and(|end| call.invoked > end) {
                found.push(format!("{connection} was read after a revocation was acknowledged"));
            }
            if owners.insert(token, connection).is_some_and(|owner| owner != connection) {
                found.push(format!("{connection} and another connection have one token"));
            }
        }
        if tokens.len() > 1 {
            found.push(format!("{connection} had two tokens"));
        }
        for call in of_it().filter(|call| call.outcome == Outcome::Refused) {
            if first_try.is_none_or(|first| call.answered < first) {
                found.push(format!("{connection} was refused before anybody revoked it"));
            }
            if last_read.is_some_and(|read| read > call.answered) {
                found.push(format!("{connection} was read after it had been refused"));
            }
        }
    }
    found
}

/// Numbers that follow from a seed (xorshift64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }

    /// So many milliseconds, and up to as many more.
    fn millis(&mut self, (least, more): (u64, usize)) -> Duration {
        Duration::from_millis(least + u64::try_from(self.throw(more)).unwrap())
    }
}

/// The links of each login that are known to have been active, and everything that happened.
#[derive(Default)]
struct Shared {
    links: Mutex<[Vec<String>; LOGINS]>,
    history: Mutex<Vec<Call>>,
    /// The request, the connection, and when its token had arrived, of each reading.
    readings: Mutex<Vec<(Uuid, String, OffsetDateTime)>>,
    /// Readings that were asked for.
    asked: AtomicUsize,
    /// Calls to which no answer came, or 503.
    unanswered: AtomicUsize,
}

#[derive(Clone)]
struct Worker {
    app: Arc<TestApp>,
    replicas: Vec<Api>,
    results: Arc<Vec<Value>>,
    shared: Arc<Shared>,
    token: String,
    dice: Dice,
    /// Whether the database is in trouble now and then.
    troubled: bool,
}

impl Worker {
    async fn work(mut self, over: Option<CancellationToken>) {
        let Some(over) = over else {
            for _ in 0..STEPS {
                self.step().await;
            }
            return;
        };
        while !over.is_cancelled() {
            tokio::time::sleep(self.dice.millis((0, IDLE))).await;
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let login = self.dice.throw(LOGINS);
        let api = self.replicas[self.dice.throw(self.replicas.len())].clone();
        let connection = {
            let links = self.shared.links.lock().unwrap();
            let latest = links[login].len().min(if self.troubled { 1 } else { 3 });
            links[login][links[login].len() - 1 - self.dice.throw(latest)].clone()
        };
        // With trouble, more links: what a revocation meets is to be active, as a rule.
        let what = self.dice.throw(if self.troubled { 26 } else { 20 });
        match what {
            0..12 => drop(self.reveal(&api, login, connection).await),
            12..17 => {
                self.revoke(&api, login, connection.clone()).await;
                if self.troubled {
                    self.look(login, connection).await;
                }
            }
            // At the replica that waits, so that most links are active when the answer comes.
            _ => self.link(login).await,
        }
    }

    fn note(&self, login: usize, connection: &str, invoked: Instant, outcome: Outcome) {
        let answered = Instant::now();
        let connection = connection.to_owned();
        let call = Call { login, connection, invoked, answered, outcome };
        self.shared.history.lock().unwrap().push(call);
    }

    /// How long the next call is waited for. Some callers of a troubled service leave early.
    fn patience(&mut self) -> Duration {
        if self.troubled && self.dice.throw(8) == 0 { self.dice.millis((0, 300)) } else { BOUND }
    }

    /// Asks once. `None` if it is not known what came of it.
    async fn ask(&self, patience: Duration, call: impl Future<Output = Answer>) -> Option<Answer> {
        let answer = tokio::time::timeout(patience, call).await.ok();
        assert!(answer.is_some() || patience < BOUND, "no answer within {BOUND:?}");
        let answer = answer.filter(|answer| !self.troubled || answer.status != 503);
        if answer.is_none() {
            self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Whether it is known whether the token can be read.
    async fn reveal(&mut self, api: &Api, login: usize, connection: String) -> bool {
        let patience = self.patience();
        self.shared.asked.fetch_add(1, Ordering::Relaxed);
        let invoked = Instant::now();
        let answer = self.ask(patience, api.reveal(&self.token, &connection)).await;
        let Some(answer) = answer else { return false };
        match answer.status {
            200 => {
                let token = answer.json["accessToken"].as_str().unwrap().to_owned();
                self.note(login, &connection, invoked, Outcome::Read(token));
                self.on_record(&answer, connection).await;
            }
            409 => self.note(login, &connection, invoked, Outcome::Refused),
            _ => panic!("{} {}", answer.status, answer.text),
        }
        true
    }

    /// The reading is on record by the time that its token is here.
    async fn on_record(&self, answer: &Answer, connection: String) {
        let arrived = OffsetDateTime::now_utc();
        let request: Uuid = answer.header("x-request-id").parse().unwrap();
        let rows: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit_events WHERE request_id = $1 AND action = 'token.revealed'",
        )
        .bind(request)
        .fetch_one(&self.app.database.pool)
        .await
        .unwrap();
        assert_eq!(rows, 1, "a reading that is not on record");
        self.shared.readings.lock().unwrap().push((request, connection, arrived));
    }

    /// Revokes, again and again until that is acknowledged. Each attempt is a call of its own: one that was
    /// not answered may take effect after a later one was.
    async fn revoke(&mut self, api: &Api, login: usize, connection: String) {
        let kind = self.dice.throw(5);
        let (done, tried) = match kind {
            4 => (Outcome::RevokedAll, Outcome::TriedAll),
            _ => (Outcome::Revoked, Outcome::Tried),
        };
        let began = Instant::now();
        loop {
            let patience = self.patience();
            let invoked = Instant::now();
            let call = self.revocation(api, kind, login, &connection);
            if let Some(answer) = self.ask(patience, call).await {
                assert!([200, 202].contains(&answer.status), "{} {}", answer.status, answer.text);
                return self.note(login, &connection, invoked, done);
            }
            self.note(login, &connection, invoked, tried.clone());
            pause(began, "a revocation").await;
        }
    }

    async fn revocation(&self, api: &Api, kind: usize, login: usize, connection: &str) -> Answer {
        match kind {
            3 => self.order(api, json!({ "connectionIDs": [connection] })).await,
            4 => self.order(api, json!({ "clientUserIDs": [user(login)] })).await,
            0 => api.delink(&self.token, connection).await,
            kind => {
                let body = json!({ "reason": "a random load", "revokeUpstream": kind == 1 });
                api.invalidate(&self.token, connection, &body).await
            }
        }
    }

    /// Revokes in bulk, at one replica or the other.
    async fn order(&self, api: &Api, filter: Value) -> Answer {
        let body = json!({
            "kind": "delink", "reason": "a random load", "perSecond": 1000, "filter": filter,
        });
        api.post(&self.token, "/v1/admin/revocations", &body).await
    }

    /// Links, with one and the same result until that is answered: it is one call however often it is made,
    /// which takes effect once, at some time after the first attempt.
    async fn link(&mut self, login: usize) {
        let result = self.app.connect_again(&self.results[login]);
        let invoked = Instant::now();
        let answer = loop {
            let (patience, user) = (self.patience(), user(login));
            let call = self.replicas[0].hand_in(&self.token, &user, &result);
            if let Some(answer) = self.ask(patience, call).await {
                break answer;
            }
            pause(invoked, "a link").await;
        };
        assert!([200, 201, 202].contains(&answer.status), "{} {}", answer.status, answer.text);
        let connection = id(&answer.json);
        let active = answer.connection_status() == "active";
        let outcome = if active { Outcome::Linked } else { Outcome::HandedIn };
        self.note(login, connection, invoked, outcome);
        if active {
            self.shared.links.lock().unwrap()[login].push(connection.to_owned());
        }
    }

    /// Looks at every replica whether a revocation that was acknowledged holds, again and again until that is
    /// answered: an acknowledgement in the middle of trouble is the one to doubt, and before anybody revokes the
    /// connection once more.
    async fn look(&mut self, login: usize, connection: String) {
        for api in self.replicas.clone() {
            let began = Instant::now();
            while !self.reveal(&api, login, connection.clone()).await {
                pause(began, "a reading").await;
            }
        }
    }

    /// Every link, asked for at every replica until that is answered.
    async fn last_look(mut self) {
        let links = self.shared.links.lock().unwrap().clone();
        for (login, connections) in links.into_iter().enumerate() {
            for connection in connections {
                self.look(login, connection).await;
            }
        }
    }
}

/// A moment before a call is made again. The trouble has to end.
async fn pause(began: Instant, what: &str) {
    assert!(began.elapsed() < UNANSWERED, "{what} is not answered for {UNANSWERED:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn user(login: usize) -> String {
    format!("user {login}")
}

/// Where the load is put on: two replicas, one of which does not wait for Dapi.
struct Scene {
    app: Arc<TestApp>,
    replicas: Vec<Api>,
    /// What the replicas reach their database through, if it is to be troubled.
    proxies: Vec<Arc<Proxy>>,
}

impl Scene {
    async fn new(troubled: bool) -> Self {
        let database = TestDatabase::new().await;
        let mut builder = TestApp::builder().set("STRONGROOM_REVEALS_PER_MINUTE", "100000");
        let (mut proxies, mut hasty) = (vec![], vec![("STRONGROOM_ANSWER_WITHIN", "0")]);
        if troubled {
            for _ in 0..2 {
                proxies.push(Arc::new(Proxy::forgetting(&database, FORGOTTEN).await));
            }
            builder = builder
                .set("DATABASE_URL", proxies[0].url())
                .set("STRONGROOM_DATABASE_TIMEOUT", "3")
                .set("STRONGROOM_DATABASE_CONNECTIONS", "8")
                .set("STRONGROOM_ANSWER_WITHIN", "2");
            hasty.push(("DATABASE_URL", proxies[1].url()));
        }
        let app = Arc::new(builder.on(database).spawn().await);
        // Dapi takes its time and one replica does not wait for it, so that connections are `revoking` for
        // a while after their revocation was acknowledged.
        let slow = Fault::new(Effect::Answer).on("users/DelinkUser").delayed(DAPI_TAKES);
        app.sandbox.set_fault(slow).unwrap();
        let hasty = app.replica_with(&hasty).await;
        Self { replicas: vec![app.api.clone(), hasty], app, proxies }
    }

    /// Lets one trouble after the other befall the database; returns what they were.
    async fn troubles(&self, mut dice: Dice) -> Vec<String> {
        let mut kinds = Trouble::ALL.to_vec();
        let mut struck = Vec::new();
        for _ in 0..TROUBLES {
            let trouble = kinds.swap_remove(dice.throw(kinds.len()));
            // One replica, the other, or both.
            let met = [&self.proxies[..1], &self.proxies[1..], &self.proxies[..]][dice.throw(3)];
            let (nth, well, ill) = (dice.throw(100), dice.millis(WELL), dice.millis(ILL));
            tokio::time::sleep(well).await;
            struck.push(format!("{trouble:?} for {ill:?}"));
            trouble.strike(&self.app.database, met, nth, ill).await;
        }
        struck
    }

    /// Every replica is ready again, within the time that the contract gives it.
    async fn works_again(&self) {
        for api in &self.replicas {
            let ready = async {
                while api.send(api.request(Method::GET, "/readyz")).await.status != 200 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(BOUND, ready).await.expect("ready again");
        }
    }
}

async fn random_load(seed: u64, scene: Scene) {
    let Scene { app, replicas, .. } = &scene;
    let troubled = !scene.proxies.is_empty();
    let shared = Arc::new(Shared::default());
    let results: Arc<Vec<_>> = Arc::new((0..LOGINS).map(|_| app.connect()).collect());
    let token = app.token().await;
    for (login, result) in results.iter().enumerate() {
        let invoked = Instant::now();
        let connection = app.active_from(&user(login), result).await;
        let (connection, answered) = (id(&connection).to_owned(), Instant::now());
        shared.links.lock().unwrap()[login].push(connection.clone());
        let call = Call { login, connection, invoked, answered, outcome: Outcome::Linked };
        shared.history.lock().unwrap().push(call);
    }
    let dice = |number| Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
    let worker = Worker {
        app: Arc::clone(app),
        replicas: replicas.clone(),
        results,
        shared: Arc::clone(&shared),
        token,
        dice: dice(0),
        troubled,
    };
    let over = troubled.then(CancellationToken::new);
    let workers = (1..=WORKERS)
        .map(|number| Worker { dice: dice(number), ..worker.clone() }.work(over.clone()));
    let workers = futures_util::future::join_all(workers.map(tokio::spawn));
    let troubles = async {
        let Some(over) = over else { return vec![] };
        let struck = scene.troubles(dice(WORKERS + 1)).await;
        over.cancel();
        struck
    };
    let (workers, struck) = futures_util::join!(workers, troubles);
    for worker in workers {
        assert!(worker.is_ok(), "a call of seed {seed} went wrong amid {struck:?}: {worker:?}");
    }
    if troubled {
        scene.works_again().await;
        worker.last_look().await;
        assert!(shared.unanswered.load(Ordering::Relaxed) > 0, "seed {seed} has felt no trouble");
    }

    let history = shared.history.lock().unwrap().clone();
    let of = |outcome: &Outcome| history.iter().filter(|call| call.outcome == *outcome).count();
    assert!(of(&Outcome::Refused) > 0 && of(&Outcome::Revoked) > 0, "seed {seed} tries nothing");
    assert!(!shared.readings.lock().unwrap().is_empty(), "seed {seed} reads nothing");
    assert_eq!(contradictions(&history), [""; 0], "seed {seed} amid {struck:?}: {history:#?}");
    the_trail_agrees(app, &shared, seed).await;
}

/// The trail holds each reading once, in its time, and none behind the end of its connection. Of readings whose
/// answer did not arrive it may hold some.
async fn the_trail_agrees(app: &TestApp, shared: &Shared, seed: u64) {
    let rows: Vec<(Option<Uuid>, Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT request_id, connection_id, at FROM audit_events WHERE action = 'token.revealed'",
    )
    .fetch_all(&app.database.pool)
    .await
    .unwrap();
    let readings = shared.readings.lock().unwrap().clone();
    let unanswered = shared.unanswered.load(Ordering::Relaxed);
    let most = if unanswered == 0 { readings.len() } else { shared.asked.load(Ordering::Relaxed) };
    assert!((readings.len()..=most).contains(&rows.len()), "seed {seed}: {} rows", rows.len());
    let requests: BTreeSet<_> = rows.iter().map(|row| row.0).collect();
    assert_eq!(requests.len(), rows.len(), "seed {seed}: a reading is on record twice");
    for (request, connection, arrived) in readings {
        let (_, of, at) = rows.iter().find(|row| row.0 == Some(request)).unwrap();
        assert_eq!(format!("conn_{of}"), connection, "seed {seed}");
        assert!(*at <= arrived, "seed {seed}: a token came before its reading was on record");
    }
    let behind_an_order = "SELECT count(*) FROM audit_events r
                           JOIN connections c ON c.id = r.connection_id
                           JOIN bulk_revocations o ON o.id = c.bulk_revocation_id
                           WHERE r.action = 'token.revealed' AND o.marked_at < r.at";
    assert_eq!(app.database.value(behind_an_order).await, "0", "seed {seed}");
    let behind = "SELECT count(*) FROM audit_events r WHERE r.action = 'token.revealed' AND EXISTS (
                      SELECT FROM audit_events e WHERE e.connection_id = r.connection_id AND e.at < r.at
                      AND e.action IN ('connection.delink', 'connection.invalidate',
                                       'connection.delinked', 'connection.invalidated'))";
    assert_eq!(app.database.value(behind).await, "0", "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reading_succeeds_once_a_revocation_was_acknowledged_whatever_happens_at_once() {
    for seed in seeds() {
        random_load(seed, Scene::new(false).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reading_succeeds_once_a_revocation_was_acknowledged_whatever_befalls_the_database() {
    let mut loads = Vec::new();
    for seed in seeds() {
        loads.push(random_load(seed, Scene::new(true).await));
    }
    // At once: most of the time they wait.
    futures_util::future::join_all(loads).await;
}

fn seeds() -> Vec<u64> {
    let given = std::env::var("STRONGROOM_TEST_SEED").ok();
    given.map_or(vec![1, 2, 3], |seed| vec![seed.parse().unwrap()])
}

// ---- The checker itself.

/// A call on `connection` from `invoked` to `answered`, in milliseconds after `start`.
fn call(start: Instant, connection: &str, time: (u64, u64), outcome: Outcome) -> Call {
    let at = |millis| start + Duration::from_millis(millis);
    let connection = connection.to_owned();
    Call { login: 0, connection, invoked: at(time.0), answered: at(time.1), outcome }
}

fn read(token: &str) -> Outcome {
    Outcome::Read(token.to_owned())
}

#[test]
fn the_checker_lets_overlapping_calls_take_effect_in_any_order() {
    use Outcome::{Linked, Refused, Revoked};
    let start = Instant::now();
    let call = |connection, time, outcome| call(start, connection, time, outcome);
    let history = [
        call("a", (0, 10), Linked),
        call("a", (11, 12), read("x")),
        call("a", (20, 40), Revoked),
        call("a", (39, 60), read("x")),
        call("a", (22, 61), Refused),
        call("a", (21, 62), read("x")),
        call("b", (70, 80), Linked),
        call("b", (81, 82), read("y")),
        call("c", (90, 99), Linked),
        call("b", (91, 92), Refused),
    ];
    assert_eq!(contradictions(&history), [""; 0]);
}

#[test]
fn the_checker_lets_a_call_without_an_answer_take_effect_late_or_never() {
    use Outcome::{Linked, Refused, Tried, TriedAll};
    let start = Instant::now();
    let call = |connection, time, outcome| call(start, connection, time, outcome);
    let link = call("a", (0, 10), Linked);
    for tried in [call("a", (20, 30), Tried), call("", (20, 30), TriedAll)] {
        // Never.
        let never = [link.clone(), tried.clone(), call("a", (90, 91), read("x"))];
        assert_eq!(contradictions(&never), [""; 0]);
        // Long after its caller has gone.
        let late = [
            link.clone(),
            tried.clone(),
            call("a", (40, 50), read("x")),
            call("a", (90, 91), Refused),
        ];
        assert_eq!(contradictions(&late), [""; 0]);
        // While it was asked for.
        let at_once = [link.clone(), tried, call("a", (21, 22), Refused)];
        assert_eq!(contradictions(&at_once), [""; 0]);
    }
    // A link that is made again takes effect at any time after the first attempt.
    let again = [
        link.clone(),
        call("b", (20, 90), Linked),
        call("a", (21, 22), Refused),
        call("b", (91, 92), read("y")),
    ];
    assert_eq!(contradictions(&again), [""; 0]);
}

#[test]
fn the_checker_finds_contradictions_amid_calls_without_an_answer() {
    use Outcome::{Linked, Refused, Revoked, RevokedAll, Tried, TriedAll};
    let start = Instant::now();
    let call = |connection, time, outcome| call(start, connection, time, outcome);
    let link = call("a", (0, 10), Linked);
    for (calls, told) in [
        (
            vec![
                call("a", (20, 30), Tried),
                call("a", (40, 50), Revoked),
                call("a", (51, 60), read("x")),
            ],
            "a was read after a revocation was acknowledged",
        ),
        (
            vec![
                call("", (20, 30), TriedAll),
                call("", (40, 50), RevokedAll),
                call("a", (51, 60), read("x")),
            ],
            "a was read after a revocation was acknowledged",
        ),
        (
            vec![call("a", (20, 30), Refused), call("a", (31, 40), Tried)],
            "a was refused before anybody revoked it",
        ),
        (
            vec![call("b", (11, 12), Tried), call("a", (20, 30), Refused)],
            "a was refused before anybody revoked it",
        ),
        (
            vec![
                call("a", (11, 12), Tried),
                call("a", (20, 30), Refused),
                call("a", (31, 40), read("x")),
            ],
            "a was read after it had been refused",
        ),
    ] {
        let mut history = vec![link.clone()];
        history.extend(calls);
        assert_eq!(contradictions(&history), [told]);
    }
    // Another user's.
    let strangers = Call { login: 1, ..call("", (11, 12), TriedAll) };
    let history = [link, strangers, call("a", (20, 30), Refused)];
    assert_eq!(contradictions(&history), ["a was refused before anybody revoked it"]);
}

#[test]
fn the_checker_finds_each_kind_of_contradiction() {
    use Outcome::{HandedIn, Linked, Refused, Revoked, RevokedAll};
    let start = Instant::now();
    let call = |connection, time, outcome| call(start, connection, time, outcome);
    let link = call("a", (0, 10), Linked);
    for (calls, told) in [
        (
            vec![call("a", (20, 30), Revoked), call("a", (31, 40), read("x"))],
            "a was read after a revocation was acknowledged",
        ),
        (
            vec![call("", (20, 30), RevokedAll), call("a", (31, 40), read("x"))],
            "a was read after a revocation was acknowledged",
        ),
        (
            vec![call("b", (20, 30), Linked), call("a", (31, 40), read("x"))],
            "a was read after a revocation was acknowledged",
        ),
        (vec![call("a", (20, 30), Refused)], "a was refused before anybody revoked it"),
        (
            vec![call("a", (20, 30), Refused), call("b", (31, 40), HandedIn)],
            "a was refused before anybody revoked it",
        ),
        (
            vec![
                call("a", (20, 60), Revoked),
                call("a", (21, 30), Refused),
                call("a", (31, 40), read("x")),
            ],
            "a was read after it had been refused",
        ),
        (vec![call("a", (20, 30), read("x")), call("a", (31, 40), read("y"))], "a had two tokens"),
        (
            vec![
                call("a", (11, 12), read("x")),
                call("b", (20, 30), Linked),
                call("b", (31, 40), read("x")),
            ],
            "b and another connection have one token",
        ),
    ] {
        let mut history = vec![link.clone()];
        history.extend(calls);
        assert_eq!(contradictions(&history), [told]);
    }
}
