//! Random lives of connections: whatever users, operators, Dapi and the clock do in whatever order,
//! the promises hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::Config;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::{DelinkCuts, Effect, Fault, RulesChange, SecondExchange};

use uuid::Uuid;

use crate::support::{Answer, Bank, Proxy, TestApp, TestDatabase, Trouble, id};

/// What the contract allows for an answer while the database is in trouble, and two seconds for a machine that is
/// busy with something else.
const BOUND: Duration = Duration::from_secs(12);

/// What can happen next.
#[derive(Clone, Debug)]
enum Event {
    /// A user links a bank login, one of three.
    Link {
        user: usize,
        login: usize,
    },
    /// A user hands in the last result once more.
    Repeat,
    /// An app imports a token that Dapi never gave out.
    Import {
        user: usize,
        login: usize,
    },
    /// A call with the n-th connection.
    Call(usize),
    /// The n-th connection is revoked.
    Delink(usize),
    Invalidate {
        which: usize,
        revoke_upstream: bool,
    },
    /// Dapi does this to the next calls.
    Dapi(Mood, u32),
    Truth(SecondExchange),
    Pass(u64),
    Tick,
    /// What happens next happens while the database is in trouble.
    Amid(Strike, Box<Event>),
}

/// Trouble that begins so many milliseconds after what it befalls, lasts so long, and meets the n-th row.
#[derive(Clone, Copy, Debug)]
struct Strike {
    trouble: Trouble,
    after: u64,
    lasts: u64,
    nth: usize,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Down,
    Busy,
    LosesAnswers,
    DropsCalls,
    TalksNonsense,
    Well,
}

/// An event of a world whose database is in trouble now and then.
fn troubled_event() -> impl Strategy<Value = Event> {
    let strike = (prop::sample::select(Trouble::ALL.to_vec()), 0..20_u64, 50..400_u64, 0..6_usize);
    let strike =
        strike.prop_map(|(trouble, after, lasts, nth)| Strike { trouble, after, lasts, nth });
    let amid = (strike, event()).prop_map(|(strike, event)| match event {
        // Neither is a matter of the database.
        Event::Pass(_) | Event::Dapi(..) | Event::Truth(_) => event,
        event => Event::Amid(strike, Box::new(event)),
    });
    prop_oneof![3 => event(), 2 => amid]
}

fn event() -> impl Strategy<Value = Event> {
    let mood = prop::sample::select(vec![
        Mood::Down,
        Mood::Busy,
        Mood::LosesAnswers,
        Mood::DropsCalls,
        Mood::TalksNonsense,
        Mood::Well,
    ]);
    let truth = prop::sample::select(vec![
        SecondExchange::Refuse,
        SecondExchange::SameToken,
        SecondExchange::MintAnother,
    ]);
    prop_oneof![
        4 => (0..2_usize, 0..3_usize).prop_map(|(user, login)| Event::Link { user, login }),
        1 => Just(Event::Repeat),
        2 => (0..2_usize, 0..3_usize).prop_map(|(user, login)| Event::Import { user, login }),
        2 => (0..6_usize).prop_map(Event::Call),
        2 => (0..6_usize).prop_map(Event::Delink),
        1 => (0..6_usize, any::<bool>()).prop_map(|(which, revoke_upstream)| Event::Invalidate { which, revoke_upstream }),
        3 => (mood, 1..4_u32).prop_map(|(mood, times)| Event::Dapi(mood, times)),
        1 => truth.prop_map(Event::Truth),
        3 => prop::sample::select(vec![1, 3, 10, 60, 140, 2000]).prop_map(Event::Pass),
        4 => Just(Event::Tick),
    ]
}

/// One world: an app, its connections, and what was seen of them.
struct World {
    app: Arc<TestApp>,
    /// What the service reaches its database through, if that is to be troubled.
    proxy: Option<Arc<Proxy>>,
    token: String,
    logins: Vec<Value>,
    last: Option<(usize, Value)>,
    connections: Vec<String>,
    seen: HashMap<String, String>,
    acknowledged: Vec<String>,
    /// The sandbox's id of each code that was handed in.
    codes: Vec<Uuid>,
    /// Whether Dapi has always answered.
    dapi_was_well: bool,
}

