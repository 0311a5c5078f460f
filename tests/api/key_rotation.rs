//! Rotation of data keys: everything is sealed anew while the service runs, and the old keys are destroyed.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::database;
use strongroom::vault::{self, Scope};
use strongroom_dev::sandbox::{Effect, Fault, SYSTEMS_CLIENT_ID, SYSTEMS_CLIENT_SECRET};

use crate::for_each_bank;
use crate::rotation::{INVALIDATE, begin, held_up, lives, released, revealed, rotating};
use crate::support::{
    Answer, Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Bank, MASTER_KEY, Stage, TestApp, command, id,
    until,
};

for_each_bank! {
    a_token_whose_key_is_destroyed_while_it_is_exchanged_is_kept,
    a_late_token_whose_key_was_destroyed_makes_its_orphan_active,
    a_code_is_exchanged_after_a_rotation,
}

const ACCOUNTS: &str = "data/accounts/get";
/// Another master key, to rewrap with.
const OTHER: &str = "k2:Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";
/// Past every wait of a run.
const STEP: Duration = Duration::from_secs(31);
/// The present keys of users and apps, and those that are sealed under.
const KEYS: &str = "SELECT id FROM data_keys WHERE purpose IN ('app', 'user') ORDER BY id";
const ROTATING: &str = "SELECT count(*) FROM data_keys WHERE rotation IS NOT NULL";
const UNDER_NO_KEY: &str = "SELECT count(*) FROM sealed_values v
    WHERE value IS NOT NULL AND NOT EXISTS (SELECT FROM data_keys k WHERE k.id = sealing_key(v.value))";
const ROTATED: &str = "SELECT count(*) FROM audit_events WHERE action = 'data_key.rotated'";

/// A run of a command, as an operator begins it; its result, if it succeeds.
pub struct Command(tokio::task::JoinHandle<std::process::Output>);

impl Command {
    pub fn begin(stage: &Stage, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = command(stage, &[("STRONGROOM_DATABASE_TIMEOUT", "5")]);
        command.envs(variables.iter().copied());
        command.args(["--output", "json", "keys"]).args(arguments);
        Self(tokio::task::spawn_blocking(move || command.output().unwrap()))
    }

    /// Turns the database's clock until it ends.
    pub async fn turned(self, stage: &Stage) -> Option<Value> {
        while !self.0.is_finished() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stage.database.turn_clock(STEP).await;
        }
        self.ended().await
    }

    pub async fn ended(self) -> Option<Value> {
        let output = self.0.await.unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }
}

/// Runs the command to its end, the clock turning.
pub async fn rotate_by_command(stage: &Stage, arguments: &[&str]) -> Value {
    let arguments = [&["rotate-data"], arguments].concat();
    Command::begin(stage, &[], &arguments).turned(stage).await.expect("the command failed")
}

/// Asks until it gets another answer than that the service is unavailable: a machine that is busy with something else leaves
/// a replica behind for some seconds. What a key has to do with is answered otherwise.
async fn answered(ask: impl AsyncFn() -> Answer) -> Answer {
    for _ in 0..600 {
        let answer = ask().await;
        if answer.status != 503 || answer.problem().1 != "unavailable" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it stays unavailable");
}

/// A connection's token opens at this replica.
pub async fn assert_opens(app: &TestApp, api: &Api, connection: &Value) {
    let token = app.token().await;
    let answer = answered(async || api.reveal(&token, id(connection)).await).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// All steps at once, without their waits.
async fn rotate(app: &TestApp) {
    let vault = &app.context.vault;
    let mut conn = app.context.pool.acquire().await.unwrap();
    let scope = Scope::default();
    let now = database::now(&mut conn).await.unwrap();
    let published = vault::publish(&mut conn, vault, scope, now, None, 1000).await.unwrap();
    assert!(published.done > 0 && published.done == published.found);
    let found = vault::rotating(&mut conn, scope, None, 1000).await.unwrap();
    let found: Vec<_> = found.iter().collect();
    vault::switch(&mut conn, &found, Duration::ZERO).await.unwrap();
    for rotating in vault::rotating(&mut conn, scope, None, 1000).await.unwrap() {
        let anew = vault::seal_anew(&mut conn, vault, &rotating).await.unwrap();
        assert_eq!((anew.left, anew.damaged), (0, vec![]));
        let mut tx = conn.begin().await.unwrap();
        assert!(vault::destroy_former(&mut tx, &rotating, Duration::ZERO).await.unwrap());
        tx.commit().await.unwrap();
    }
}

/// Nothing rotates, nothing is under a key that is not there, and no key is of before.
pub async fn assert_rotated(stage: &Stage, before: &[String]) {
    assert_eq!(stage.database.value(ROTATING).await, "0");
    assert_eq!(stage.database.value(UNDER_NO_KEY).await, "0");
    let now = stage.database.values(KEYS).await;
    assert_eq!(now.len(), before.len());
    assert!(now.iter().all(|key| !before.contains(key)), "{now:?} of {before:?}");
    let destroyed = stage.database.values("SELECT id FROM destroyed_data_keys").await;
    assert!(before.iter().all(|key| destroyed.contains(key)), "{destroyed:?}");
}

async fn post(app: &TestApp, path: &str, body: &Value) -> Value {
    let answer = app.api.post(&app.token().await, path, body).await;
    assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.text);
    answer.json
}

/// Dapi's wire, which answers with a proxy token.
async fn proxy_token(app: &TestApp, result: &Value) -> Value {
    let body = json!({
        "appSecret": format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}"),
        "accessCode": result["accessCode"], "connectionID": result["connectionID"],
    });
    let request = app.api.request(reqwest::Method::POST, "/dapi/v2/auth/ExchangeToken");
    app.api.send(request.bearer_auth("").json(&body)).await.json["accessToken"].clone()
}

