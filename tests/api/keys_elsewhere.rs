//! Master keys at a Transit engine or at AWS KMS: what works as ever, what an outage costs, and that nothing is lost by it.

use std::time::{Duration, Instant};

use strongroom::config::Config;
use strongroom_dev::sandbox::{Effect, Fault, Status};

use crate::for_each_engine;
use crate::support::{
    Answer, Api, Builder, Elsewhere, Line, MASTER_KEY, Stage, TestApp, Transit, command, id,
    service_account_token, until,
};

for_each_engine!(
    everything_works_with_the_master_key_elsewhere,
    a_data_key_wrapped_elsewhere_opens_in_its_own_row_alone,
    a_user_seen_lately_costs_no_call_and_a_new_one_a_single_trip,
    callers_who_need_one_key_at_once_share_its_opening,
    while_the_engine_is_down_users_seen_lately_are_served_and_others_are_told_to_wait,
    when_nothing_is_kept_any_more_the_service_is_not_ready_and_names_the_key,
    an_engine_that_says_nothing_costs_a_request_a_bounded_wait,
    an_accepted_code_waits_for_the_engine_and_no_attempt_is_counted,
    a_revocation_waits_for_the_engine_and_is_carried_out_when_it_is_back,
    it_starts_while_the_engine_is_down_is_not_ready_and_goes_on_when_it_is_back,
    an_erased_users_key_leaves_the_memory_of_other_replicas_within_seconds,
    moving_elsewhere_is_a_rotation_and_reads_go_on_meanwhile,
);

const OPENED: &str = "strongroom_data_keys_opened_total{source=\"master_key\"}";

async fn calls(app: &TestApp, operation: &str) -> f64 {
    let labels = format!("{{key=\"t1\",operation=\"{operation}\",outcome=\"answered\"}}");
    app.metric(&format!("strongroom_master_key_calls_total{labels}")).await
}

pub fn is_keys_unavailable(answer: &Answer) -> bool {
    answer.status == 503
        && answer.json["code"] == "keys_unavailable"
        && answer.headers.contains_key("retry-after")
}

pub async fn readyz(api: &Api) -> Answer {
    api.send(api.request(reqwest::Method::GET, "/readyz")).await
}

async fn everything_works_with_the_master_key_elsewhere(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    assert_eq!(app.api.reveal(&app.token().await, id(&ada)).await.status, 200);
    let kinds = "SELECT string_agg(DISTINCT get_byte(wrapped, 0)::text, ',') FROM data_keys";
    assert_eq!(
        app.database.value(kinds).await,
        elsewhere.format(),
        "every data key is the engine's ciphertext"
    );
    // A replica has nothing in memory.
    let replica = app.replica().await;
    assert_eq!(replica.reveal(&app.token().await, id(&ada)).await.status, 200);
}

async fn a_data_key_wrapped_elsewhere_opens_in_its_own_row_alone(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    app.active("bob").await;
    app.database
        .execute(
            "UPDATE data_keys d SET wrapped = o.wrapped FROM data_keys o
             WHERE d.purpose = 'user' AND o.purpose = 'user' AND o.id <> d.id",
        )
        .await;
    let answer = app.api.reveal(&app.token().await, id(&ada)).await;
    assert_eq!(answer.problem(), (500, "internal"));
}

async fn a_user_seen_lately_costs_no_call_and_a_new_one_a_single_trip(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    app.active("bob").await;
    let (opened, wrapped) = (app.metric(OPENED).await, calls(&app, "wrap").await);
    let ada = app.active("ada").await;
    let token = app.token().await;
    for _ in 0..3 {
        assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 200);
    }
    assert_eq!(app.metric(OPENED).await, opened, "her key was made here and is kept");
    assert!(calls(&app, "wrap").await > wrapped);
}

async fn callers_who_need_one_key_at_once_share_its_opening(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let replica = app.replica().await;
    let token = app.token().await;
    let answer = replica.hand_in(&token, "ada", &app.connect()).await;
    assert_eq!(answer.status, 201);
    engine.cut(Line::Slow(Duration::from_millis(100)));
    let opened = app.metric(OPENED).await;
    let reveals = (0..20).map(|_| app.api.reveal(&token, id(&answer.json)));
    let answers = futures_util::future::join_all(reveals).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(app.metric(OPENED).await, opened + 1.0);
}

