//! No secret shows where it does not belong: not in logs at their most talkative, not in answers, not
//! in metrics, not in PostgreSQL.

use serde_json::{Value, json};
use strongroom::sandbox::{Effect, Fault, Refuse};

use crate::support::{Api, BOOTSTRAP_SECRET, Process, Stage, TestApp, for_user, id};

/// Every secret that passes through a day's work, with a name for the message.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn add(&mut self, name: &'static str, value: &Value) {
        self.0.push((name, value.as_str().unwrap().to_owned()));
    }

    fn get(&self, name: &str) -> String {
        let (_, secret) = self.0.iter().find(|(known, _)| *known == name).unwrap();
        secret.clone()
    }

    /// Which of them stand in `text`. A JWT is looked for by its signature, which nothing else holds.
    fn found_in(&self, text: &str) -> Vec<&'static str> {
        let core = |secret: &str| secret.rsplit('.').next().unwrap().to_owned();
        self.0
            .iter()
            .filter(|(_, secret)| text.contains(&core(secret)))
            .map(|(name, _)| *name)
            .collect()
    }
}

/// All rows of all tables as text, with bytes both as hexadecimal and as the characters they spell.
async fn everything_in_postgresql(app: &crate::support::Stage) -> String {
    let tables = "SELECT table_name::text FROM information_schema.tables
                  WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let mut all = String::new();
    for table in app.database.values(tables).await {
        let sql = format!("SELECT t::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&app.database.pool)
            .await
            .unwrap();
        all.extend(rows.into_iter().map(|row| row + "\n"));
    }
    all
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls on a connection's behalf, and by Dapi's own wire; returns what was answered.
async fn calls(
    stage: &Stage,
    api: &Api,
    token: &str,
    active: &Value,
    secrets: &mut Secrets,
) -> String {
    let mut seen = String::new();
    // Calls on a connection's behalf: one that works, one whose refusal repeats all that was sent.
    let path = format!("/v1/connections/{}/dapi/data/accounts/get", id(active));
    let (access_token, user_secret) = (secrets.get("token"), secrets.get("user secret"));
    let sent = json!({ "userSecret": user_secret, "appSecret": "CANARY-app-secret" });
    seen += &api.post(token, &path, &sent).await.text;
    let msg = format!("{access_token} {user_secret} sandbox-app-secret");
    let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
    stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
    seen += &api.post(token, &path, &sent).await.text;

    // Dapi's own wire: an exchange, a call, and mistakes that put secrets into wrong places.
    let wired = stage.connect();
    secrets.add("wired code", &wired["accessCode"]);
    secrets.add("wired user secret", &wired["userSecret"]);
    let app_secret = format!("{}.{BOOTSTRAP_SECRET}", crate::support::BOOTSTRAP_ID);
    let body = crate::support::with(&wired, json!({ "appSecret": app_secret }));
    let wire =
        |path: &str| api.request(reqwest::Method::POST, &format!("/dapi/v2/{path}")).json(&body);
    let exchanged = api.send(wire("auth/ExchangeToken")).await;
    secrets.add("stand-in", &exchanged.json["accessToken"]);
    let stand_in = exchanged.json["accessToken"].as_str().unwrap().to_owned();
    seen += &api.send(wire("data/accounts/get").bearer_auth(&stand_in)).await.text;
    seen += &api.send(wire("data/accounts/get").bearer_auth(format!("{stand_in}x"))).await.text;
    seen += &api.send(wire("nothing").bearer_auth(&stand_in)).await.text;
    seen
}

#[tokio::test]
async fn no_secret_shows_where_it_does_not_belong() {
    let builder = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let stage = builder.set("STRONGROOM_ANSWER_WITHIN", "5").stage().await;
    let process = Process::serve(&stage, &[("STRONGROOM_LOG", "trace")]).await;
    let (api, mut seen) = (&process.api, String::new());
    let mut secrets = Secrets(vec![
        ("bootstrap secret", BOOTSTRAP_SECRET.to_owned()),
        ("app secret", strongroom::sandbox::DEFAULT_APP_SECRET.to_owned()),
        ("master key", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=".to_owned()),
    ]);
    let token = process.token().await;
    secrets.0.push(("bearer token", token.clone()));
    let session = api.session(&token, "ada").await;
    secrets.0.push(("session token", session.clone()));

    // A day's work: an exchange, a reading, a repeat, refusals that repeat the code, mistakes of the
    // client that put secrets into wrong places, an import, revocations that fail and succeed.
    let result = stage.connect();
    secrets.add("code", &result["accessCode"]);
    secrets.add("user secret", &result["userSecret"]);
    let active = api.post(&session, "/v1/connections", &result).await;
    seen += &active.text;
    seen += &api.post(&session, "/v1/connections", &result).await.text;
    let revealed = api.reveal(&token, id(&active.json)).await;
    secrets.add("token", &revealed.json["accessToken"]);

    let second = stage.connect();
    secrets.add("refused code", &second["accessCode"]);
    let msg = format!("unknown code {}", second["accessCode"].as_str().unwrap());
    let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
    stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
    seen += &api.hand_in(&token, "bob", &second).await.text;

    let misplaced =
        json!({ "success": result["accessCode"], "accessCode": [result["userSecret"]] });
    seen += &api.post(&token, "/v1/connections", &misplaced).await.text;
    let in_the_query = format!("/v1/connections?cursor={}", result["accessCode"].as_str().unwrap());
    seen += &api.get(&token, &in_the_query).await.text;
    let in_basic = api
        .request(reqwest::Method::GET, "/v1/connections")
        .basic_auth("x", Some(BOOTSTRAP_SECRET));
    seen += &api.send(in_basic).await.text;

    let import = json!({ "clientUserID": "eve", "connectionID": "c", "accessToken": "CANARY-imported-token", "userSecret": "CANARY-imported-secret" });
    secrets.add("imported token", &import["accessToken"]);
    secrets.add("imported user secret", &import["userSecret"]);
    let imported = api.post(&token, "/v1/connections/import", &import).await;
    seen += &imported.text;
    let msg = "CANARY-imported-token CANARY-imported-secret sandbox-app-secret".to_owned();
    let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
    stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
    let path = format!("/v1/connections/{}/delink", id(&imported.json));
    seen += &api.post_empty(&token, &path).await.text;

    // Another API's token: read, used, and a refusal that repeats the secret.
    let (client_secret, url) = (strongroom::sandbox::SYSTEMS_CLIENT_SECRET, &stage.sandbox_url);
    let upstream = json!({
        "name": "kaisa", "preset": "kaisa", "clientSecret": client_secret,
        "clientID": strongroom::sandbox::SYSTEMS_CLIENT_ID,
        "tokenURL": format!("{url}/kaisa/oauth/token"), "baseURL": format!("{url}/kaisa/api"),
    });
    secrets.add("upstream secret", &upstream["clientSecret"]);
    let msg = format!("unknown {client_secret}");
    let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 401 };
    stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
    for name in ["kaisa", "second"] {
        let body = crate::support::with(&upstream, json!({ "name": name }));
        seen += &api.post(&token, "/v1/admin/upstreams", &body).await.text;
    }
    seen += &api.post_empty(&token, "/v1/upstreams/second/token").await.text;
    let lent = api.post_empty(&token, "/v1/upstreams/kaisa/token").await;
    secrets.add("upstream token", &lent.json["access_token"]);
    seen += &api.get(&token, "/v1/upstreams/kaisa/proxy/x").await.text;
    seen += &api.get(&token, "/v1/admin/upstreams").await.text;

    seen += &calls(&stage, api, &token, &active.json, &mut secrets).await;

    // While they are held.
    let held = everything_in_postgresql(&stage).await;
    seen += &api.delink(&token, id(&active.json)).await.text;
    seen += &api.get(&token, "/v1/connections").await.text;
    stage.sandbox.set_fault(Fault::new(Effect::Drop)).unwrap();
    seen += &api.hand_in(&token, "pending", &for_user(&stage.connect(), "pending")).await.text;
    let log = process.log();

    assert!(
        log.lines().count() > 100 && log.contains("\"level\":\"TRACE\""),
        "the log is at its most talkative"
    );
    assert_eq!(secrets.found_in(&seen), [""; 0], "in answers");
    assert_eq!(secrets.found_in(&log), [""; 0], "in the log");
    assert_eq!(secrets.found_in(&held), [""; 0], "in PostgreSQL");
    for (name, secret) in &secrets.0 {
        let hex = hexadecimal(secret);
        assert!(!held.contains(&hex), "{name} in PostgreSQL's bytes");
    }
}
