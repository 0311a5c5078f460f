//! PostgreSQL goes away and comes back: nothing that Dapi answered is lost, and callers hear 503.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Answer, Cut, Proxy, TestApp, TestDatabase, for_user, id};

const EXCHANGE: &str = "auth/ExchangeToken";

struct Outage {
    app: TestApp,
    proxy: Proxy,
}

/// A service that reaches its database through a proxy.
async fn behind_a_proxy() -> Outage {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder = TestApp::builder()
        .set("DATABASE_URL", proxy.url())
        .set("STRONGROOM_DATABASE_TIMEOUT", "5")
        .set("STRONGROOM_ANSWER_WITHIN", "0");
    let app = builder.on(database).spawn().await;
    Outage { app, proxy }
}

#[tokio::test]
async fn an_answer_waits_in_memory_until_the_database_takes_it() {
    let Outage { app, proxy } = behind_a_proxy().await;
    app.sandbox
        .set_fault(Fault::new(Effect::Answer).on(EXCHANGE).delayed(Duration::from_secs(300)))
        .unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(EXCHANGE, 1).await;
    proxy.cut(Cut::Now);
    app.sandbox.clear_faults();
    while app.metric("strongroom_exchange_answers_waiting").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.cut(Cut::Never);
    let settled = || app.database.value("SELECT status FROM connections");
    while settled().await != "active" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
    while app.metric("strongroom_exchange_answers_waiting").await != 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = pending;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_read_back_and_leaves_exactly_one_token() {
    let Outage { app, proxy } = behind_a_proxy().await;
    proxy.cut(Cut::AnswerTo("connection.activated"));
    let body = for_user(&app.connect(), "ada");
    app.api.post(&app.token().await, "/v1/connections", &body).await;
    while proxy.struck() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.cut(Cut::Never);
    while app.metric("strongroom_exchanges_total{outcome=\"active\"}").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.metric("strongroom_tokens_dropped_total").await, 0.0);
    let activated = "SELECT count(*) FROM audit_events WHERE action = 'connection.activated'";
    assert_eq!(app.database.value(activated).await, "1");
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
}

#[tokio::test]
async fn without_a_database_callers_hear_503_and_the_process_stays_alive() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    proxy.cut(Cut::Now);
    let get = |path: &'static str| app.api.send(app.api.request(reqwest::Method::GET, path));
    assert_eq!(get("/healthz").await.status, 200);
    assert_eq!(get("/readyz").await.problem(), (503, "unavailable"));
    let answer = app.api.get(&token, "/v1/connections").await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(app.api.reveal(&token, id(&active)).await.problem(), (503, "unavailable"));
    let answer = app.api.hand_in(&token, "ada", &app.connect()).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    proxy.cut(Cut::Never);
    while get("/readyz").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.api.get(&token, "/v1/connections").await.status, 200);
}

/// Requests of every kind, each with the statuses that count as done.
async fn one_of_each(app: &TestApp, token: &str, active: &Value, n: usize) -> Vec<Answer> {
    let (api, id) = (&app.api, id(active));
    let own = |path: &str| format!("/v1/connections/{id}{path}");
    let secret = app.api.request(Method::POST, "/oauth2/token").basic_auth("nobody", Some("x"));
    let form = "application/x-www-form-urlencoded";
    let session = json!({ "clientUserID": format!("user-{n}") });
    let reason = json!({ "reason": "test" });
    let (find, reveal, call) = (own(""), own("/token"), own("/dapi/data/identity/get"));
    let (result, user) = (app.connect(), format!("user-{n}"));
    let empty = json!({});
    vec_of(futures_util::join!(
        api.get(token, &find),
        api.get(token, "/v1/connections"),
        api.post(token, &reveal, &reason),
        api.hand_in(token, &user, &result),
        api.post(token, &call, &empty),
        api.post(token, "/v1/connect-sessions", &session),
        api.get(token, "/v1/admin/audit-events"),
        api.get(token, "/v1/admin/clients"),
        api.send(api.request(Method::GET, "/readyz")),
        api.send(secret.header("content-type", form).body("grant_type=client_credentials")),
    ))
}

