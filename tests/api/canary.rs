//! No secret shows where it does not belong: not in logs at their most talkative, not in answers, not
//! in metrics, not in PostgreSQL.

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, Refuse};

use crate::support::{
    Api, BOOTSTRAP_SECRET, OauthClient, Process, Receiver, Reply, Stage, TestApp, for_user, id,
};

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
async fn everything_in_postgresql(app: &Stage) -> String {
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

/// A day's work, with every secret that passed through it and every answer that was seen.
struct Day<'a> {
    stage: &'a Stage,
    api: &'a Api,
    token: &'a str,
    session: &'a str,
    secrets: Secrets,
    seen: String,
}

impl Day<'_> {
    /// An exchange, a repeat, a reading; returns the connection and Connect's result.
    async fn exchange(&mut self) -> (Value, Value) {
        let result = self.stage.connect();
        self.secrets.add("code", &result["accessCode"]);
        self.secrets.add("user secret", &result["userSecret"]);
        let active = self.api.post(self.session, "/v1/connections", &result).await;
        self.seen += &active.text;
        self.seen += &self.api.post(self.session, "/v1/connections", &result).await.text;
        let revealed = self.api.reveal(self.token, id(&active.json)).await;
        self.secrets.add("token", &revealed.json["accessToken"]);
        (active.json, result)
    }

    /// A refusal that repeats the code, and mistakes of the client that put secrets into wrong places.
    async fn go_wrong(&mut self, result: &Value) {
        let second = self.stage.connect();
        self.secrets.add("refused code", &second["accessCode"]);
        let msg = format!("unknown code {}", second["accessCode"].as_str().unwrap());
        let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
        self.stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
        self.seen += &self.api.hand_in(self.token, "bob", &second).await.text;

        let misplaced =
            json!({ "success": result["accessCode"], "accessCode": [result["userSecret"]] });
        self.seen += &self.api.post(self.token, "/v1/connections", &misplaced).await.text;
        let in_the_query =
            format!("/v1/connections?cursor={}", result["accessCode"].as_str().unwrap());
        self.seen += &self.api.get(self.token, &in_the_query).await.text;
        let in_basic = self
            .api
            .request(reqwest::Method::GET, "/v1/connections")
            .basic_auth("x", Some(BOOTSTRAP_SECRET));
        self.seen += &self.api.send(in_basic).await.text;
    }

    /// An import, and a refused delinking that repeats its secrets.
    async fn import(&mut self) {
        let import = json!({ "clientUserID": "eve", "connectionID": "c", "accessToken": "CANARY-imported-token", "userSecret": "CANARY-imported-secret" });
        self.secrets.add("imported token", &import["accessToken"]);
        self.secrets.add("imported user secret", &import["userSecret"]);
        let imported = self.api.post(self.token, "/v1/connections/import", &import).await;
        self.seen += &imported.text;
        let msg = "CANARY-imported-token CANARY-imported-secret sandbox-app-secret".to_owned();
        let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
        self.stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
        let path = format!("/v1/connections/{}/delink", id(&imported.json));
        self.seen += &self.api.post_empty(self.token, &path).await.text;
    }

    /// Another API's token: read, used, and a refusal that repeats the secret.
    async fn use_upstreams(&mut self) {
        let (client_secret, url) =
            (strongroom_dev::sandbox::SYSTEMS_CLIENT_SECRET, &self.stage.sandbox_url);
        let upstream = json!({
            "name": "kaisa", "preset": "kaisa", "clientSecret": client_secret,
            "clientID": strongroom_dev::sandbox::SYSTEMS_CLIENT_ID,
            "tokenURL": format!("{url}/kaisa/oauth/token"), "baseURL": format!("{url}/kaisa/api"),
        });
        self.secrets.add("upstream secret", &upstream["clientSecret"]);
        let msg = format!("unknown {client_secret}");
        let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 401 };
        self.stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
        for name in ["kaisa", "second"] {
            let body = crate::support::with(&upstream, json!({ "name": name }));
            self.seen += &self.api.post(self.token, "/v1/admin/upstreams", &body).await.text;
        }
        self.seen += &self.api.post_empty(self.token, "/v1/upstreams/second/token").await.text;
        let lent = self.api.post_empty(self.token, "/v1/upstreams/kaisa/token").await;
        self.secrets.add("upstream token", &lent.json["access_token"]);
        self.seen += &self.api.get(self.token, "/v1/upstreams/kaisa/proxy/x").await.text;
        self.seen += &self.api.get(self.token, "/v1/admin/upstreams").await.text;
    }

    /// A client's secrets are told once, to whoever made them.
    async fn make_clients(&mut self) {
        let body = json!({ "name": "canary", "scopes": ["connections:read"] });
        let made = self.api.post(self.token, "/v1/admin/clients", &body).await;
        self.secrets.add("client secret", &made.json["clientSecret"]);
        let path = format!("/v1/admin/clients/{}", made.json["clientID"].as_str().unwrap());
        let second = self.api.post(self.token, &format!("{path}/secrets"), &json!({})).await;
        self.secrets.add("second client secret", &second.json["clientSecret"]);
        self.seen += &self.api.get(self.token, &path).await.text;
        let client = OauthClient {
            id: made.json["clientID"].as_str().unwrap().to_owned(),
            secret: second.json["clientSecret"].as_str().unwrap().to_owned(),
        };
        let of_client = client.token(self.api).await;
        self.secrets.0.push(("a client's token", of_client.clone()));
        self.seen += &client.introspect(self.api, &of_client).await.text;
        self.seen += &client.revoke(self.api, &of_client).await.text;
        let wrong = OauthClient { id: client.id.clone(), secret: "CANARY-wrong-secret".to_owned() };
        self.secrets.0.push(("a wrong secret", wrong.secret.clone()));
        for _ in 0..11 {
            self.seen += &wrong.revoke(self.api, &of_client).await.text;
        }
    }

    /// A webhook's secrets are told once, and a refusal that repeats a delivery is not kept.
    async fn make_webhooks(&mut self, receiver: &Receiver) -> String {
        receiver.reply(&[Reply::Status(500)]);
        let body = json!({ "url": receiver.url, "description": "canary" });
        let made = self.api.post(self.token, "/v1/admin/webhooks", &body).await;
        self.secrets.add("webhook secret", &made.json["secret"]);
        let path = format!("/v1/admin/webhooks/{}", id(&made.json));
        let second = self.api.post(self.token, &format!("{path}/secrets"), &json!({})).await;
        self.secrets.add("second webhook secret", &second.json["secret"]);
        self.seen += &self.api.post_empty(self.token, &format!("{path}/test")).await.text;
        self.seen += &self.api.get(self.token, "/v1/admin/webhooks").await.text;
        path
    }

    /// Calls on a connection's behalf: one that works, one whose refusal repeats all that was sent.
    async fn call_dapi(&mut self, active: &Value) {
        let path = format!("/v1/connections/{}/dapi/data/accounts/get", id(active));
        let (access_token, user_secret) =
            (self.secrets.get("token"), self.secrets.get("user secret"));
        let sent = json!({ "userSecret": user_secret, "appSecret": "CANARY-app-secret" });
        self.seen += &self.api.post(self.token, &path, &sent).await.text;
        let msg = format!("{access_token} {user_secret} sandbox-app-secret");
        let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
        self.stage.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
        self.seen += &self.api.post(self.token, &path, &sent).await.text;
    }

    /// Dapi's own wire: an exchange, a call, and mistakes that put secrets into wrong places.
    async fn use_dapis_wire(&mut self) {
        let wired = self.stage.connect();
        self.secrets.add("wired code", &wired["accessCode"]);
        self.secrets.add("wired user secret", &wired["userSecret"]);
        let app_secret = format!("{}.{BOOTSTRAP_SECRET}", crate::support::BOOTSTRAP_ID);
        let body = crate::support::with(&wired, json!({ "appSecret": app_secret }));
        let api = self.api;
        let wire = |path: &str| {
            api.request(reqwest::Method::POST, &format!("/dapi/v2/{path}")).json(&body)
        };
        let exchanged = api.send(wire("auth/ExchangeToken")).await;
        self.secrets.add("stand-in", &exchanged.json["accessToken"]);
        let stand_in = exchanged.json["accessToken"].as_str().unwrap().to_owned();
        let wrong = format!("{stand_in}x");
        self.seen += &api.send(wire("data/accounts/get").bearer_auth(&stand_in)).await.text;
        self.seen += &api.send(wire("data/accounts/get").bearer_auth(wrong)).await.text;
        self.seen += &api.send(wire("nothing").bearer_auth(&stand_in)).await.text;
    }
}

