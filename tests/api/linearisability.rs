//! Revocation against reveal, under a random concurrent load on two replicas: histories are recorded
//! and checked, and so is the checker.
//!
//! A connection is a flag that goes down once. A history is linearisable where one moment can be found
//! for each connection, inside of one of its revocations, such that every reading that got the token
//! took effect before it and every refused one after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::sandbox::{Effect, Fault};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{Answer, Api, TestApp, id};

const LOGINS: usize = 3;
const WORKERS: u64 = 6;
const STEPS: usize = 40;
const DAPI_TAKES: Duration = Duration::from_millis(30);

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
    /// A new link of the login is active.
    Linked,
    /// A new link was handed in and was not active when the answer came.
    HandedIn,
}

/// One call: when it was made and when its answer was there.
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
        let may_have = revoked.clone().chain(all.clone()).chain(linked.clone());
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
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }
}

/// The links of each login that are known to have been active, and everything that happened.
#[derive(Default)]
struct Shared {
    links: Mutex<[Vec<String>; LOGINS]>,
    history: Mutex<Vec<Call>>,
    /// The request, the connection, and when its token had arrived, of each reading.
    readings: Mutex<Vec<(Uuid, String, OffsetDateTime)>>,
}

struct Worker {
    app: Arc<TestApp>,
    replicas: Vec<Api>,
    results: Arc<Vec<Value>>,
    shared: Arc<Shared>,
    token: String,
    dice: Dice,
}

impl Worker {
    async fn work(mut self) {
        for _ in 0..STEPS {
            let login = self.dice.throw(LOGINS);
            let api = self.replicas[self.dice.throw(self.replicas.len())].clone();
            let connection = {
                let links = self.shared.links.lock().unwrap();
                let latest = links[login].len().min(3);
                links[login][links[login].len() - 1 - self.dice.throw(latest)].clone()
            };
            match self.dice.throw(20) {
                0..12 => self.reveal(&api, login, connection).await,
                12..17 => self.revoke(&api, login, connection).await,
                // At the replica that waits, so that most links are active when the answer comes.
                _ => self.link(&self.replicas[0], login).await,
            }
        }
    }

    fn note(&self, login: usize, connection: &str, invoked: Instant, outcome: Outcome) {
        let answered = Instant::now();
        let connection = connection.to_owned();
        let call = Call { login, connection, invoked, answered, outcome };
        self.shared.history.lock().unwrap().push(call);
    }

    async fn reveal(&self, api: &Api, login: usize, connection: String) {
        let invoked = Instant::now();
        let answer = api.reveal(&self.token, &connection).await;
        match answer.status {
            200 => {
                let token = answer.json["accessToken"].as_str().unwrap().to_owned();
                self.note(login, &connection, invoked, Outcome::Read(token));
                self.on_record(&answer, connection).await;
            }
            409 => self.note(login, &connection, invoked, Outcome::Refused),
            _ => panic!("{} {}", answer.status, answer.text),
        }
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

    async fn revoke(&mut self, api: &Api, login: usize, connection: String) {
        let kind = self.dice.throw(5);
        let invoked = Instant::now();
        let answer = match kind {
            3 => self.order(api, json!({ "connectionIDs": [connection] })).await,
            4 => self.order(api, json!({ "clientUserIDs": [user(login)] })).await,
            0 => api.delink(&self.token, &connection).await,
            kind => {
                let body = json!({ "reason": "a random load", "revokeUpstream": kind == 1 });
                api.invalidate(&self.token, &connection, &body).await
            }
        };
        assert!([200, 202].contains(&answer.status), "{} {}", answer.status, answer.text);
        let outcome = if kind == 4 { Outcome::RevokedAll } else { Outcome::Revoked };
        self.note(login, &connection, invoked, outcome);
    }

    /// Revokes in bulk, at one replica or the other.
    async fn order(&self, api: &Api, filter: Value) -> Answer {
        let body = json!({
            "kind": "delink", "reason": "a random load", "perSecond": 1000, "filter": filter,
        });
        api.post(&self.token, "/v1/admin/revocations", &body).await
    }

    async fn link(&self, api: &Api, login: usize) {
        let result = self.app.connect_again(&self.results[login]);
        let invoked = Instant::now();
        let answer = api.hand_in(&self.token, &user(login), &result).await;
        assert!([200, 201, 202].contains(&answer.status), "{} {}", answer.status, answer.text);
        let connection = id(&answer.json);
        let active = answer.connection_status() == "active";
        let outcome = if active { Outcome::Linked } else { Outcome::HandedIn };
        self.note(login, connection, invoked, outcome);
        if active {
            self.shared.links.lock().unwrap()[login].push(connection.to_owned());
        }
    }
}

fn user(login: usize) -> String {
    format!("user {login}")
}

async fn random_load(seed: u64) {
    let app = TestApp::builder().set("STRONGROOM_REVEALS_PER_MINUTE", "100000").spawn().await;
    let app = Arc::new(app);
    // Dapi takes its time and one replica does not wait for it, so that connections are `revoking` for
    // a while after their revocation was acknowledged.
    let slow = Fault::new(Effect::Answer).on("users/DelinkUser").delayed(DAPI_TAKES);
    app.sandbox.set_fault(slow).unwrap();
    let hasty = app.replica_with(&[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    let replicas = vec![app.api.clone(), hasty];
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
    let workers = (1..=WORKERS).map(|number| {
        let worker = Worker {
            app: Arc::clone(&app),
            replicas: replicas.clone(),
            results: Arc::clone(&results),
            shared: Arc::clone(&shared),
            token: token.clone(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number)),
        };
        tokio::spawn(worker.work())
    });
    for worker in futures_util::future::join_all(workers).await {
        assert!(worker.is_ok(), "a call of seed {seed} went wrong: {worker:?}");
    }

    let history = shared.history.lock().unwrap().clone();
    let of = |outcome: &Outcome| history.iter().filter(|call| call.outcome == *outcome).count();
    assert!(of(&Outcome::Refused) > 0 && of(&Outcome::Revoked) > 0, "seed {seed} tries nothing");
    assert!(!shared.readings.lock().unwrap().is_empty(), "seed {seed} reads nothing");
    assert_eq!(contradictions(&history), [""; 0], "seed {seed}: {history:#?}");
    the_trail_agrees(&app, &shared, seed).await;
}

/// The trail holds each reading once, in its time, and none behind the end of its connection.
async fn the_trail_agrees(app: &TestApp, shared: &Shared, seed: u64) {
    let rows: Vec<(Option<Uuid>, Uuid, OffsetDateTime)> = sqlx::query_as(
        "SELECT request_id, connection_id, at FROM audit_events WHERE action = 'token.revealed'",
    )
    .fetch_all(&app.database.pool)
    .await
    .unwrap();
    let readings = shared.readings.lock().unwrap().clone();
    assert_eq!(rows.len(), readings.len(), "seed {seed}");
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
    let given = std::env::var("STRONGROOM_TEST_SEED").ok();
    let seeds = given.map_or(vec![1, 2, 3], |seed| vec![seed.parse().unwrap()]);
    for seed in seeds {
        random_load(seed).await;
    }
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
