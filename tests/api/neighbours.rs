//! Nothing of one app, caller or row stops another: at the gate before Dapi, in the background work, in what
//! operators ask.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::apps::NewApp;
use strongroom::common::actor::Actor;
use strongroom::common::scope::Scopes;
use strongroom::common::secret::SecretText;
use strongroom::oauth::clients::{self, NewClient};
use strongroom::providers::Provider;
use strongroom_dev::sandbox::{DEFAULT_APP_KEY, DEFAULT_APP_SECRET, Effect, Fault, Status};
use tokio::task::JoinHandle;

use crate::support::{Answer, Cut, Proxy, TestApp, TestDatabase, id};

const EXCHANGE: &str = "auth/ExchangeToken";
const DELINK: &str = "users/DelinkUser";
const ACCOUNTS: &str = "data/accounts/get";

/// An access token of a second app, which Dapi knows by the same key.
async fn neighbour(app: &TestApp) -> String {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let (actor, vault) = (Actor::operator(), &app.context.vault);
    let secret = SecretText::new(DEFAULT_APP_SECRET.to_owned());
    let name = "neighbour";
    let (provider, app_key) = (Provider::Dapi, DEFAULT_APP_KEY);
    let new = NewApp { name, provider, app_key, app_secret: &secret };
    let other = strongroom::apps::add(&mut conn, vault, &actor, &new);
    let new = NewClient {
        app: other.await.unwrap().id,
        name,
        scopes: Scopes::all(),
        token_lifetime: Duration::from_secs(3600),
    };
    let client = clients::create(&mut conn, vault, &actor, &new).await.unwrap();
    drop(conn);
    app.refresh_directories().await;
    app.api.token(client.id.as_ref(), client.secret.expose(), None).await
}

/// What Dapi does not answer until the faults are cleared.
fn slow(path: &str) -> Fault {
    Fault::new(Effect::Answer).on(path).delayed(Duration::from_secs(50))
}

fn call(app: &TestApp, token: &str, connection: &Value) -> JoinHandle<Answer> {
    let (api, token) = (app.api.clone(), token.to_owned());
    let path = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(connection));
    tokio::spawn(async move { api.post(&token, &path, &json!({})).await })
}