#[tokio::test]
async fn keys_that_are_needed_at_once_are_opened_in_batches_by_transit() {
    let transit = Elsewhere::Transit.start().await;
    let app = transit.app().await;
    let replica = app.replica().await;
    let token = app.token().await;
    let mut connections = Vec::new();
    for index in 0..30 {
        let answer = replica.hand_in(&token, &format!("user-{index}"), &app.connect()).await;
        connections.push(id(&answer.json).to_owned());
    }
    transit.cut(Line::Slow(Duration::from_millis(200)));
    let before = calls(&app, "open").await;
    let reveals = connections.iter().map(|id| app.api.reveal(&token, id));
    let answers = futures_util::future::join_all(reveals).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let made = calls(&app, "open").await - before;
    assert!(made <= 15.0, "{made} calls for 30 keys");
}

async fn while_the_engine_is_down_users_seen_lately_are_served_and_others_are_told_to_wait(
    elsewhere: Elsewhere,
) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    let (cold, token) = (app.replica().await, app.token().await);
    engine.cut(Line::Down);
    assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 200, "her key is kept");
    let refused = cold.reveal(&token, id(&ada)).await;
    assert!(is_keys_unavailable(&refused), "{} {}", refused.status, refused.json);
    let refused = app.api.hand_in(&token, "eve", &app.connect()).await;
    assert!(is_keys_unavailable(&refused), "{} {}", refused.status, refused.json);
    assert_eq!(app.database.value("SELECT count(*) FROM users").await, "1");
    let revealed = "SELECT count(*) FROM audit_events WHERE action = 'token.revealed'";
    assert_eq!(app.database.value(revealed).await, "1", "what was refused was not revealed");
    let again = Instant::now();
    assert!(is_keys_unavailable(&cold.reveal(&token, id(&ada)).await));
    assert!(again.elapsed() < Duration::from_secs(2), "a known outage is no wait");

    until("the outage is told", async || {
        let answer = readyz(&app.api).await;
        answer.status == 200 && answer.json["keysUnavailable"][0]["key"] == "t1"
    })
    .await;
    let labels = format!("{{key=\"t1\",kind=\"{}\"}}", elsewhere.name());
    let available = &format!("strongroom_master_key_available{labels}");
    assert_eq!(app.metric(available).await, 0.0);

    engine.cut(Line::Up);
    until("the return", async || cold.reveal(&token, id(&ada)).await.status == 200).await;
    until("the end of the outage is told", async || {
        readyz(&app.api).await.json["keysUnavailable"].is_null()
    })
    .await;
    assert_eq!(app.metric(available).await, 1.0);
    assert_eq!(app.active("eve").await["status"], "active");
}

async fn when_nothing_is_kept_any_more_the_service_is_not_ready_and_names_the_key(
    elsewhere: Elsewhere,
) {
    let engine = elsewhere.start().await;
    let builder = engine.on(TestApp::builder(), &engine.entry("t1")).await;
    let app = builder.set("STRONGROOM_DATA_KEY_CACHE_SECONDS", "1").spawn().await;
    let ada = app.active("ada").await;
    engine.cut(Line::Down);
    let token = app.token().await;
    until("her time is over", async || {
        is_keys_unavailable(&app.api.reveal(&token, id(&ada)).await)
    })
    .await;
    until("not ready", async || {
        let answer = readyz(&app.api).await;
        is_keys_unavailable(&answer) && answer.json["keysUnavailable"][0]["key"] == "t1"
    })
    .await;
    engine.cut(Line::Up);
    until("ready", async || readyz(&app.api).await.status == 200).await;
    assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 200);
}

async fn an_engine_that_says_nothing_costs_a_request_a_bounded_wait(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    let (cold, token) = (app.replica().await, app.token().await);
    engine.cut(Line::Silent);
    for limit in [6, 4] {
        let began = Instant::now();
        assert!(is_keys_unavailable(&cold.reveal(&token, id(&ada)).await));
        assert!(began.elapsed() < Duration::from_secs(limit), "{:?}", began.elapsed());
    }
    engine.cut(Line::Up);
    until("the return", async || cold.reveal(&token, id(&ada)).await.status == 200).await;
}