#[tokio::test]
async fn everything_that_is_sealed_is_sealed_anew_and_opens_and_the_old_keys_are_destroyed() {
    let app = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true").spawn().await;
    // An import that nobody has tried, in the place of a token that works.
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    let import = json!({
        "clientUserID": "ada", "connectionID": result["connectionID"],
        "accessToken": "mistyped", "userSecret": result["userSecret"],
    });
    let newer = post(&app, "/v1/connections/import", &import).await;
    let by_wire = app.connect();
    let proxy = proxy_token(&app, &by_wire).await;
    assert!(proxy.is_string());
    let upstream = json!({
        "name": "plain", "clientID": SYSTEMS_CLIENT_ID, "clientSecret": SYSTEMS_CLIENT_SECRET,
        "tokenURL": format!("{}/oauth/v2/token", app.sandbox_url),
    });
    post(&app, "/v1/admin/upstreams", &upstream).await;
    let upstream_token = post(&app, "/v1/upstreams/plain/token", &json!({})).await;
    post(&app, "/v1/admin/webhooks", &json!({ "url": "http://127.0.0.1:9/x" })).await;
    // A code whose exchange hangs.
    app.sandbox.set_fault(Fault::new(Effect::Hang).on("auth/ExchangeToken").before()).unwrap();
    let (api, token, pending) = (app.api.clone(), app.token().await, app.connect());
    tokio::spawn(async move { api.hand_in(&token, "bob", &pending).await });
    let codes = "SELECT count(*) FROM connections WHERE code IS NOT NULL";
    until("the code", async || app.database.value(codes).await == "1").await;

    let places = "SELECT DISTINCT place FROM sealed_values WHERE value IS NOT NULL ORDER BY 1";
    let held = app.database.values(places).await;
    let values = "SELECT count(*) FROM sealed_values WHERE value IS NOT NULL";
    let values = app.database.value(values).await;
    let all = "connections.code connections.access_token connections.user_secret
        superseded_tokens.access_token superseded_tokens.user_secret proxy_tokens.token apps.app_secret
        upstreams.client_secret upstreams.access_token webhook_secrets.secret webhook_secrets.signing_key";
    for place in all.split_whitespace() {
        assert!(held.iter().any(|it| it == place), "{place} is not among {held:?}");
    }

    let before = app.database.values(KEYS).await;
    let done = rotate_by_command(&app, &["--all"]).await;
    assert_eq!(done["sealedAnew"].to_string(), values);
    assert_eq!(done["rotated"], json!(before.len()));
    assert_rotated(&app, &before).await;
    assert_eq!(app.database.value(ROTATED).await, before.len().to_string());

    app.sandbox.clear_faults();
    assert_eq!(proxy_token(&app, &by_wire).await, proxy);
    let again = post(&app, "/v1/upstreams/plain/token", &json!({})).await;
    assert_eq!(again["access_token"], upstream_token["access_token"]);
    let active = "SELECT count(*) FROM connections WHERE status = 'active'";
    until("the exchange", async || app.database.value(active).await == "3").await;
    // The mistyped token is refused, and the one that it replaced is back, with the secret that it had.
    let token = app.token().await;
    let call = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(&newer));
    assert_ne!(app.api.post(&token, &call, &json!({})).await.status, 200);
    let call = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(&older));
    let answer = app.api.post(&token, &call, &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn plaids_link_tokens_are_sealed_anew_too() {
    let app = TestApp::builder().at_plaid().spawn().await;
    let (item, _) = app.active_item("ada").await;
    let body = json!({
        "client_name": "Shop", "language": "en", "country_codes": ["US"],
        "products": ["auth"], "user": { "client_user_id": "ada" },
    });
    post(&app, "/v1/plaid/link-token", &body).await;
    let link_tokens = "SELECT count(*) FROM sealed_values WHERE place = 'link_tokens.token'";
    assert_eq!(app.database.value(link_tokens).await, "1");
    let before = app.database.values(KEYS).await;
    rotate_by_command(&app, &["--all"]).await;
    assert_rotated(&app, &before).await;
    assert_opens(&app, &app.api, &item).await;
}

/// A column that is forgotten would keep its values under a destroyed key.
#[tokio::test]
async fn the_view_of_sealed_values_lists_every_column_that_holds_one() {
    let app = TestApp::spawn().await;
    let listed = app.database.value("SELECT pg_get_viewdef('sealed_values'::regclass)").await;
    // Hashes, public keys, check values, bindings; keys, which are wrapped; and what is under the service's key.
    let others = "master_keys.check_value data_keys.wrapped data_keys.other_wrapped client_secrets.hash
        connect_sessions.token_hash connections.code_hash connections.revocation_binding token_bindings.binding
        superseded_tokens.binding proxy_tokens.hash link_tokens.hash audit_links.hash audit_heads.hash bulk_revocations.request_hash
        erasures.name_hash plaid_webhooks.digest used_jtis.hash webhook_secrets.public_key signing_keys.private_key
        approvals.digest operator_links.hash operator_sessions.hash operator_challenges.hash operator_passkeys.id
        operator_passkeys.public_key import_keys.public_key import_keys.private_key app_fences.receipt
        _sqlx_migrations.checksum";
    let others: Vec<_> = others.split_whitespace().collect();
    let columns = "SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c
        JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE c.table_schema = 'public' AND c.data_type = 'bytea' AND t.table_type = 'BASE TABLE'
          AND NOT (SELECT relispartition FROM pg_class WHERE oid = to_regclass(quote_ident(c.table_name)))";
    for column in app.database.values(columns).await {
        let is_listed = listed.contains(&format!("'{column}'"));
        assert_ne!(is_listed, others.contains(&column.as_str()), "{column}");
    }
}

#[tokio::test]
async fn a_run_is_of_one_user_or_one_app_or_all_and_of_old_keys_alone() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    app.active("bob").await;
    app.client_of_another_app().await;
    let keys = async || app.database.values(KEYS).await;
    let changed =
        async |before: &[String]| keys().await.iter().filter(|key| !before.contains(key)).count();
    let before = keys().await;
    assert_eq!(rotate_by_command(&app, &["--user", "ada"]).await["rotated"], json!(1));
    assert_eq!(changed(&before).await, 1);
    let young = rotate_by_command(&app, &["--all", "--older-than", "1"]).await;
    assert_eq!(young, json!({ "rotated": 0, "sealedAnew": 0 }));
    assert_eq!(rotate_by_command(&app, &["--app", "default"]).await["rotated"], json!(3));
    assert_eq!(changed(&before).await, 3);
    assert_eq!(rotate_by_command(&app, &["--all"]).await["rotated"], json!(4));
    assert_eq!(changed(&before).await, 4);
    for wrong in [&["--user", "nobody"][..], &["--app", "nobody"], &[], &["--all", "--user", "ada"]]
    {
        let arguments = [&["rotate-data"], wrong].concat();
        assert_eq!(Command::begin(&app, &[], &arguments).ended().await, None, "{wrong:?}");
    }
}

