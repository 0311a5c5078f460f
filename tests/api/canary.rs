//! No secret shows where it does not belong: not in logs at their most talkative, not in answers, not
//! in metrics, not in PostgreSQL, not at the engine of the master key, not at the collector of traces.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{self, Effect, Fault, LinkOptions, Refuse, WebhookOptions};

use crate::for_each_bank;
use crate::support::{
    Answer, Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Bank, Collector, Elsewhere, MASTER_KEY,
    OauthClient, Process, Receiver, Reply, Stage, for_user, id, with,
};

for_each_bank!(no_secret_shows_where_it_does_not_belong);

const INVALIDATE: &str = "plaid/item/access_token/invalidate";

impl Bank {
    /// The member of a result that is the code.
    const fn code(self) -> &'static str {
        match self {
            Self::Dapi => "accessCode",
            Self::Plaid => "public_token",
        }
    }

    const fn app_secret(self) -> &'static str {
        match self {
            Self::Dapi => sandbox::DEFAULT_APP_SECRET,
            Self::Plaid => sandbox::DEFAULT_PLAID_SECRET,
        }
    }

    /// One refusal of this call, which repeats these secrets.
    fn repeats(self, call: &str, secrets: &[&str]) -> Fault {
        let msg = format!("no {} {}", secrets.join(" "), self.app_secret());
        let refuse = Refuse { kind: "BAD".to_owned(), msg, status: 400 };
        Fault::new(Effect::Refuse(refuse)).on(call).times(1)
    }
}

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

    /// Which of them stand in what was sent to an engine, in any encoding that keeps their bytes together.
    fn found_in_sent(&self, sent: &[u8]) -> Vec<&'static str> {
        let holds = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
        let any_form = |secret: &str| {
            let hex = hex::encode(secret);
            let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
            for offset in 0..3 {
                forms.extend(base64_within(secret, offset));
            }
            forms.iter().any(|form| holds(form.as_bytes()))
        };
        self.0.iter().filter(|(_, secret)| any_form(secret)).map(|(name, _)| *name).collect()
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