impl World {
    async fn new(bank: Bank, troubled: bool) -> Self {
        let database = TestDatabase::new().await;
        let mut builder = bank.builder().by_hand();
        let mut proxy = None;
        if troubled {
            // For longer than the server lets a silent client hold a lock.
            let before = Arc::new(Proxy::forgetting(&database, Duration::from_secs(2)).await);
            builder = builder
                .set("DATABASE_URL", before.url())
                .set("STRONGROOM_DATABASE_TIMEOUT", "1")
                .set("STRONGROOM_DATABASE_CONNECTIONS", "8");
            proxy = Some(before);
        }
        let app = Arc::new(builder.on(database).spawn().await);
        // As long as tokens live, no new one is needed.
        app.database.execute("UPDATE clients SET token_lifetime = 86400").await;
        // Where there can be duplicates.
        app.database.execute("UPDATE apps SET supersede_duplicates = provider = 'plaid'").await;
        app.refresh_directories().await;
        let rules = RulesChange { delink_cuts: Some(DelinkCuts::Login), ..RulesChange::default() };
        app.sandbox.change_rules(rules);
        let token = app.token().await;
        let logins = (0..3).map(|login| app.connect_as(&format!("login-{login}"))).collect();
        Self {
            app,
            proxy,
            token,
            logins,
            last: None,
            connections: vec![],
            seen: HashMap::new(),
            acknowledged: vec![],
            codes: vec![],
            dapi_was_well: true,
        }
    }

    async fn happens(&mut self, event: &Event) {
        if let Event::Amid(strike, event) = event {
            let struck = self.strike(*strike);
            self.act(event).await;
            struck.await.unwrap();
            self.works_again().await;
        } else {
            self.act(event).await;
        }
        self.calls_end().await;
    }

    /// Lets trouble befall the database while something else happens.
    fn strike(&self, strike: Strike) -> tokio::task::JoinHandle<()> {
        let Strike { trouble, after, lasts, nth } = strike;
        let (app, proxy) = (Arc::clone(&self.app), self.proxy.clone());
        tokio::spawn(async move {
            let proxies: Vec<_> = proxy.into_iter().collect();
            tokio::time::sleep(Duration::from_millis(after)).await;
            trouble.strike(&app.database, &proxies, nth, Duration::from_millis(lasts)).await;
        })
    }

    /// The service is ready again, within the time that the contract gives it.
    async fn works_again(&self) {
        let api = &self.app.api;
        let ready = async {
            while api.send(api.request(Method::GET, "/readyz")).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // Readiness has connections of its own; these are what the harness uses of the service's.
            while self.use_each_connection().await.is_err() {}
        };
        tokio::time::timeout(BOUND, ready).await.expect("ready again");
    }

    async fn use_each_connection(&self) -> sqlx::Result<()> {
        let pool = &self.app.context.pool;
        let each = (0..pool.size().0).map(|_| async {
            let mut conn = pool.acquire().await?;
            sqlx::query("SELECT 1").execute(&mut conn).await?;
            Ok(conn)
        });
        futures_util::future::try_join_all(each).await.map(drop)
    }