macro_rules! tuple_to_vec {
    ($($n:ident)*) => {
        fn vec_of<T>(($($n,)*): ($(tuple_to_vec!(@ $n T),)*)) -> Vec<T> { vec![$($n,)*] }
    };
    (@ $n:ident $t:ident) => { $t };
}
tuple_to_vec!(a b c d e f g h i j);

/// What the contract allows from the beginning of a silence to an answer, and to working again.
const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_endpoint_answers_and_works_again_when_all_connections_go_silent() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    // Connections of every pool are open, and idle.
    for n in 0..3 {
        one_of_each(&app, &token, &active, n).await;
    }
    proxy.cut(Cut::Silence);
    let silent_since = std::time::Instant::now();
    let during = tokio::time::timeout(BOUND, one_of_each(&app, &token, &active, 3)).await;
    for answer in during.expect("every endpoint answers within the bound") {
        let done = [200, 201, 202, 401].contains(&answer.status);
        assert!(done || answer.status == 503, "{} {}", answer.status, answer.text);
        assert!(done || !answer.header("retry-after").is_empty(), "{}", answer.text);
    }
    tokio::time::sleep(BOUND.saturating_sub(silent_since.elapsed())).await;
    for n in 4..7 {
        for answer in one_of_each(&app, &token, &active, n).await {
            assert!(
                [200, 201, 202, 401].contains(&answer.status),
                "{} {}",
                answer.status,
                answer.text
            );
        }
    }
}

#[tokio::test]
async fn answers_that_come_during_a_silence_are_committed_once_new_connections_work() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let held = Fault::new(Effect::Answer).on(EXCHANGE).delayed(Duration::from_secs(300));
    app.sandbox.set_fault(held).unwrap();
    let token = app.token().await;
    for n in 0..6 {
        app.api.hand_in(&token, &format!("user-{n}"), &app.connect()).await;
    }
    app.sandbox.calls_reached(EXCHANGE, 6).await;
    proxy.cut(Cut::Silence);
    app.sandbox.clear_faults();
    while app.metric("strongroom_exchange_answers_waiting").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let active = async {
        while app.database.value("SELECT count(*) FROM connections WHERE status = 'active'").await
            != "6"
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), active).await.expect("committed in time");
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 6);
}