async fn status(app: &TestApp, token: &str, connection: &Value) -> String {
    let connection = app.api.connection(token, id(connection)).await;
    connection["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_apps_slow_calls_leave_a_place_to_another_apps_code_and_to_its_own() {
    let app = TestApp::builder().set("DAPI_MAX_CONCURRENT_CALLS", "8").spawn().await;
    let (mine, other) = (app.token().await, neighbour(&app).await);
    let mut connections = Vec::new();
    for user in 0..12 {
        connections.push(app.active(&format!("user-{user}")).await);
    }
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let calls: Vec<_> = connections.iter().map(|one| call(&app, &mine, one)).collect();
    // Eight, less two for exchanges and delinkings, less one for apps that come later.
    app.sandbox.calls_reached(ACCOUNTS, 5).await;
    let answer = app.api.hand_in(&other, "bob", &app.connect()).await;
    assert_eq!((answer.status, answer.connection_status()), (201, "active"), "{}", answer.text);
    let answer = app.hand_in("eve", &app.connect()).await;
    assert_eq!((answer.status, answer.connection_status()), (201, "active"), "{}", answer.text);
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 5);
    app.sandbox.clear_faults();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn one_apps_slow_exchanges_do_not_let_another_apps_code_expire() {
    let app = TestApp::builder().set("DAPI_MAX_CONCURRENT_CALLS", "4").by_hand().spawn().await;
    let other = neighbour(&app).await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    for user in 0..10 {
        let pending = app.hand_in(&format!("user-{user}"), &app.connect()).await.json;
        app.settled(id(&pending)).await;
    }
    let bobs = app.api.hand_in(&other, "bob", &app.connect()).await.json;
    while app.database.is_leased(id(&bobs)).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.sandbox.clear_faults();
    app.sandbox.set_fault(slow(EXCHANGE)).unwrap();
    app.sandbox.forget_calls();
    app.turn_clock(Duration::from_secs(3)).await;
    let round = strongroom::connections::reconcile::round(&app.context).await.unwrap();
    assert!(round.gate_full && round.exchanges == 4, "{round:?}");
    assert!(app.database.is_leased(id(&bobs)).await, "the oldest ten are another app's");
    app.sandbox.clear_faults();
    round.finish().await;
    assert_eq!(status(&app, &other, &bobs).await, "active");
}

#[tokio::test]
async fn too_many_requests_for_one_app_close_nothing_for_another_nor_for_its_own_exchanges() {
    let app = TestApp::spawn().await;
    let (mine, other) = (app.token().await, neighbour(&app).await);
    let active = app.active("ada").await;
    let told = Status {
        code: 429,
        headers: [("Retry-After".to_owned(), "60".to_owned())].into(),
        body: json!({ "success": false, "type": "RATE_LIMIT" }).to_string(),
    };
    app.sandbox.set_fault(Fault::new(Effect::Status(told)).on(ACCOUNTS).times(1)).unwrap();
    assert_eq!(call(&app, &mine, &active).await.unwrap().status, 429);
    let heeded = call(&app, &mine, &active).await.unwrap();
    assert_eq!(heeded.problem(), (429, "too_many_requests"));
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 1);
    let bobs = app.api.hand_in(&other, "bob", &app.connect()).await;
    assert_eq!((bobs.status, bobs.connection_status()), (201, "active"), "{}", bobs.text);
    assert_eq!(call(&app, &other, &bobs.json).await.unwrap().status, 200);
    assert_eq!(app.hand_in("eve", &app.connect()).await.connection_status(), "active");
    assert_eq!(app.api.delink(&mine, id(&active)).await.connection_status(), "delinked");
}