/// The middle of what base64 makes of a secret that has so many bytes before it, in both alphabets.
fn base64_within(secret: &str, offset: usize) -> [String; 2] {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
    [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)].map(|encoded| {
        // The first and the last characters depend on what is around it.
        encoded[4..encoded.len() - 4].to_owned()
    })
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
    /// An exchange, a repeat, a reading; returns the connection and the link's result.
    async fn exchange(&mut self) -> (Value, Value) {
        let result = self.stage.connect();
        self.secrets.add("code", &result[self.stage.bank.code()]);
        if self.stage.bank == Bank::Dapi {
            self.secrets.add("user secret", &result["userSecret"]);
        }
        let active = self.api.post(self.session, "/v1/connections", &result).await;
        self.seen += &active.text;
        self.seen += &self.api.post(self.session, "/v1/connections", &result).await.text;
        self.reveal("token", &active.json).await;
        (active.json, result)
    }

    async fn reveal(&mut self, name: &'static str, connection: &Value) {
        let revealed = self.api.reveal(self.token, id(connection)).await;
        self.secrets.add(name, &revealed.json["accessToken"]);
    }

    /// A refusal that repeats the code, and mistakes of the client that put secrets into wrong places.
    async fn go_wrong(&mut self, result: &Value) {
        let (bank, second) = (self.stage.bank, self.stage.connect());
        let code = second[bank.code()].as_str().unwrap();
        self.secrets.add("refused code", &second[bank.code()]);
        self.stage.sandbox.set_fault(bank.repeats(bank.exchange(), &[code])).unwrap();
        self.seen += &self.api.hand_in(self.token, "bob", &second).await.text;

        let code = &result[bank.code()];
        let misplaced = match bank {
            Bank::Dapi => json!({ "success": code, "accessCode": [result["userSecret"]] }),
            Bank::Plaid => json!({ "public_token": [code], "metadata": code, "clientUserID": 7 }),
        };
        self.seen += &self.api.post(self.token, "/v1/connections", &misplaced).await.text;
        let in_the_query = format!("/v1/connections?cursor={}", code.as_str().unwrap());
        self.seen += &self.api.get(self.token, &in_the_query).await.text;
        let in_basic = self
            .api
            .request(Method::GET, "/v1/connections")
            .basic_auth("x", Some(BOOTSTRAP_SECRET));
        self.seen += &self.api.send(in_basic).await.text;
    }

    /// An import, and a refused revocation that repeats its secrets.
    async fn import(&mut self) {
        let (bank, token) = (self.stage.bank, "CANARY-imported-token");
        let import = bank.import("eve", "c", token);
        self.secrets.add("imported token", &import["accessToken"]);
        let (import, repeated) = match bank {
            Bank::Dapi => {
                let secret = "CANARY-imported-secret";
                self.secrets.0.push(("imported user secret", secret.to_owned()));
                (with(&import, json!({ "userSecret": secret })), vec![token, secret])
            }
            Bank::Plaid => (import, vec![token]),
        };
        let imported = self.api.post(self.token, "/v1/connections/import", &import).await;
        self.seen += &imported.text;
        let refused = bank.repeats(bank.revoke(), &repeated);
        self.stage.sandbox.set_fault(refused).unwrap();
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
        self.stage
            .sandbox
            .set_fault(Fault::new(Effect::Refuse(refuse)).on("kaisa/oauth/token").times(1))
            .unwrap();
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
    async fn call(&mut self, active: &Value) {
        let (bank, access_token) = (self.stage.bank, self.secrets.get("token"));
        let path = bank.relayed(active);
        let (sent, repeated) = match bank {
            Bank::Dapi => {
                let secret = self.secrets.get("user secret");
                let sent = json!({ "userSecret": secret, "appSecret": "CANARY-app-secret" });
                (sent, vec![access_token, secret])
            }
            Bank::Plaid => {
                let sent = json!({ "access_token": access_token, "secret": "CANARY-app-secret" });
                (sent, vec![access_token])
            }
        };
        self.seen += &self.api.post(self.token, &path, &sent).await.text;
        let repeated: Vec<_> = repeated.iter().map(String::as_str).collect();
        self.stage.sandbox.set_fault(bank.repeats(bank.read(), &repeated)).unwrap();
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

/// What is Plaid's own.
impl Day<'_> {
    /// A rotation whose first call is refused in words that repeat the token, and a reading of the new one.
    async fn rotate(&mut self, active: &Value) {
        let old = self.secrets.get("token");
        self.stage.database.execute("UPDATE apps SET rotate_after_reveal = true").await;
        self.reveal("token, read again", active).await;
        self.stage.sandbox.set_fault(Bank::Plaid.repeats(INVALIDATE, &[&old])).unwrap();
        let path = format!("/v1/connections/{}/token", id(active));
        let done = self.api.request(Method::DELETE, &path).bearer_auth(self.token);
        self.seen += &self.api.send(done).await.text;
        self.stage.sandbox.calls_reached(INVALIDATE, 1).await;
        let postponed = "SELECT last_error FROM token_rotations";
        self.becomes(postponed, |error| error.contains("BAD")).await;
        self.stage.database.turn_clock(Duration::from_secs(5)).await;
        self.becomes("SELECT count(*) FROM token_rotations", |left| left == "0").await;
        self.reveal("new token", active).await;
        assert_ne!(self.secrets.get("new token"), old);
    }

    async fn becomes(&self, sql: &'static str, is: fn(&str) -> bool) {
        for _ in 0..3000 {
            if self.stage.database.values(sql).await.first().is_some_and(|value| is(value)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{sql}");
    }

    /// Plaid's own wire, with the client's secret in headers and in the body: a link, an exchange, calls, and mistakes that
    /// put secrets into wrong places.
    async fn use_plaids_wire(&mut self) {
        let request = json!({
            "user": { "client_user_id": "wired" }, "client_name": "Canary", "language": "en",
            "products": ["transactions"], "country_codes": ["US"],
        });
        let begun = self.on_wire("link/token/create", &request).await.json;
        self.secrets.add("link token", &begun["link_token"]);
        let options = LinkOptions {
            link_token: Some(self.secrets.get("link token")),
            ..LinkOptions::default()
        };
        let wired = self.stage.link_with(&options);
        self.secrets.add("wired public token", &wired["public_token"]);
        let code = json!({ "public_token": wired["public_token"] });
        let exchanged = self.on_wire("item/public_token/exchange", &code).await;
        self.secrets.add("proxy token", &exchanged.json["access_token"]);
        let proxy_token = self.secrets.get("proxy token");
        let wrong = format!("{proxy_token}x");
        for (path, token) in [
            ("accounts/get", &proxy_token),
            ("accounts/get", &wrong),
            ("nothing", &proxy_token),
            ("item/access_token/invalidate", &proxy_token),
        ] {
            self.seen += &self.on_wire(path, &json!({ "access_token": token })).await.text;
        }
        let misplaced = json!({ "public_token": [code], "link_token": { "x": wired } });
        self.seen += &self.on_wire("item/public_token/exchange", &misplaced).await.text;
    }

    async fn on_wire(&self, path: &str, body: &Value) -> Answer {
        let request = self.api.request(Method::POST, &format!("/plaid/{path}"));
        let request = request.header("PLAID-CLIENT-ID", BOOTSTRAP_ID);
        let request = request.header("PLAID-SECRET", BOOTSTRAP_SECRET);
        let secrets = json!({ "client_id": BOOTSTRAP_ID, "secret": BOOTSTRAP_SECRET });
        self.api.send(request.json(&with(body, secrets))).await
    }

    /// A webhook that Plaid signed and a forged one, with a secret in their bodies.
    async fn receive_webhooks(&mut self, active: &Value) {
        self.secrets.0.push(("webhook's word", "CANARY-in-a-webhook".to_owned()));
        let item = active["connectionID"].as_str().unwrap();
        let options = WebhookOptions::new("PENDING_EXPIRATION")
            .with("canary", json!("CANARY-in-a-webhook"))
            .with("access_token", json!(self.secrets.get("new token")));
        let webhook = self.stage.sandbox.plaid().webhook(item, &options).unwrap();
        let jwt = webhook.verification.unwrap();
        for (jwt, status) in [(jwt.clone(), 200), (format!("{jwt}CANARY-in-a-webhook"), 400)] {
            let request = self.api.request(Method::POST, "/hooks/plaid/plaid");
            let request = request.header("content-type", "application/json");
            let request = request.header("Plaid-Verification", jwt).body(webhook.body.clone());
            let answer = self.api.send(request).await;
            assert_eq!(answer.status, status, "{}", answer.text);
            self.seen += &answer.text;
        }
    }
}

/// What stands in a JWT.
fn claims(jwt: &str) -> String {
    use base64::Engine as _;
    let payload = jwt.split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    String::from_utf8(engine.decode(payload).unwrap()).unwrap()
}

/// The plaintexts of a key engine's calls that stand in the log: each is a data key.
fn data_keys_in(sent: &[u8], log: &str) -> Vec<String> {
    let sent = String::from_utf8_lossy(sent).to_lowercase();
    let plaintexts =
        sent.split("\"plaintext\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let plaintexts: Vec<_> = plaintexts.map(str::to_owned).collect();
    assert!(!plaintexts.is_empty(), "the engine wraps data keys");
    let log = log.to_lowercase();
    plaintexts.into_iter().filter(|plain| log.contains(plain)).collect()
}

#[expect(clippy::too_many_lines, reason = "one life, with every secret that there is")]
async fn no_secret_shows_where_it_does_not_belong(bank: Bank) {
    let builder = bank.builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let engine = match bank {
        Bank::Dapi => Elsewhere::AwsKms.start().await,
        Bank::Plaid => Elsewhere::Transit.start().await,
    };
    let master_keys = format!("{},{MASTER_KEY}", engine.entry("t1"));
    let builder = engine.on(builder, &master_keys).await;
    let stage = builder.set("STRONGROOM_ANSWER_WITHIN", "5").stage().await;
    let talkative = "trace,aws_smithy_runtime=trace,aws_config=trace,aws_sdk_kms=trace";
    let collector = Collector::spawn();
    let variables = [
        ("STRONGROOM_LOG", talkative),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=CANARY-of-the-collector"),
    ];
    let process = Process::serve(&stage, &variables).await;
    let api = &process.api;
    let mut secrets = Secrets(vec![
        ("bootstrap secret", BOOTSTRAP_SECRET.to_owned()),
        ("app secret", bank.app_secret().to_owned()),
        ("collector's secret", "CANARY-of-the-collector".to_owned()),
        ("AWS's secret", "CANARY-of-the-environment".to_owned()),
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
    day.call(&active).await;
    match bank {
        Bank::Dapi => day.use_dapis_wire().await,
        Bank::Plaid => {
            day.use_plaids_wire().await;
            day.rotate(&active).await;
            day.receive_webhooks(&active).await;
        }
    }
    let Day { secrets, mut seen, .. } = day;

    // The trail of all that, as it is read, exported and certified.
    let events = api.get(&token, "/v1/admin/audit-events?limit=100").await;
    seen += &events.text;
    let export = api.request(reqwest::Method::GET, "/v1/admin/audit-events");
    let export = export.bearer_auth(&token).header("accept", "application/x-ndjson");
    let export = api.send(export).await.text;
    assert!(export.contains("token.revealed") && export.contains("upstream.token_read"));
    seen += &export;
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
    process.terminate();
    assert!(process.ended().await.success());
    let exported: Vec<u8> =
        collector.exports().into_iter().flat_map(|export| export.body).collect();

    assert!(
        log.lines().count() > 100 && log.contains("\"level\":\"TRACE\""),
        "the log is at its most talkative"
    );
    assert_eq!(secrets.found_in(&seen), [""; 0], "in answers");
    assert_eq!(secrets.found_in(&log), [""; 0], "in the log");
    let sent = engine.sent();
    assert!(sent.len() > 1000, "the engine was used");
    assert_eq!(secrets.found_in_sent(&sent), [""; 0], "at the engine");
    assert_eq!(data_keys_in(&sent, &log), [""; 0], "data keys in the log");
    assert!(collector.spans().len() > 100, "the day's work was exported");
    assert_eq!(secrets.found_in_sent(&exported), [""; 0], "in traces");
    let exported = String::from_utf8_lossy(&exported);
    assert_eq!(data_keys_in(&sent, &exported), [""; 0], "data keys in traces");
    assert_eq!(secrets.found_in(&held), [""; 0], "in PostgreSQL");
    assert_eq!(
        secrets.found_in(&afterwards),
        [""; 0],
        "in PostgreSQL, orders and erasures included"
    );
    for (name, secret) in &secrets.0 {
        let hex = hex::encode(secret);
        assert!(!held.contains(&hex), "{name} in PostgreSQL's bytes");
    }
}