    /// Makes a call, in a world with trouble again and again until it is answered, as a backend does.
    async fn answered<F: Future<Output = Answer>>(&self, call: impl Fn() -> F) -> Answer {
        let began = Instant::now();
        loop {
            let answer = tokio::time::timeout(BOUND, call()).await.expect("an answer in time");
            assert_ne!(answer.status, 500, "{}", answer.text);
            if answer.status != 503 || self.proxy.is_none() {
                return answer;
            }
            assert!(began.elapsed() < 2 * BOUND, "no end of 503: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn act(&mut self, event: &Event) {
        match event {
            Event::Link { user, login } => {
                self.logins[*login] = if self.app.may_connect_again(&self.logins[*login]) {
                    self.app.connect_again(&self.logins[*login])
                } else {
                    // The same accounts, of another item.
                    self.app.connect_as(&format!("login-{login}"))
                };
                self.hand_in(*user, self.logins[*login].clone()).await;
            }
            Event::Repeat => {
                if let Some((user, result)) = self.last.clone() {
                    self.hand_in(user, result).await;
                }
            }
            Event::Import { user, login } => self.import(*user, *login).await,
            Event::Call(which) => {
                if let Some(id) = self.connections.get(*which).cloned() {
                    let path = self.app.bank.relayed(&json!({ "id": id }));
                    let answer = self.app.api.post(&self.token, &path, &json!({})).await;
                    assert_ne!(answer.status, 500, "{}", answer.text);
                }
            }
            Event::Delink(which) => {
                if let Some(id) = self.connections.get(*which).cloned() {
                    let answer = self.answered(|| self.app.api.delink(&self.token, &id)).await;
                    self.acknowledge(&id, answer.status);
                }
            }
            Event::Invalidate { which, revoke_upstream } => {
                if let Some(id) = self.connections.get(*which).cloned() {
                    let body = json!({ "reason": "test", "revokeUpstream": revoke_upstream });
                    let call = || self.app.api.invalidate(&self.token, &id, &body);
                    let answer = self.answered(call).await;
                    self.acknowledge(&id, answer.status);
                }
            }
            Event::Dapi(mood, times) => self.dapi(*mood, *times),
            Event::Truth(truth) => {
                let rules = RulesChange { second_exchange: Some(*truth), ..RulesChange::default() };
                self.app.sandbox.change_rules(rules);
            }
            Event::Pass(seconds) => self.app.turn_clock(Duration::from_secs(*seconds)).await,
            // A round that finds no database does nothing, and the next one comes.
            Event::Tick => match reconcile::round(&self.app.context).await {
                Ok(round) => drop(round.finish().await),
                Err(error) => assert!(self.proxy.is_some(), "{error}"),
            },
            Event::Amid(_, event) => unreachable!("{event:?} happens inside of it"),
        }
    }

    fn acknowledge(&mut self, id: &str, status: u16) {
        assert!([200, 202, 409].contains(&status), "{status}");
        if status != 409 {
            self.acknowledged.push(id.to_owned());
        }
    }

    fn dapi(&mut self, mood: Mood, times: u32) {
        self.dapi_was_well &= matches!(mood, Mood::Well);
        let fault = match mood {
            Mood::Well => return self.app.sandbox.clear_faults(),
            Mood::Down => Fault::status(503),
            Mood::Busy => Fault::status(429),
            Mood::LosesAnswers => Fault::new(Effect::Drop).after(),
            Mood::DropsCalls => Fault::new(Effect::Drop).before(),
            Mood::TalksNonsense => Fault::new(Effect::Garbage),
        };
        self.app.sandbox.set_fault(fault.times(times)).unwrap();
    }

    async fn hand_in(&mut self, user: usize, result: Value) {
        let name = format!("user-{user}");
        let call = || self.app.api.hand_in(&self.token, &name, &result);
        let answer = self.answered(call).await;
        self.codes.push(self.app.code_of(&result));
        assert!([200, 201, 202, 409, 410, 422].contains(&answer.status), "{}", answer.text);
        self.know(&answer);
        self.last = Some((user, result));
    }

    fn know(&mut self, answer: &Answer) {
        if answer.json["id"].is_string()
            && !self.connections.iter().any(|seen| seen == id(&answer.json))
        {
            self.connections.push(id(&answer.json).to_owned());
        }
    }

    async fn import(&mut self, user: usize, login: usize) {
        let (user, login) = (format!("user-{user}"), self.app.login_of(&self.logins[login]));
        let token = format!("mistyped-{}", self.connections.len());
        let import = self.app.bank.import(&user, &login, &token);
        let call = || self.app.api.post(&self.token, "/v1/connections/import", &import);
        let answer = self.answered(call).await;
        assert!([200, 201, 202, 409].contains(&answer.status), "{}", answer.text);
        self.know(&answer);
    }

    /// The calls that this step began have ended, so that the next one finds a settled world. A lease whose
    /// call came to no end that could be committed stays, until the clock has passed it.
    async fn calls_end(&self) {
        let under_way = "SELECT count(*) FROM connections c WHERE leased_until > strongroom_now()";
        while self.app.database.value(under_way).await != "0" {
            if self.proxy.is_some() && self.app.context.tasks.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // What follows from Plaid's word about a new item's accounts.
        while self.app.bank == Bank::Plaid && !self.app.context.tasks.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn promises_hold(&mut self) {
        for id in self.connections.clone() {
            let path = format!("/v1/connections/{id}");
            let connection = self.answered(|| self.app.api.get(&self.token, &path)).await.json;
            let status = connection["status"].as_str().unwrap().to_owned();
            if let Some(before) = self.seen.insert(id.clone(), status.clone()) {
                assert!(may_follow(&before, &status), "{before} -> {status}: {connection}");
            }
            let revealed = self.answered(|| self.app.api.reveal(&self.token, &id)).await.status;
            assert_eq!(revealed == 200, status == "active", "{status} {revealed}");
        }
        for id in &self.acknowledged {
            let revealed = self.answered(|| self.app.api.reveal(&self.token, id)).await.status;
            assert_ne!(revealed, 200, "revoked and read");
        }
        if self.dapi_was_well {
            for code in &self.codes {
                let count = self.app.sandbox.calls_of_code(*code);
                assert!(count.calls <= 1, "a code was sent to Dapi more than once: {count:?}");
            }
        }
        let held =
            "SELECT count(*) FROM connections WHERE status NOT IN ('pending', 'active', 'revoking')
                    AND (code IS NOT NULL OR access_token IS NOT NULL OR user_secret IS NOT NULL)";
        assert_eq!(self.app.database.value(held).await, "0");
        let unreachable = "SELECT count(*) FROM superseded_tokens k
             WHERE k.ends_at > strongroom_now() AND NOT EXISTS (
                SELECT FROM connections n WHERE n.id = k.replaced_by AND (
                    n.status = 'active' OR n.id IN (SELECT connection_id FROM superseded_tokens)))";
        assert_eq!(self.app.database.value(unreachable).await, "0");
        let two = "SELECT count(*) FROM (SELECT FROM connections WHERE status = 'active'
                   GROUP BY app_id, login_id HAVING count(*) > 1) t";
        assert_eq!(self.app.database.value(two).await, "0");
    }

    /// Dapi is well again and enough time passes: every code has reached its one visible end.
    async fn everything_ends(&mut self) {
        self.app.sandbox.clear_faults();
        let step = match self.app.bank {
            Bank::Dapi => Duration::from_hours(1),
            // Plaid never confirms the end of a token that never worked: it is given up after seven days.
            Bank::Plaid => Duration::from_hours(48),
        };
        for _ in 0..6 {
            self.app.turn_clock(step).await;
            self.app.tick().await;
            self.calls_end().await;
        }
        self.token = self.app.token().await;
        let open = "SELECT count(*) FROM connections WHERE status IN ('pending', 'revoking')";
        assert_eq!(self.app.database.value(open).await, "0");
    }
}

/// The life of a connection, as the design has it.
fn may_follow(before: &str, after: &str) -> bool {
    before == after
        || match before {
            "pending" => after != "pending",
            "active" => ["revoking", "delinked", "invalidated"].contains(&after),
            "revoking" => ["delinked", "invalidated"].contains(&after),
            // Superseded by a token that Dapi then called dead.
            "invalidated" => after == "active",
            // Through `active`, which may have passed unseen.
            "orphaned" => ["active", "revoking", "delinked", "invalidated"].contains(&after),
            _ => false,
        }
}

async fn live(bank: Bank, events: &[Event], troubled: bool) {
    let mut world = World::new(bank, troubled).await;
    for event in events {
        world.happens(event).await;
        world.promises_hold().await;
    }
    world.everything_ends().await;
    world.promises_hold().await;
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_the_promises_hold(events in prop::collection::vec(event(), 1..25)) {
        current_thread().block_on(live(Bank::Dapi, &events, false));
    }
}

proptest! {
    #![proptest_config(Config { cases: 12, max_shrink_iters: 100, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_the_promises_hold_at_plaid(events in prop::collection::vec(event(), 1..25)) {
        current_thread().block_on(live(Bank::Plaid, &events, false));
    }
}

proptest! {
    #![proptest_config(Config { cases: 6, max_shrink_iters: 30, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_while_the_database_is_in_trouble_the_promises_hold(
        events in prop::collection::vec(troubled_event(), 6..15),
    ) {
        current_thread().block_on(live(Bank::Dapi, &events, true));
    }
}