#[tokio::test]
async fn a_call_waits_for_a_place_rather_than_being_turned_away() {
    let app = TestApp::builder().set("DAPI_MAX_CONCURRENT_CALLS", "1").spawn().await;
    let mine = app.token().await;
    let mut connections = Vec::new();
    for user in 0..4 {
        connections.push(app.active(&format!("user-{user}")).await);
    }
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let calls: Vec<_> = connections.iter().map(|one| call(&app, &mine, one)).collect();
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    app.sandbox.clear_faults();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

/// A pending connection that holds its token, because an older link of its login is being delinked.
async fn held(app: &TestApp, user: &str) -> Value {
    let older = app.active(user).await;
    app.sandbox.set_fault(Fault::status(503).on(DELINK)).unwrap();
    app.api.delink(&app.token().await, id(&older)).await;
    app.tick().await;
    app.sandbox.clear_faults();
    let body = json!({
        "clientUserID": user, "connectionID": older["connectionID"], "accessToken": "another",
        "userSecret": "secret",
    });
    let answer = app.api.post(&app.token().await, "/v1/connections/import", &body).await;
    assert_eq!(answer.connection_status(), "pending", "{}", answer.text);
    answer.json
}

#[tokio::test]
async fn one_locked_row_stops_the_round_of_nobody_and_is_counted_and_tried_again() {
    let app = TestApp::by_hand().await;
    let other = neighbour(&app).await;
    let held = held(&app, "ada").await;
    let mine = app.active("carol").await;
    let bobs = app.api.hand_in(&other, "bob", &app.connect()).await.json;
    while app.database.is_leased(id(&bobs)).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.api.delink(&other, id(&bobs)).await;
    app.api.delink(&app.token().await, id(&mine)).await;
    app.turn_clock(Duration::from_secs(10)).await;
    // An operator's psql: the row that would be activated, and the turn of a token that would be delinked.
    let mut psql = app.database.pool.begin().await.unwrap();
    let locks = "INSERT INTO token_leases SELECT id, id, now() - interval '1 hour' FROM connections
                 WHERE status = 'revoking' ON CONFLICT DO NOTHING";
    app.database.execute(locks).await;
    let row: uuid::Uuid = id(&held).trim_start_matches("conn_").parse().unwrap();
    sqlx::query("SELECT FROM connections WHERE id = $1 FOR UPDATE")
        .bind(row)
        .execute(&mut *psql)
        .await
        .unwrap();
    let turn: uuid::Uuid = id(&mine).trim_start_matches("conn_").parse().unwrap();
    sqlx::query("SELECT FROM token_leases WHERE connection_id = $1 FOR UPDATE")
        .bind(turn)
        .execute(&mut *psql)
        .await
        .unwrap();
    let round = || async { strongroom::connections::reconcile::round(&app.context).await.unwrap() };
    let first = round().await;
    while status(&app, &other, &bobs).await != "delinked" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let failures = "strongroom_reconciler_failures_total{reconciler=\"held_tokens\"}";
    assert_eq!(app.metric(failures).await, 1.0);
    let second = round().await;
    assert_eq!(app.metric(failures).await, 1.0, "it is left alone for a while");
    psql.rollback().await.unwrap();
    first.finish().await;
    second.finish().await;
    let token = app.token().await;
    let started = Instant::now();
    while status(&app, &token, &mine).await != "delinked" {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.tick().await;
    }
}

#[tokio::test]
async fn a_revocation_without_user_secret_that_is_let_through_late_is_put_off_until_it_is_given_up()
{
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.database
        .execute(
            "UPDATE connections
             SET status = 'revoking', by_wire = true, user_secret = NULL, revocation_kind = 'delink',
                 revocation_requested_at = now() - interval '30 days', revocation_released_at = now(),
                 due_at = now()",
        )
        .await;
    app.tick().await;
    let later = "SELECT due_at > now() + interval '6 days' FROM connections";
    assert_eq!(app.database.value(later).await, "true");
    let next = strongroom::connections::reconcile::next_due(&app.context).await.unwrap();
    assert!(next.is_some_and(|next| next > Duration::from_hours(24)), "{next:?}");
    app.turn_clock(Duration::from_hours(24 * 7 + 1)).await;
    app.tick().await;
    let ended = "SELECT status FROM connections";
    assert_eq!(app.database.value(ended).await, "invalidated");
}

#[tokio::test]
async fn what_nobody_takes_up_does_not_make_the_loop_spin_and_is_told() {
    let app = TestApp::builder().set("STRONGROOM_ANSWER_WITHIN", "0").spawn().await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    app.hand_in("ada", &app.connect()).await;
    let mut psql = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM connections FOR UPDATE").execute(&mut *psql).await.unwrap();
    app.turn_clock(Duration::from_secs(300)).await;
    let rounds = "strongroom_background_rounds_total";
    let before = app.metric(rounds).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let during = app.metric(rounds).await - before;
    assert!(during < 10.0, "{during} rounds for a row that nobody can take up");
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert!(app.metric("strongroom_background_overdue_seconds").await > 30.0);
    psql.rollback().await.unwrap();
}

#[tokio::test]
async fn a_locked_user_delays_no_strangers_exchange() {
    let app = TestApp::spawn().await;
    let (mine, other) = (app.token().await, neighbour(&app).await);
    app.active("ada").await;
    let mut psql = app.database.pool.begin().await.unwrap();
    let lock = "SELECT FROM users WHERE client_user_id = 'ada' FOR UPDATE";
    sqlx::query(lock).execute(&mut *psql).await.unwrap();
    let (api, token, result) = (app.api.clone(), mine.clone(), app.connect());
    let adas = tokio::spawn(async move { api.hand_in(&token, "ada", &result).await });
    let strangers = (0..20).map(|n| {
        let (api, token) = (app.api.clone(), if n % 2 == 0 { &mine } else { &other }.clone());
        let (result, user) = (app.connect(), format!("user-{n}"));
        tokio::spawn(async move {
            let started = Instant::now();
            (api.hand_in(&token, &user, &result).await, started.elapsed())
        })
    });
    for stranger in strangers.collect::<Vec<_>>() {
        let (answer, took) = stranger.await.unwrap();
        assert_eq!((answer.status, answer.connection_status()), (201, "active"));
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
    psql.rollback().await.unwrap();
    assert!([201, 503].contains(&adas.await.unwrap().status));
}

#[tokio::test]
async fn an_intent_whose_commit_went_unanswered_is_read_back_and_exchanged_by_the_same_call() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder = TestApp::builder().set("DATABASE_URL", proxy.url());
    let app = builder.on(database).spawn().await;
    let token = app.token().await;
    proxy.cut(Cut::AnswerTo("connection.received"));
    let (api, result) = (app.api.clone(), app.connect());
    let handed_in = {
        let (token, result) = (token.clone(), result.clone());
        tokio::spawn(async move { api.hand_in(&token, "ada", &result).await })
    };
    while proxy.struck() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    proxy.cut(Cut::Never);
    let answer = handed_in.await.unwrap();
    assert_eq!((answer.status, answer.connection_status()), (201, "active"), "{}", answer.text);
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "1");
    let again = app.api.hand_in(&token, "ada", &result).await;
    assert_eq!((again.status, id(&again.json)), (200, id(&answer.json)));
}