async fn a_token_whose_key_is_destroyed_while_it_is_exchanged_is_kept(bank: Bank) {
    let app = bank.by_hand().await;
    let held_up = Fault::new(Effect::Answer).on(bank.exchange()).after();
    app.sandbox.set_fault(held_up.delayed(Duration::from_secs(600)).times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    rotate(&app).await;
    app.sandbox.clear_faults();
    assert_eq!(app.settled(id(&pending)).await["status"], "active");
    assert_opens(&app, &app.api, &pending).await;
    assert_eq!(app.database.value(UNDER_NO_KEY).await, "0");
}

/// Past the lease of an exchange.
const PAST_THE_LEASE: Duration = Duration::from_secs(131);

async fn a_late_token_whose_key_was_destroyed_makes_its_orphan_active(bank: Bank) {
    let app = bank.by_hand().await;
    let held_up = Fault::new(Effect::Answer).on(bank.exchange()).after();
    app.sandbox.set_fault(held_up.delayed(Duration::from_secs(600)).times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    app.turn_clock(PAST_THE_LEASE).await;
    app.tick().await;
    let status =
        async || app.api.connection(&app.token().await, id(&pending)).await["status"].clone();
    assert_eq!(status().await, "orphaned");
    rotate(&app).await;
    app.sandbox.clear_faults();
    until("it is active", async || status().await == "active").await;
    assert_opens(&app, &app.api, &pending).await;
    assert_eq!(app.database.value(UNDER_NO_KEY).await, "0");
}

async fn a_code_is_exchanged_after_a_rotation(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox.set_fault(Fault::new(Effect::Drop).on(bank.exchange()).before().times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.settled(id(&pending)).await;
    rotate(&app).await;
    app.turn_clock(Duration::from_secs(3)).await;
    app.tick().await;
    assert_opens(&app, &app.api, &pending).await;
}

#[tokio::test]
async fn a_token_that_plaid_replaces_while_its_key_is_destroyed_is_kept() {
    let app = rotating().await;
    app.sandbox.set_fault(held_up()).unwrap();
    let (connection, old) = released(&app).await;
    let running = begin(&app);
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    rotate(&app).await;
    app.sandbox.clear_faults();
    running.await.unwrap();
    assert!(!lives(&app, &old));
    assert!(lives(&app, &revealed(&app, &connection).await));
    assert_eq!(app.database.value(UNDER_NO_KEY).await, "0");
}

#[tokio::test]
async fn a_locked_row_is_left_and_the_old_key_stays_until_it_is_sealed_anew() {
    let app = TestApp::spawn().await;
    let ada = app.active("ada").await;
    let before = app.database.values(KEYS).await;
    let mut locked = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM connections FOR UPDATE").execute(&mut *locked).await.unwrap();
    let run = Command::begin(&app, &[], &["rotate-data", "--all"]);
    // The app's key goes; the user's stays.
    until("the app's key", async || {
        app.database.turn_clock(STEP).await;
        app.database.value(ROTATED).await == "1"
    })
    .await;
    let switched =
        "SELECT count(*) FROM data_keys WHERE rotation = 'switched' AND purpose = 'user'";
    assert_eq!(app.database.value(switched).await, "1");
    locked.rollback().await.unwrap();
    assert_eq!(run.turned(&app).await.expect("it failed")["rotated"], json!(2));
    assert_rotated(&app, &before).await;
    assert_opens(&app, &app.api, &ada).await;
}

#[tokio::test]
async fn a_value_that_does_not_open_is_named_and_keeps_its_key() {
    let app = TestApp::spawn().await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    let row = id(&ada).trim_start_matches("conn_").to_owned();
    sqlx::query("UPDATE connections SET user_secret = set_byte(user_secret, 40, get_byte(user_secret, 40) # 1) WHERE id = $1::uuid")
        .bind(&row)
        .execute(&app.database.pool)
        .await
        .unwrap();
    assert_eq!(Command::begin(&app, &[], &["rotate-data", "--all"]).turned(&app).await, None);
    let left = "SELECT count(*) FROM data_keys WHERE rotation = 'switched'";
    assert_eq!(app.database.value(left).await, "1");
    assert_opens(&app, &app.api, &bob).await;
    // The token of the damaged row is under the new key, and opens with it.
    let token = "SELECT count(*) FROM connections c JOIN data_keys k ON k.other_id = sealing_key(c.access_token)";
    assert_eq!(app.database.value(token).await, "0");
}

#[tokio::test]
async fn a_write_under_a_destroyed_key_is_refused() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    app.database.execute("CREATE TABLE kept AS SELECT access_token FROM connections").await;
    rotate(&app).await;
    let restored = sqlx::query("UPDATE connections SET access_token = kept.access_token FROM kept")
        .execute(&app.database.pool)
        .await;
    assert!(vault::is_key_destroyed(&restored.unwrap_err()));
}

#[tokio::test]
async fn two_runs_at_once_rotate_each_key_once() {
    let app = TestApp::spawn().await;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(app.active(&format!("user-{n}")).await);
    }
    let before = app.database.values(KEYS).await;
    let begin = || Command::begin(&app, &[], &["rotate-data", "--all"]);
    let (one, two) = (begin(), begin());
    let count = async |sql| app.database.value(sql).await;
    // The second run is late for the first's publishing as often as not, and finds its keys as it has left them.
    until("they are published", async || count(ROTATING).await == before.len().to_string()).await;
    let (one, two) = tokio::join!(one.turned(&app), two.turned(&app));
    let rotated = |done: Option<Value>| done.expect("it failed")["rotated"].as_u64().unwrap();
    assert_eq!(rotated(one) + rotated(two), before.len() as u64);
    assert_eq!(count(ROTATED).await, before.len().to_string());
    assert_rotated(&app, &before).await;
    for connection in &all {
        assert_opens(&app, &app.api, connection).await;
    }
}

#[tokio::test]
async fn a_rewrap_takes_both_keys_of_one_that_rotates_along() {
    let app = TestApp::spawn().await;
    let ada = app.active("ada").await;
    let before = app.database.values(KEYS).await;
    let both = format!("{OTHER},{MASTER_KEY}");
    let (vault, scope) = (&app.context.vault, Scope::default());
    let mut conn = app.context.pool.acquire().await.unwrap();
    let now = database::now(&mut conn).await.unwrap();
    vault::publish(&mut conn, vault, scope, now, None, 100).await.unwrap();
    let rewrap = async |first: &str| {
        let variables = [("STRONGROOM_MASTER_KEYS", first)];
        Command::begin(&app, &variables, &["rewrap"]).ended().await.expect("it failed")
    };
    rewrap(&both).await;
    let found = vault::rotating(&mut conn, scope, None, 100).await.unwrap();
    let found: Vec<_> = found.iter().collect();
    assert_eq!(vault::switch(&mut conn, &found, Duration::ZERO).await.unwrap(), 2);
    // The status says so: a token and a user secret are under the user's old key.
    let status = Command::begin(&app, &[("STRONGROOM_MASTER_KEYS", &both)], &["status"]);
    let status = status.ended().await.expect("it failed");
    let groups = status[1]["dataKeys"].as_array().unwrap();
    let users = groups.iter().find(|group| group["purpose"] == "user").unwrap();
    let counts = (&users["rotating"], &users["formerSeals"], &users["seals"]);
    assert_eq!(counts, (&json!(1), &json!(2), &json!(0)), "{status}");
    assert!(users["rotatingSince"].is_string());
    let alone = [("STRONGROOM_MASTER_KEYS", OTHER)];
    let replica = app.replica_with(&alone).await;
    assert_opens(&app, &replica, &ada).await;
    let run = Command::begin(&app, &alone, &["rotate-data", "--all", "--older-than", "1"]);
    assert_eq!(run.turned(&app).await.expect("it failed")["rotated"], json!(2));
    assert_rotated(&app, &before).await;
    assert_opens(&app, &replica, &ada).await;
}

#[tokio::test]
async fn other_replicas_seal_under_the_new_key_at_once_and_forget_the_old_one_within_seconds() {
    let app = TestApp::spawn().await;
    let (replica, token) = (app.replica().await, app.token().await);
    let ada = app.active("ada").await;
    for api in [&app.api, &replica] {
        assert_opens(&app, api, &ada).await;
    }
    let before = app.database.values(KEYS).await;
    let kept = async || app.metric("strongroom_data_keys_kept").await;
    until("both are kept", async || kept().await == 2.0).await;
    rotate(&app).await;
    let handed_in = answered(async || replica.hand_in(&token, "ada", &app.connect()).await).await;
    assert!([201, 202].contains(&handed_in.status), "{}", handed_in.text);
    assert_rotated(&app, &before).await;
    until("the eviction", async || kept().await == 0.0).await;
    assert_opens(&app, &app.api, &ada).await;
}

#[tokio::test]
async fn an_erasure_during_a_rotation_destroys_both_keys() {
    let app = TestApp::spawn().await;
    let (ada, token) = (app.active("ada").await, app.token().await);
    app.active("bob").await;
    let (vault, scope) = (&app.context.vault, Scope::default());
    let mut conn = app.context.pool.acquire().await.unwrap();
    let now = database::now(&mut conn).await.unwrap();
    vault::publish(&mut conn, vault, scope, now, None, 100).await.unwrap();
    let found = vault::rotating(&mut conn, scope, None, 100).await.unwrap();
    vault::switch(&mut conn, &found.iter().collect::<Vec<_>>(), Duration::ZERO).await.unwrap();
    drop(conn);
    let request = app.api.request(reqwest::Method::DELETE, "/v1/users/ada").bearer_auth(&token);
    assert!(app.api.send(request).await.status < 300);
    let users = "SELECT count(*) FROM data_keys WHERE purpose = 'user'";
    until("the erasure", async || app.database.value(users).await == "1").await;
    assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 404);
    rotate_by_command(&app, &["--all", "--older-than", "1"]).await;
    assert_eq!(app.database.value(ROTATING).await, "0");
    assert_eq!(app.database.value(UNDER_NO_KEY).await, "0");
}