/// What stands in a JWT.
fn claims(jwt: &str) -> String {
    use base64::Engine as _;
    let payload = jwt.split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    String::from_utf8(engine.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one life, with every secret that there is")]
async fn no_secret_shows_where_it_does_not_belong() {
    let builder = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let stage = builder.set("STRONGROOM_ANSWER_WITHIN", "5").stage().await;
    let process = Process::serve(&stage, &[("STRONGROOM_LOG", "trace")]).await;
    let api = &process.api;
    let mut secrets = Secrets(vec![
        ("bootstrap secret", BOOTSTRAP_SECRET.to_owned()),
        ("app secret", strongroom_dev::sandbox::DEFAULT_APP_SECRET.to_owned()),
        ("master key", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=".to_owned()),
    ]);
    let token = process.token().await;
    secrets.0.push(("bearer token", token.clone()));
    let session = api.session(&token, "ada").await;
    secrets.0.push(("session token", session.clone()));

    let mut day =
        Day { stage: &stage, api, token: &token, session: &session, secrets, seen: String::new() };
    let receiver = Receiver::spawn();
    let webhook = day.make_webhooks(&receiver).await;
    let (active, result) = day.exchange().await;
    day.go_wrong(&result).await;
    day.import().await;
    day.use_upstreams().await;
    day.make_clients().await;
    day.call_dapi(&active).await;
    day.use_dapis_wire().await;
    let Day { secrets, mut seen, .. } = day;

    // The trail of all that, as it is read, exported and certified.
    let events = api.get(&token, "/v1/admin/audit-events?limit=100").await;
    assert!(events.text.contains("token.revealed") && events.text.contains("upstream.token_read"));
    seen += &events.text;
    let export = api.request(reqwest::Method::GET, "/v1/admin/audit-events");
    let export = export.bearer_auth(&token).header("accept", "application/x-ndjson");
    seen += &api.send(export).await.text;
    seen += &api.get(&token, "/v1/admin/audit-checkpoint").await.text;

    // While they are held.
    let held = everything_in_postgresql(&stage).await;
    seen += &api.delink(&token, id(&active)).await.text;
    seen += &api.get(&token, "/v1/connections").await.text;
    stage.sandbox.set_fault(Fault::new(Effect::Drop)).unwrap();
    seen += &api.hand_in(&token, "pending", &for_user(&stage.connect(), "pending")).await.text;

    // The operator's side: search, history, an order, an erasure and what its receipt says.
    seen += &api.get(&token, "/v1/admin/connections").await.text;
    seen += &api.get(&token, &format!("/v1/admin/connections/{}", id(&active))).await.text;
    let order = json!({ "kind": "invalidate", "reason": "x", "filter": { "all": true } });
    seen += &api.post(&token, "/v1/admin/revocations", &order).await.text;
    seen += &api.get(&token, "/v1/admin/revocations").await.text;
    let erase = api.request(reqwest::Method::DELETE, "/v1/users/ada").bearer_auth(&token);
    let erased = api.send(erase).await;
    seen += &erased.text;
    seen += &claims(erased.json["receipt"].as_str().unwrap());
    // What was told of all that, to those who read and to those who receive, and the log of it.
    receiver.arrived(8).await;
    while !receiver.kinds().contains(&"user.erased".to_owned()) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    seen += &receiver.received().iter().map(|each| format!("{each:?}")).collect::<String>();
    seen += &api.get(&token, "/v1/events?limit=100").await.text;
    seen += &api.get(&token, &format!("{webhook}/deliveries?limit=100")).await.text;
    let afterwards = everything_in_postgresql(&stage).await;
    let log = process.log();

    assert!(
        log.lines().count() > 100 && log.contains("\"level\":\"TRACE\""),
        "the log is at its most talkative"
    );
    assert_eq!(secrets.found_in(&seen), [""; 0], "in answers");
    assert_eq!(secrets.found_in(&log), [""; 0], "in the log");
    assert_eq!(secrets.found_in(&held), [""; 0], "in PostgreSQL");
    assert_eq!(
        secrets.found_in(&afterwards),
        [""; 0],
        "in PostgreSQL, orders and erasures included"
    );
    for (name, secret) in &secrets.0 {
        let hex = hexadecimal(secret);
        assert!(!held.contains(&hex), "{name} in PostgreSQL's bytes");
    }
}