#[tokio::test]
async fn one_apps_searches_run_one_at_a_time_and_keep_nothing_from_another() {
    let app = TestApp::spawn().await;
    let (mine, other) = (app.token().await, neighbour(&app).await);
    let oldest = app.active("ada").await;
    let bobs = app.api.hand_in(&other, "bob", &app.connect()).await.json;
    app.database
        .execute(
            "INSERT INTO connections (app_id, id, user_id, status, login_id, activated_at, user_secret,
                                      access_token, created_by)
             SELECT app_id, new_uuid_v7(), user_id, 'active', 'login-' || n, now(), user_secret, access_token,
                    created_by
             FROM connections, generate_series(1, 31000) n WHERE created_by = 'bootstrap'",
        )
        .await;
    let searches = (0..40).map(|_| {
        let (api, token) = (app.api.clone(), mine.clone());
        tokio::spawn(async move { api.get(&token, "/v1/admin/connections?text=nothing").await })
    });
    let searches: Vec<_> = searches.collect();
    for _ in 0..5 {
        let path = format!("/v1/connections/{}", id(&bobs));
        assert_eq!(app.api.get(&other, &path).await.status, 200);
        assert_eq!(app.api.get(&other, "/readyz").await.status, 200);
    }
    let mut turned_away = 0;
    for search in searches {
        let answer = search.await.unwrap();
        if answer.status == 429 {
            assert_eq!(answer.problem(), (429, "too_many_requests"));
            assert!(answer.header("retry-after").parse::<u64>().is_ok());
            turned_away += 1;
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!(answer.json["connections"], json!([]));
            assert!(answer.json["nextCursor"].is_string(), "a search goes on from where it ended");
        }
    }
    assert!((1..40).contains(&turned_away), "{turned_away}");
    for text in [id(&oldest), oldest["connectionID"].as_str().unwrap()] {
        let found = app.api.get(&mine, &format!("/v1/admin/connections?text={text}")).await;
        assert_eq!(id(&found.json["connections"][0]), id(&oldest), "{}", found.text);
    }
    let (mut path, mut pages) = ("/v1/admin/connections?text=nothing".to_owned(), 0);
    while let Some(cursor) = app.api.get(&mine, &path).await.json["nextCursor"].as_str() {
        path = format!("/v1/admin/connections?text=nothing&cursor={cursor}");
        pages += 1;
        assert!(pages < 40, "a search of 31,000 connections does not end");
    }
}