async fn an_accepted_code_waits_for_the_engine_and_no_attempt_is_counted(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let builder = engine.on(TestApp::builder(), &engine.entry("t1")).await;
    // Nothing is kept, so that the background work needs the engine.
    let app = builder.set("STRONGROOM_DATA_KEY_CACHE_SECONDS", "0").by_hand().spawn().await;
    let busy = Status { code: 429, headers: [].into(), body: String::new() };
    let busy = Fault::new(Effect::Status(busy)).times(1);
    app.sandbox.set_fault(busy).unwrap();
    let accepted = app.hand_in("ada", &app.connect()).await;
    assert_eq!(accepted.status, 202);
    app.settled(id(&accepted.json)).await;
    engine.cut(Line::Down);
    app.turn_clock(Duration::from_secs(60)).await;
    let epoch = "SELECT lease_epoch || ' ' || status || ' ' || unanswered FROM connections";
    assert_eq!(app.tick().await.exchanges, 0);
    assert_eq!(app.database.value(epoch).await, "1 pending false");
    engine.cut(Line::Up);
    until("the exchange", async || {
        app.turn_clock(Duration::from_secs(1)).await;
        app.tick().await;
        app.database.value(epoch).await == "2 active false"
    })
    .await;
}

async fn a_revocation_waits_for_the_engine_and_is_carried_out_when_it_is_back(
    elsewhere: Elsewhere,
) {
    let engine = elsewhere.start().await;
    let builder = engine.on(TestApp::builder(), &engine.entry("t1")).await;
    let app = builder.set("STRONGROOM_DATA_KEY_CACHE_SECONDS", "0").by_hand().spawn().await;
    let ada = app.active("ada").await;
    engine.cut(Line::Down);
    let token = app.token().await;
    let path = format!("/v1/connections/{}/delink", id(&ada));
    let request = app.api.request(reqwest::Method::POST, &path).bearer_auth(&token);
    assert_eq!(app.api.send(request).await.status, 202, "it needs no key to be in force");
    assert_eq!(app.tick().await.delinks, 0);
    engine.cut(Line::Up);
    until("the delinking", async || {
        app.turn_clock(Duration::from_secs(1)).await;
        app.tick().await;
        app.api.connection(&token, id(&ada)).await["status"] == "delinked"
    })
    .await;
}

async fn it_starts_while_the_engine_is_down_is_not_ready_and_goes_on_when_it_is_back(
    elsewhere: Elsewhere,
) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    engine.cut(Line::Down);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut process =
        command(&app, &[("STRONGROOM_LISTEN", &listen)]).arg("serve").spawn().unwrap();
    let api = Api::new(([127, 0, 0, 1], port).into());
    until("it listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        .await;
    let not_ready = readyz(&api).await;
    assert!(is_keys_unavailable(&not_ready), "{} {}", not_ready.status, not_ready.json);
    assert_eq!(not_ready.json["keysUnavailable"][0]["key"], "t1");
    let token = app.token().await;
    assert!(is_keys_unavailable(&api.reveal(&token, id(&ada)).await));
    let alive = api.send(api.request(reqwest::Method::GET, "/healthz")).await;
    assert_eq!(alive.status, 200);
    engine.cut(Line::Up);
    until("it is ready", async || readyz_of(port).await == Some(200)).await;
    let api = Api::new(([127, 0, 0, 1], port).into());
    assert_eq!(api.reveal(&token, id(&ada)).await.status, 200);
    process.kill().unwrap();
    process.wait().unwrap();
}

/// The status of `/readyz`, on a connection of its own; `None` between two servers.
async fn readyz_of(port: u16) -> Option<u16> {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.ok()?;
    Some(answer.status().as_u16())
}