#[tokio::test]
async fn a_database_that_takes_connections_and_says_nothing_is_an_outage_that_ends() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    proxy.cut(Cut::HalfOpen);
    let during = tokio::time::timeout(BOUND, one_of_each(&app, &token, &active, 0)).await;
    for answer in during.expect("every endpoint answers within the bound") {
        assert!([401, 503].contains(&answer.status), "{} {}", answer.status, answer.text);
    }
    assert_eq!(app.api.send(app.api.request(Method::GET, "/healthz")).await.status, 200);
    proxy.cut(Cut::Never);
    let ready = async {
        while app.api.send(app.api.request(Method::GET, "/readyz")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BOUND, ready).await.expect("ready again");
    for answer in one_of_each(&app, &token, &active, 1).await {
        assert!([200, 201, 202, 401].contains(&answer.status), "{} {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn a_database_that_answers_late_serves_all_the_same() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    proxy.cut(Cut::Delay(Duration::from_millis(150)));
    for answer in one_of_each(&app, &token, &active, 0).await {
        assert!([200, 201, 202, 401].contains(&answer.status), "{} {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn one_silent_connection_is_enough_to_find_out_at_the_shortest_time_limit_too() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder = TestApp::builder()
        .by_hand()
        .set("DATABASE_URL", proxy.url())
        .set("STRONGROOM_DATABASE_TIMEOUT", "1");
    let app = builder.on(database).spawn().await;
    let pool = &app.context.pool;
    let open = (0..3).map(|_| pool.acquire());
    drop(futures_util::future::try_join_all(open).await.unwrap());
    // For longer than a connection is idle before it is tried.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    proxy.cut(Cut::Silence);
    // The first may be all that the trial leaves time for.
    drop(pool.acquire().await);
    pool.acquire().await.unwrap();
}

#[tokio::test]
async fn a_reading_of_a_locked_row_answers_in_time_if_the_database_answers_late() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let mut locked = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM connections FOR UPDATE").execute(&mut *locked).await.unwrap();
    proxy.cut(Cut::Delay(Duration::from_millis(150)));
    let reveal = tokio::time::timeout(BOUND, app.api.reveal(&token, id(&active))).await;
    assert_eq!(reveal.expect("an answer within the bound").problem(), (503, "unavailable"));
    locked.rollback().await.unwrap();
    assert_eq!(app.api.reveal(&token, id(&active)).await.status, 200);
}

/// Makes new sessions of this database read-only, as a demoted primary's are, or takes that back. Sessions
/// that are open already follow only where they are told to.
pub async fn read_only(app: &TestApp, on: bool) {
    let name = app.database.value("SELECT current_database()").await;
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
    let mut conn = app.database.pool.acquire().await.unwrap();
    let sql = format!("SET default_transaction_read_only = off; {sql}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    // Those of the service end, as with a failover; the test's own stay.
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'strongroom'",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_database_that_became_read_only_is_not_ready_and_is_left_as_soon_as_it_takes_writes() {
    let database = TestDatabase::new().await.past_the_pooler();
    let app = TestApp::builder().on(database).spawn().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let ready = || async { app.api.send(app.api.request(Method::GET, "/readyz")).await.status };
    read_only(&app, true).await;
    while ready().await != 503 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..5 {
        assert_eq!(app.api.reveal(&token, id(&active)).await.problem(), (503, "unavailable"));
        let answer = app.api.hand_in(&token, &format!("user-{n}"), &app.connect()).await;
        assert_eq!(answer.problem(), (503, "unavailable"));
        assert_eq!(ready().await, 503);
    }
    read_only_ends(&app).await;
    while ready().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // No session that was opened meanwhile is used again.
    for n in 0..20 {
        assert_eq!(app.api.reveal(&token, id(&active)).await.status, 200);
        let answer = app.api.hand_in(&token, &format!("later-{n}"), &app.connect()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
}

/// Only new sessions learn of it: those that are open stay read-only until they are closed.
pub async fn read_only_ends(app: &TestApp) {
    let name = app.database.value("SELECT current_database()").await;
    let sql = format!(
        "SET default_transaction_read_only = off; \
         ALTER DATABASE {name} SET default_transaction_read_only = off"
    );
    let mut conn = app.database.pool.acquire().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
}

#[tokio::test]
async fn the_databases_own_default_isolation_changes_nothing() {
    for isolation in ["serializable", "repeatable read"] {
        let database = TestDatabase::new().await;
        let name = database.value("SELECT current_database()").await;
        let sql =
            format!("ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&database.pool).await.unwrap();
        let app = TestApp::builder().on(database).spawn().await;
        let (active, token) = (app.active("ada").await, app.token().await);
        let call = format!("/v1/connections/{}/dapi/data/identity/get", id(&active));
        let (body, session) = (json!({}), json!({ "clientUserID": "ada" }));
        let calls = (0..8).map(|_| app.api.post(&token, &call, &body));
        let sessions = (0..8).map(|_| app.api.post(&token, "/v1/connect-sessions", &session));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.status, 200, "{isolation}: {}", answer.text);
        }
        for answer in futures_util::future::join_all(sessions).await {
            assert_eq!(answer.status, 201, "{isolation}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_lock_for_too_long_answers_503_and_is_safe_to_repeat() {
    let app = TestApp::spawn().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let mut locked = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM connections FOR UPDATE").execute(&mut *locked).await.unwrap();
    let delinked = app.api.delink(&token, id(&active)).await;
    assert_eq!(delinked.problem(), (503, "unavailable"));
    assert_eq!(delinked.header("retry-after"), "1");
    locked.rollback().await.unwrap();
    assert_eq!(app.api.delink(&token, id(&active)).await.status, 200);
}

/// Makes requests while every table is held as by a migration that takes its time: until some statement has waited for
/// 0.4 seconds.
pub async fn during_a_migration<T>(app: &TestApp, requests: impl Future<Output = T>) -> T {
    const LOCK: &str = "DO $$
        DECLARE name text;
        BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema LOOP
                EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', name);
            END LOOP;
        END $$";
    const WAITED: &str = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
           AND clock_timestamp() - query_start > interval '400 milliseconds'";
    let mut migration = app.database.pool.begin().await.unwrap();
    // Before they begin: what takes one table after the other meets them in a deadlock, in which a migration gives way.
    sqlx::raw_sql(LOCK).execute(&mut *migration).await.unwrap();
    let released = async {
        while app.database.value(WAITED).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        migration.rollback().await.unwrap();
    };
    tokio::join!(requests, released).0
}

#[tokio::test]
async fn requests_wait_while_a_migration_holds_every_table() {
    let app = TestApp::spawn().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let requests = Box::pin(one_of_each(&app, &token, &active, 0));
    let answers = during_a_migration(&app, requests).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 201, 200, 201, 200, 200, 200, 401]);
}

/// Waits until no session of the test's database runs the statement that was left behind.
async fn nothing_runs(database: &TestDatabase) {
    let running = "SELECT count(*) FROM pg_stat_activity
                   -- Not idle: an idle connection of the test's own pool shows this statement as its last.
                   WHERE datname = current_database() AND query LIKE '%left behind%'
                     AND state <> 'idle' AND pid <> pg_backend_pid()";
    while database.value(running).await != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_slow_statement_whose_caller_left_costs_its_own_connection_and_no_other() {
    let database = TestDatabase::new().await.past_the_pooler();
    let pool = database.pools().background();
    let backend = "SELECT pg_backend_pid()";
    let (mut left, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let before: i32 = sqlx::query_scalar(backend).fetch_one(&mut other).await.unwrap();
    drop(other);
    let slow = sqlx::query("SELECT pg_sleep(2.5) /* left behind */").execute(&mut left);
    let gave_up = tokio::time::timeout(Duration::from_millis(100), slow).await;
    assert!(gave_up.is_err(), "the statement was not slow");
    drop(left);
    nothing_runs(&database).await;
    let mut other = pool.acquire().await.unwrap();
    let after: i32 = sqlx::query_scalar(backend).fetch_one(&mut other).await.unwrap();
    assert_eq!(after, before, "a healthy connection was given up");
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_connections_is_used() {
    let database = TestDatabase::new().await;
    let (gone, alive) = (Proxy::before(&database).await, Proxy::before(&database).await);
    let host = |proxy: &Proxy| {
        proxy.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned()
    };
    let rest = alive.url().split('@').nth(1).unwrap().split_once('/').unwrap().1.to_owned();
    let url = format!(
        "postgres://postgres@{},{}/{rest}&target_session_attrs=read-write",
        host(&gone),
        host(&alive)
    );
    let app = TestApp::builder().set("DATABASE_URL", url).on(database).spawn().await;
    app.active("ada").await;
    gone.cut(Cut::Now);
    let token = app.token().await;
    // What was open breaks once; after that the other host is asked.
    let ready = || async { app.api.send(app.api.request(Method::GET, "/readyz")).await.status };
    while ready().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(app.api.hand_in(&token, "bob", &app.connect()).await.status, 201);
}