/// What reads and calls go on with while keys are rotated and rewrapped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Reveals and calls of these connections, at two replicas, each of which has to succeed.
    async fn begin(app: &TestApp, connections: &[Value]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (replica, token) = (app.replica().await, app.token().await);
        let readers = connections.iter().enumerate().map(|(n, connection)| {
            let api = if n % 2 == 0 { app.api.clone() } else { replica.clone() };
            let (token, id) = (token.clone(), id(connection).to_owned());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    Self::read(&api, &token, &id, done.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        });
        let readers = readers.collect();
        Self { stop, done, readers }
    }

    async fn read(api: &Api, token: &str, id: &str, n: usize) {
        let call = format!("/v1/connections/{id}/dapi/{ACCOUNTS}");
        for _ in 0..600 {
            let answer = if n.is_multiple_of(10) {
                api.post(token, &call, &json!({})).await
            } else {
                api.reveal(token, id).await
            };
            // As in `answered`.
            if answer.status != 503 || answer.problem().1 != "unavailable" {
                assert_eq!(answer.status, 200, "{}", answer.text);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it stays unavailable");
    }

    /// Ends it; returns how many there were.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.await.unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// `STRONGROOM_TEST_READS` asks for more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_calls_never_fail_while_all_keys_are_rotated_and_rewrapped() {
    let least = std::env::var("STRONGROOM_TEST_READS").map_or(2_000, |n| n.parse().unwrap());
    let app = TestApp::builder()
        .set("STRONGROOM_REVEALS_PER_MINUTE", "1000000")
        .set("STRONGROOM_MASTER_KEYS", format!("{MASTER_KEY},{OTHER}"))
        .spawn()
        .await;
    let mut connections = Vec::new();
    for n in 0..8 {
        connections.push(app.active(&format!("user-{n}")).await);
    }
    let (load, began) = (Load::begin(&app, &connections).await, Instant::now());
    let masters = [format!("{OTHER},{MASTER_KEY}"), format!("{MASTER_KEY},{OTHER}")];
    let (mut rotations, mut n) = (0, 0);
    while rotations == 0 || load.done.load(Ordering::Relaxed) < least {
        // The clock stays as it is: what the waits are for is tested with them.
        let before = app.database.values(KEYS).await;
        let run = Command::begin(&app, &[], &["rotate-data", "--all"]);
        while !run.0.is_finished() {
            let variables = [("STRONGROOM_MASTER_KEYS", masters[n % 2].as_str())];
            Command::begin(&app, &variables, &["rewrap"]).ended().await.expect("a rewrap failed");
            n += 1;
            // The reads are what is to go on, not the commands.
            let reads = load.done.load(Ordering::Relaxed);
            until("further reads", async || load.done.load(Ordering::Relaxed) > reads + 100).await;
        }
        run.ended().await.expect("the rotation failed");
        assert_rotated(&app, &before).await;
        rotations += 1;
    }
    let reads = load.end().await;
    let took = began.elapsed();
    let figures = format!("{reads} reads, {rotations} rotations, {n} rewraps in {took:?}");
    writeln!(std::io::stderr(), "{figures}").unwrap();
    assert!(reads >= least, "{reads}");
}