async fn an_erased_users_key_leaves_the_memory_of_other_replicas_within_seconds(
    elsewhere: Elsewhere,
) {
    let engine = elsewhere.start().await;
    let app = engine.app().await;
    app.active("bob").await;
    app.active("ada").await;
    let kept = async || app.metric("strongroom_data_keys_kept").await;
    until("both are kept", async || kept().await == 3.0).await;
    let (replica, token) = (app.replica().await, app.token().await);
    let request = replica.request(reqwest::Method::DELETE, "/v1/users/ada").bearer_auth(&token);
    let answer = replica.send(request).await;
    assert!(answer.status < 300, "{} {}", answer.status, answer.json);
    let erased = "SELECT count(*) FROM data_keys WHERE purpose = 'user'";
    until("the erasure", async || app.database.value(erased).await == "1").await;
    let began = Instant::now();
    until("the eviction", async || kept().await == 2.0).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

async fn moving_elsewhere_is_a_rotation_and_reads_go_on_meanwhile(elsewhere: Elsewhere) {
    let engine = elsewhere.start().await;
    let builder = engine.on(TestApp::builder(), MASTER_KEY).await;
    let app = builder.spawn().await;
    let ada = app.active("ada").await;
    let token = app.token().await;
    let last = format!("{MASTER_KEY},{}", engine.entry("t1"));
    let replica = app.replica_with(&[("STRONGROOM_MASTER_KEYS", &last)]).await;
    let first = format!("{},{MASTER_KEY}", engine.entry("t1"));
    let rotated = app.replica_with(&[("STRONGROOM_MASTER_KEYS", &first)]).await;
    rewrap(&app, &first, 2).await;
    let left = "SELECT count(*) FROM data_keys WHERE master_key_id <> 't1'";
    assert_eq!(app.database.value(left).await, "0");
    for api in [&replica, &rotated] {
        assert_eq!(api.reveal(&token, id(&ada)).await.status, 200);
    }
    let alone = app.replica_with(&[("STRONGROOM_MASTER_KEYS", &engine.entry("t1"))]).await;
    assert_eq!(alone.reveal(&token, id(&ada)).await.status, 200);
    // And back again.
    rewrap(&app, &last, 100).await;
    let alone = app.replica_with(&[("STRONGROOM_MASTER_KEYS", MASTER_KEY)]).await;
    assert_eq!(alone.reveal(&token, id(&ada)).await.status, 200);
}

/// Rewraps everything with the first of these keys.
pub async fn rewrap(app: &TestApp, master_keys: &str, limit: i64) {
    let mut environment = app.environment.clone();
    environment.set("STRONGROOM_MASTER_KEYS", master_keys);
    let config = Config::from_environment(&environment).unwrap();
    let mut conn = app.context.pool.acquire().await.unwrap();
    let vault = strongroom::vault::Vault::open(&mut conn, config.master_keys).await.unwrap();
    let mut after = None;
    loop {
        let batch = strongroom::vault::rewrap_some(&mut conn, &vault, after, limit).await.unwrap();
        batch.write(&mut conn).await.unwrap();
        after = batch.next;
        if after.is_none() {
            return;
        }
    }
}

#[tokio::test]
async fn a_token_in_a_file_is_read_again_when_it_changes() {
    let transit = Transit::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let old = transit.token().await;
    std::fs::write(&file, format!("{old}\n")).unwrap();
    let builder = TestApp::builder()
        .set("STRONGROOM_MASTER_KEYS", transit.entry("t1"))
        .set("STRONGROOM_TRANSIT_ADDR", transit.url())
        .set("STRONGROOM_TRANSIT_TOKEN_FILE", file.to_str().unwrap());
    let app = builder.spawn().await;
    app.active("ada").await;
    transit.revoke(&old).await;
    let token = app.token().await;
    until("the outage", async || {
        is_keys_unavailable(&app.api.hand_in(&token, "eve", &app.connect()).await)
    })
    .await;
    std::fs::write(&file, transit.token().await).unwrap();
    until("the return", async || readyz(&app.api).await.json["keysUnavailable"].is_null()).await;
    app.active("bob").await;
}

#[tokio::test]
async fn an_app_role_logs_in_and_does_so_again_when_its_token_is_revoked() {
    let transit = Transit::start().await;
    let (role_id, secret_id) = transit.app_role().await;
    let builder = TestApp::builder()
        .set("STRONGROOM_MASTER_KEYS", transit.entry("t1"))
        .set("STRONGROOM_TRANSIT_ADDR", transit.url())
        .set("STRONGROOM_TRANSIT_ROLE_ID", role_id)
        .set("STRONGROOM_TRANSIT_SECRET_ID", secret_id);
    let app = builder.spawn().await;
    app.active("ada").await;
    transit.revoke_logins().await;
    app.active("bob").await;
}

/// A service that logs in as the service account whose token is in this file.
fn in_a_pod(transit: &Transit, role: &str, token: &std::path::Path) -> Builder {
    TestApp::builder()
        .set("STRONGROOM_MASTER_KEYS", transit.entry("t1"))
        .set("STRONGROOM_TRANSIT_ADDR", transit.url())
        .set("STRONGROOM_TRANSIT_KUBERNETES_ROLE", role)
        .set("STRONGROOM_TRANSIT_KUBERNETES_TOKEN_PATH", token.to_str().unwrap())
}

#[tokio::test]
async fn a_pods_service_account_logs_in_and_does_so_again_when_its_token_is_revoked() {
    let transit = Transit::start().await;
    let role = transit.kubernetes_role().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, service_account_token("strongroom")).unwrap();
    let app = in_a_pod(&transit, &role, &file).spawn().await;
    app.active("ada").await;
    transit.revoke_logins().await;
    app.active("bob").await;
}

#[tokio::test]
async fn another_service_account_is_refused_by_transit_and_no_token_shows() {
    let transit = Transit::start().await;
    let role = transit.kubernetes_role().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let foreign = service_account_token("another");
    std::fs::write(&file, &foreign).unwrap();
    let stage = in_a_pod(&transit, &role, &file).stage().await;
    let text = refused(&stage).await;
    assert!(text.contains("`t1`") && text.contains("the login failed: HTTP 403"), "{text}");
    assert!(!text.contains(&foreign), "{text}");
}

/// What the start says that the engine refuses. Nothing is recorded by it.
pub async fn refused(stage: &Stage) -> String {
    let config = Config::from_environment(&stage.environment).unwrap();
    assert!(!format!("{config:?}").to_lowercase().contains("canary"));
    let database = strongroom::service::Database::reach(&config.database).await.unwrap();
    let mut conn = database.connect().await.unwrap();
    let error = strongroom::vault::Vault::open(&mut conn, config.master_keys).await.unwrap_err();
    assert_eq!(stage.database.value("SELECT count(*) FROM master_keys").await, "0");
    error.to_string()
}

#[tokio::test]
async fn no_token_and_no_data_key_shows_in_a_log_or_an_answer_while_transit_is_refused() {
    let transit = Transit::start().await;
    let builder = TestApp::builder()
        .set("STRONGROOM_MASTER_KEYS", transit.entry("t1"))
        .set("STRONGROOM_TRANSIT_ADDR", transit.url())
        .set("STRONGROOM_TRANSIT_TOKEN", "canary-token-of-transit");
    let stage = builder.stage().await;
    let text = refused(&stage).await;
    assert!(text.contains("`t1`") && text.contains("403"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn mistakes_in_the_settings_of_transit_are_reported() {
    let base = TestApp::builder().stage().await.environment;
    let mistakes = |variables: &[(&str, &str)]| {
        let mut environment = base.clone();
        for (name, value) in variables {
            environment.set(name, *value);
        }
        Config::from_environment(&environment).unwrap_err().mistakes().join("\n")
    };
    let key = ("STRONGROOM_MASTER_KEYS", "t1:transit:transit/k");
    let addr = ("STRONGROOM_TRANSIT_ADDR", "http://127.0.0.1:8200");
    let token = ("STRONGROOM_TRANSIT_TOKEN", "t");
    assert!(mistakes(&[key]).contains("STRONGROOM_TRANSIT_ADDR is not set"));
    assert!(mistakes(&[key, addr]).contains("one way to log in"));
    assert!(
        mistakes(&[key, addr, token, ("STRONGROOM_TRANSIT_KUBERNETES_ROLE", "r")])
            .contains("one way")
    );
    assert!(
        mistakes(&[key, addr, ("STRONGROOM_TRANSIT_ROLE_ID", "r")])
            .contains("SECRET_ID: is missing")
    );
    let plain = ("STRONGROOM_TRANSIT_ADDR", "http://vault:8200");
    assert!(mistakes(&[key, plain, token]).contains("STRONGROOM_TRANSIT_ADDR: must be https"));
    let no_path = ("STRONGROOM_MASTER_KEYS", "t1:transit:key");
    assert!(mistakes(&[no_path, addr, token]).contains("MOUNT/KEY"));
    let unknown = ("STRONGROOM_MASTER_KEYS", "t1:gcpkms:key");
    assert!(mistakes(&[unknown]).contains("not of the form"));
    let missing = ("STRONGROOM_TRANSIT_CA", "/nowhere/ca.pem");
    assert!(mistakes(&[key, addr, token, missing]).contains("STRONGROOM_TRANSIT_CA: names a file"));
}
