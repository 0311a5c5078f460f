//! Other APIs' tokens: one token for the fleet, fetched once, lent and never leaked; calls through it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{
    Effect, Fault, Huge, Refuse, SYSTEMS_CLIENT_ID, SYSTEMS_CLIENT_SECRET, Status,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Api, Stage, TestApp, command, with};

const DANA: &str = "danaconnect/oauth2/token";
const DANA_API: &str = "danaconnect/api";
const KAISA: &str = "kaisa/oauth/token";

async fn spawn() -> TestApp {
    TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true").spawn().await
}

/// The sandbox's DANAConnect, as an admin describes it.
pub fn dana(stage: &Stage) -> Value {
    json!({
        "name": "dana", "preset": "danaconnect",
        "tokenURL": format!("{}/{DANA}", stage.sandbox_url),
        "baseURL": format!("{}/{DANA_API}", stage.sandbox_url),
        "clientID": SYSTEMS_CLIENT_ID, "clientSecret": SYSTEMS_CLIENT_SECRET,
    })
}

pub async fn add(app: &TestApp, body: &Value) -> Answer {
    let answer = app.api.post(&app.token().await, "/v1/admin/upstreams", body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer
}

async fn spawn_with_dana() -> TestApp {
    let app = spawn().await;
    add(&app, &dana(&app)).await;
    app
}

async fn change(app: &TestApp, name: &str, body: Value) -> Answer {
    let path = format!("/v1/admin/upstreams/{name}");
    let request = app.api.request(Method::PATCH, &path).bearer_auth(app.token().await).json(&body);
    app.api.send(request).await
}

async fn ask(api: &Api, bearer: &str, name: &str) -> Answer {
    api.post_empty(bearer, &format!("/v1/upstreams/{name}/token")).await
}

async fn token(app: &TestApp, name: &str) -> Answer {
    ask(&app.api, &app.token().await, name).await
}

fn access_token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["access_token"].as_str().unwrap().to_owned()
}

async fn proxied(app: &TestApp, path: &str) -> Answer {
    app.api.get(&app.token().await, &format!("/v1/upstreams/dana/proxy/{path}")).await
}

/// Waits until nobody is fetching, by asking the row, not the time.
async fn landed(app: &TestApp) {
    for _ in 0..2000 {
        let leased = "SELECT count(*) FROM upstreams WHERE leased_until IS NOT NULL";
        if app.database.value(leased).await == "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the token request does not end");
}

#[tokio::test]
async fn each_system_gives_its_token_in_its_own_way() {
    let app = spawn().await;
    let url = &app.sandbox_url;
    let ways = [
        ("dana", json!({"preset": "danaconnect"}), DANA, DANA_API, 3600),
        ("kaisa-form", json!({"preset": "kaisa"}), KAISA, "kaisa/api", 300),
        ("kaisa-json", json!({"preset": "kaisa", "auth": "json"}), KAISA, "kaisa/api", 300),
        ("plain", json!({}), "oauth/v2/token", "oauth/v2/api", 1800),
    ];
    for (name, given, token_path, api_path, lifetime) in ways {
        let places = json!({
            "name": name, "clientID": SYSTEMS_CLIENT_ID, "clientSecret": SYSTEMS_CLIENT_SECRET,
            "tokenURL": format!("{url}/{token_path}"), "baseURL": format!("{url}/{api_path}"),
        });
        let added = add(&app, &with(&places, given)).await;
        assert_eq!(added.header("location"), format!("/v1/admin/upstreams/{name}"));
        assert!(!added.text.contains(SYSTEMS_CLIENT_SECRET));

        let answer = token(&app, name).await;
        let access_token = access_token(&answer);
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        assert_eq!(answer.json["token_type"], "Bearer");
        let left = answer.json["expires_in"].as_i64().unwrap();
        assert!((lifetime - 5..=lifetime).contains(&left), "{name}: {left}");
        assert_eq!(answer.json.as_object().unwrap().len(), 3);
        // The system takes it for its own.
        let call = reqwest::Client::new().get(format!("{url}/{api_path}/x"));
        assert_eq!(call.bearer_auth(&access_token).send().await.unwrap().status(), 200, "{name}");
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_lent_by_every_replica() {
    let app = spawn_with_dana().await;
    let (replica, bearer) = (app.replica().await, app.token().await);
    let first = access_token(&ask(&app.api, &bearer, "dana").await);
    for api in [&app.api, &replica, &app.api] {
        assert_eq!(access_token(&ask(api, &bearer, "dana").await), first);
    }
    assert_eq!(app.sandbox.calls_to(DANA), 1);
    assert_eq!(app.metric("strongroom_upstream_tokens_lent_total").await, 3.0);
    let requests = "strongroom_upstream_token_requests_total{outcome=\"token\"}";
    assert_eq!(app.metric(requests).await, 1.0);
}

#[tokio::test]
async fn a_thousand_callers_at_expiry_cause_one_token_request() {
    let app = spawn_with_dana().await;
    let replica = app.replica().await;
    for round in 1..=2 {
        let bearer = app.token().await;
        // Slow enough that all of them come while it is under way.
        let slow = Fault::new(Effect::Answer).on(DANA).delayed(Duration::from_millis(1500));
        app.sandbox.set_fault(slow.times(1)).unwrap();
        let callers = (0..1000).map(|number| {
            let api = if number % 2 == 0 { app.api.clone() } else { replica.clone() };
            let bearer = bearer.clone();
            tokio::spawn(async move {
                loop {
                    let answer = ask(&api, &bearer, "dana").await;
                    // A slow machine may refuse some, who come back.
                    if answer.status != 503 {
                        return answer;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        let mut tokens = std::collections::BTreeSet::new();
        for caller in callers {
            tokens.insert(access_token(&caller.await.unwrap()));
        }
        assert_eq!(tokens.len(), 1, "round {round}");
        assert_eq!(app.sandbox.calls_to(DANA), round);
        app.turn_clock(Duration::from_secs(3600)).await;
    }
    let read = "SELECT count(*) FROM audit_events WHERE action = 'upstream.token_read'";
    // Of a caller that was refused, the event may have been committed.
    assert!(app.database.value(read).await.parse::<u32>().unwrap() >= 2000);
}

#[tokio::test]
async fn a_token_is_refreshed_early_while_the_old_one_serves() {
    let app = spawn_with_dana().await;
    let first = access_token(&token(&app, "dana").await);
    // 150 to 300 s before its end: drawn by lot.
    app.turn_clock(Duration::from_secs(3600 - 310)).await;
    assert_eq!(access_token(&token(&app, "dana").await), first);
    assert_eq!(app.sandbox.calls_to(DANA), 1, "not so early");
    app.turn_clock(Duration::from_secs(180)).await;
    let hanging = Fault::new(Effect::Answer).on(DANA).delayed(Duration::from_secs(600)).times(1);
    app.sandbox.set_fault(hanging).unwrap();
    let served = token(&app, "dana").await;
    assert_eq!(access_token(&served), first, "it is not waited for");
    assert!(served.json["expires_in"].as_i64().unwrap() <= 130);
    app.sandbox.calls_reached(DANA, 2).await;
    assert_eq!(access_token(&token(&app, "dana").await), first);
    app.sandbox.clear_faults();
    landed(&app).await;
    let second = token(&app, "dana").await;
    assert_ne!(access_token(&second), first);
    assert!(second.json["expires_in"].as_i64().unwrap() > 3500);
    assert_eq!(app.sandbox.calls_to(DANA), 2);
}

#[tokio::test]
async fn while_the_upstream_fails_the_old_token_serves_until_its_end() {
    let app = spawn_with_dana().await;
    let first = access_token(&token(&app, "dana").await);
    app.sandbox.set_fault(Fault::status(500).on(DANA)).unwrap();
    app.turn_clock(Duration::from_secs(3600 - 100)).await;
    assert_eq!(access_token(&token(&app, "dana").await), first);
    app.sandbox.calls_reached(DANA, 2).await;
    landed(&app).await;
    for _ in 0..5 {
        assert_eq!(access_token(&token(&app, "dana").await), first);
    }
    assert_eq!(app.sandbox.calls_to(DANA), 2, "one try for each cool-down");

    app.turn_clock(Duration::from_secs(100)).await;
    let ended = token(&app, "dana").await;
    assert_eq!(ended.problem(), (502, "upstream_failed"));
    assert_eq!(ended.json["failure"], "unusable");
    assert!(ended.json["detail"].as_str().unwrap().contains("HTTP 500"), "{}", ended.text);
    assert!(!ended.text.contains("on demand"), "the upstream's body stays inside");
    let wait: u64 = ended.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");

    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(wait)).await;
    assert_ne!(access_token(&token(&app, "dana").await), first);
}

#[tokio::test]
async fn wrong_credentials_are_told_with_the_upstreams_own_code_and_not_tried_again_at_once() {
    let app = spawn().await;
    add(&app, &with(&dana(&app), json!({"clientSecret": "CANARY-wrong-secret"}))).await;
    let replica = app.replica().await;
    for api in [&app.api, &replica, &app.api] {
        let refused = ask(api, &app.token().await, "dana").await;
        assert_eq!(refused.problem(), (502, "upstream_failed"));
        assert_eq!(refused.json["oauthError"], "invalid_client");
        assert_eq!(refused.json["failure"], "refused");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() > 20);
        assert!(!refused.text.contains("wrong"), "{}", refused.text);
    }
    assert_eq!(app.sandbox.calls_to(DANA), 1);
    let shown = app.api.get(&app.token().await, "/v1/admin/upstreams/dana").await;
    assert_eq!(shown.json["failure"]["oauthError"], "invalid_client");
    assert_eq!(shown.json["failure"]["attempts"], 1);
    assert_eq!(shown.json["token"], Value::Null);

    // Whoever mends it does not wait.
    let mended = change(&app, "dana", json!({"clientSecret": SYSTEMS_CLIENT_SECRET})).await;
    assert_eq!((mended.status, &mended.json["failure"]), (200, &Value::Null));
    access_token(&token(&app, "dana").await);
}

#[tokio::test]
async fn a_callers_mistake_about_the_scope_is_the_upstreams_refusal() {
    let app = spawn().await;
    add(&app, &with(&dana(&app), json!({"scope": "nonsense"}))).await;
    let refused = token(&app, "dana").await;
    assert_eq!(refused.problem(), (502, "upstream_failed"));
    assert_eq!(refused.json["oauthError"], "invalid_scope");
}

#[tokio::test]
async fn answers_that_are_no_tokens_are_told_apart_and_never_passed_on() {
    let app = spawn_with_dana().await;
    let status = |code, body: &str| {
        Effect::Status(Status { code, headers: [].into(), body: body.to_owned() })
    };
    let redirect = Effect::Status(Status {
        code: 307,
        headers: [("Location".to_owned(), format!("{}/{KAISA}", app.sandbox_url))].into(),
        body: "CANARY".to_owned(),
    });
    let refuse = Refuse { kind: "CANARY".to_owned(), msg: "CANARY".to_owned(), status: 400 };
    let effects = [
        (Effect::Drop, "unreachable"),
        (Effect::HalfAnswer, "unreachable"),
        (Effect::Garbage, "unusable"),
        (Effect::Huge(Huge { bytes: 10_000_000, content_length: false }), "unusable"),
        (redirect, "unusable"),
        (status(200, "{\"access_token\": \"CANARY token\"}"), "unusable"),
        (status(503, "{\"error\": \"CANARY\"}"), "unusable"),
        (status(401, "{\"error\": \"CANARY\", \"error_description\": \"CANARY\"}"), "refused"),
        (Effect::Refuse(refuse), "refused"),
    ];
    for (effect, failure) in effects {
        app.sandbox.set_fault(Fault::new(effect.clone()).on(DANA).times(1)).unwrap();
        let failed = token(&app, "dana").await;
        assert_eq!(failed.problem(), (502, "upstream_failed"), "{effect:?}");
        assert_eq!(failed.json["failure"], failure, "{effect:?}: {}", failed.text);
        assert!(!failed.text.contains("CANARY"), "{}", failed.text);
        // A change ends the wait.
        change(&app, "dana", json!({})).await;
    }
    assert_eq!(app.sandbox.calls_to(KAISA), 0, "no redirect was followed");
    let held = app.database.values("SELECT u::text FROM upstreams u").await.join("");
    assert!(!held.contains("CANARY"));
}

#[tokio::test]
async fn a_lifetime_that_is_missing_or_wrong_is_assumed_to_be_short() {
    let app = spawn_with_dana().await;
    let fields = ["", ",\"expires_in\":0", ",\"expires_in\":\"soon\"", ",\"expires_in\":null"];
    for field in fields {
        let body = format!("{{\"access_token\":\"abc\"{field}}}");
        let effect = Effect::Status(Status { code: 200, headers: [].into(), body });
        app.sandbox.set_fault(Fault::new(effect).on(DANA).times(1)).unwrap();
        let answer = token(&app, "dana").await;
        assert_eq!(access_token(&answer), "abc");
        let left = answer.json["expires_in"].as_i64().unwrap();
        assert!((290..=300).contains(&left), "{field}: {left}");
        change(&app, "dana", json!({})).await;
    }
}

#[tokio::test]
async fn a_dead_replicas_lease_runs_out() {
    let app = spawn_with_dana().await;
    app.database
        .execute(
            "UPDATE upstreams SET lease_epoch = 1, leased_until = strongroom_now() + interval '30 s'",
        )
        .await;
    let (api, bearer) = (app.api.clone(), app.token().await);
    let waiting = tokio::spawn(async move { ask(&api, &bearer, "dana").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    assert_eq!(app.sandbox.calls_to(DANA), 0);
    app.turn_clock(Duration::from_secs(31)).await;
    access_token(&waiting.await.unwrap());
    let epochs = "SELECT lease_epoch || ' ' || token_epoch FROM upstreams";
    assert_eq!(app.database.value(epochs).await, "2 2");
}

#[tokio::test]
async fn a_token_of_settings_that_changed_meanwhile_is_dropped() {
    let app = spawn_with_dana().await;
    let slow = Fault::new(Effect::Answer).on(DANA).delayed(Duration::from_secs(600)).times(1);
    app.sandbox.set_fault(slow).unwrap();
    let (api, bearer) = (app.api.clone(), app.token().await);
    let waiting = tokio::spawn(async move { ask(&api, &bearer, "dana").await });
    app.sandbox.calls_reached(DANA, 1).await;
    let changed = change(&app, "dana", json!({"scope": "conversation:access2api other"})).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    app.sandbox.clear_faults();
    access_token(&waiting.await.unwrap());
    assert_eq!(app.sandbox.calls_to(DANA), 2, "the new settings' own");
    assert_eq!(app.database.value("SELECT token_epoch FROM upstreams").await, "3");
}

#[tokio::test]
async fn a_caller_who_hangs_up_ends_no_token_request() {
    let app = spawn_with_dana().await;
    let slow = Fault::new(Effect::Answer).on(DANA).delayed(Duration::from_secs(600)).times(1);
    app.sandbox.set_fault(slow).unwrap();
    let (api, bearer) = (app.api.clone(), app.token().await);
    let caller = tokio::spawn(async move { ask(&api, &bearer, "dana").await });
    app.sandbox.calls_reached(DANA, 1).await;
    caller.abort();
    app.sandbox.clear_faults();
    landed(&app).await;
    access_token(&token(&app, "dana").await);
    assert_eq!(app.sandbox.calls_to(DANA), 1);
}

#[tokio::test]
async fn every_lending_is_on_record_and_what_cannot_be_recorded_is_not_lent() {
    let app = spawn_with_dana().await;
    token(&app, "dana").await;
    proxied(&app, "contacts/7?secret=CANARY").await;
    change(&app, "dana", json!({"scope": "conversation:access2api"})).await;
    let bearer = app.token().await;
    let path = "/v1/admin/upstreams/dana";
    let removed = app.api.send(app.api.request(Method::DELETE, path).bearer_auth(&bearer)).await;
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    let rows = "SELECT action || ' ' || outcome || ' ' || actor || ' ' || reason FROM audit_events
                WHERE action LIKE 'upstream.%' ORDER BY id";
    let told = app.database.values(rows).await;
    // The path may hold secrets: a hash stands for it.
    let called = told[3].strip_prefix("upstream.called ok client dana GET path:").unwrap();
    assert!(called.len() == 16 && called.chars().all(|c| c.is_ascii_hexdigit()), "{called}");
    let expected = [
        "upstream.added ok client dana",
        "upstream.token_fetched ok service dana",
        "upstream.token_read ok client dana",
        told[3].as_str(),
        "upstream.changed ok client dana",
        "upstream.removed ok client dana",
    ];
    assert_eq!(told, expected);

    add(&app, &dana(&app)).await;
    app.database
        .execute(
            "ALTER TABLE audit_events ADD CONSTRAINT no
             CHECK (action NOT IN ('upstream.token_read', 'upstream.called')) NOT VALID",
        )
        .await;
    let calls = app.sandbox.calls_to(DANA_API);
    assert_eq!(token(&app, "dana").await.problem(), (500, "internal"));
    assert_eq!(proxied(&app, "x").await.problem(), (500, "internal"));
    assert_eq!(app.sandbox.calls_to(DANA_API), calls);
}

#[tokio::test]
async fn a_call_goes_through_with_the_upstreams_token_and_without_the_callers() {
    let app = spawn_with_dana().await;
    let bearer = app.token().await;
    let request = app
        .api
        .request(Method::PUT, "/v1/upstreams/dana/proxy/2.0/contacts/a%20b/?q=1&q=%2F")
        .bearer_auth(&bearer)
        .header("cookie", "session=CANARY")
        .header("x-forwarded-for", "10.1.2.3")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("idempotency-key", "k1")
        .header("content-type", "application/json")
        .body("{\"a\": 1}");
    let answer = app.api.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("strongroom-upstream"), "dana");
    assert_eq!(answer.json["method"], "PUT");
    assert_eq!(answer.json["path"], "/danaconnect/api/2.0/contacts/a%20b/");
    assert_eq!(answer.json["query"], "q=1&q=%2F");
    assert_eq!(answer.json["body"], "{\"a\": 1}");
    let headers = &answer.json["headers"];
    assert_eq!(headers["idempotency-key"], "k1");
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers["traceparent"].is_string());
    for name in ["cookie", "x-forwarded-for", "x-hop", "connection"] {
        assert_eq!(headers[name], Value::Null, "{name}");
    }
    let host = app.sandbox_url.trim_start_matches("http://");
    assert_eq!(headers["host"], host);
}

#[tokio::test]
async fn answers_without_a_body_end_where_they_end() {
    let app = spawn_with_dana().await;
    let bearer = app.token().await;
    let call = |method| {
        let path = "/v1/upstreams/dana/proxy/x";
        app.api.request(method, path).bearer_auth(&bearer).timeout(Duration::from_secs(10))
    };
    let head = app.api.send(call(Method::HEAD)).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("strongroom-upstream"), "dana");
    assert_eq!(app.api.send(call(Method::OPTIONS)).await.json["method"], "OPTIONS");
    for code in [204, 304] {
        app.sandbox.set_fault(Fault::status(code).on(DANA_API).times(1)).unwrap();
        let empty = app.api.send(call(Method::DELETE)).await;
        assert_eq!((empty.status, empty.text.as_str()), (code, ""));
        assert_eq!(empty.header("strongroom-upstream"), "dana");
    }
    // The connection is in order afterwards.
    assert_eq!(app.api.send(call(Method::GET)).await.status, 200);
    let trace = app.api.send(call(Method::TRACE)).await;
    assert_eq!(trace.problem(), (405, "method_not_allowed"));
}

#[tokio::test]
async fn an_upstream_that_was_too_slow_is_a_504_until_it_is_asked_again() {
    let app = spawn_with_dana().await;
    app.database
        .execute(
            "UPDATE upstreams SET failures = 1, failure = 'timeout',
             failure_detail = 'no answer in time', retry_at = strongroom_now() + interval '9 s'",
        )
        .await;
    let slow = token(&app, "dana").await;
    assert_eq!(slow.problem(), (504, "upstream_timeout"));
    assert_eq!(slow.json["failure"], "timeout");
    assert_eq!(app.sandbox.calls_to(DANA), 0);
    app.turn_clock(Duration::from_secs(10)).await;
    access_token(&token(&app, "dana").await);
}

#[tokio::test]
async fn an_upstreams_own_refusals_and_redirects_come_back_as_they_are() {
    let app = spawn_with_dana().await;
    let headers = [
        ("Location".to_owned(), "https://elsewhere.example/".to_owned()),
        ("Set-Cookie".to_owned(), "a=b".to_owned()),
        ("X-Own".to_owned(), "1".to_owned()),
    ];
    for (code, body) in [(302, ""), (404, ""), (404, "nothing"), (500, "broken"), (429, "")] {
        let status = Status { code, headers: headers.clone().into(), body: body.to_owned() };
        app.sandbox.set_fault(Fault::new(Effect::Status(status)).on(DANA_API).times(1)).unwrap();
        // Without a client that follows redirects.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let call = http.build().unwrap().get(app.api.url("/v1/upstreams/dana/proxy/x"));
        let answer = Answer::read(call.bearer_auth(app.token().await).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.text.as_str()), (code, body));
        assert_eq!(answer.header("strongroom-upstream"), "dana");
        assert_eq!((answer.header("x-own"), answer.header("set-cookie")), ("1", ""));
    }
    change(&app, "dana", json!({"scope": "other"})).await;
    let forbidden = proxied(&app, "x").await;
    assert_eq!((forbidden.status, &forbidden.json["error"]), (403, &json!("insufficient_scope")));
    assert_eq!(forbidden.header("strongroom-upstream"), "dana");
    assert_eq!(forbidden.header("www-authenticate"), "", "the caller has no such credentials");
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_fetched_anew_once_and_the_call_repeated() {
    let app = spawn_with_dana().await;
    assert_eq!(proxied(&app, "x").await.status, 200);
    app.sandbox.revoke_system_tokens();
    // So young a token is not the reason.
    let young = proxied(&app, "x").await;
    assert_eq!((young.status, young.header("strongroom-upstream")), (401, "dana"));
    assert_eq!(app.sandbox.calls_to(DANA), 1);

    app.turn_clock(Duration::from_secs(10)).await;
    let bearer = app.token().await;
    let body = json!({"text": "again"});
    let answer = app.api.post(&bearer, "/v1/upstreams/dana/proxy/x", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["body"], body.to_string());
    assert_eq!(app.sandbox.calls_to(DANA), 2);
    assert_eq!(app.metric("strongroom_upstream_tokens_renewed_total").await, 1.0);

    // A refusal that another token does not mend stands, after one try.
    app.turn_clock(Duration::from_secs(10)).await;
    app.sandbox.set_fault(Fault::status(401).on(DANA_API)).unwrap();
    app.sandbox.forget_calls();
    assert_eq!(proxied(&app, "x").await.status, 401);
    assert_eq!((app.sandbox.calls_to(DANA), app.sandbox.calls_to(DANA_API)), (1, 2));
    // And so it does where there is no other token to be had.
    app.turn_clock(Duration::from_secs(10)).await;
    app.sandbox.set_fault(Fault::status(500).on(DANA)).unwrap();
    assert_eq!(proxied(&app, "x").await.status, 401);
    assert_eq!(proxied(&app, "x").await.status, 401);
    assert_eq!(app.sandbox.calls_to(DANA), 2);
}

/// A request whose path no client has tidied up.
async fn raw(app: &TestApp, bearer: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(app.api.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn no_path_leads_out_of_the_base_url() {
    let app = spawn_with_dana().await;
    let bearer = app.token().await;
    for path in [
        "../oauth2/token",
        "..",
        "./x",
        "a/../../../kaisa/api/x",
        "%2e%2e/oauth2/token",
        ".%2E/x",
        "%252e%252e/x",
        "..%2fx",
        "a%2fb",
        "a%5c..%5cb",
        "/evil.example/x",
        "//evil.example/x",
        "..;/x",
        "a%00b",
        "a%0d%0aX-Y:1",
    ] {
        let (status, answer) =
            raw(&app, &bearer, &format!("/v1/upstreams/dana/proxy/{path}")).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(answer.contains("\"field\":\"path\""), "{path}: {answer}");
    }
    let (status, _) = raw(&app, &bearer, "/v1/upstreams/dana/proxy/http://evil.example/").await;
    assert_eq!(status, 400);
    assert_eq!((app.sandbox.calls_to(DANA), app.sandbox.calls_to(DANA_API)), (0, 0));
    for path in ["/v1/upstreams/..%2fdana/token", "/v1/upstreams/%00/proxy/x"] {
        assert_eq!(
            raw(&app, &bearer, path).await.0,
            if path.contains("proxy") { 404 } else { 405 }
        );
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_both_directions() {
    let app = spawn_with_dana().await;
    let bearer = app.token().await;
    let path = "/v1/upstreams/dana/proxy/x";
    let post = |body: Vec<u8>| app.api.request(Method::POST, path).bearer_auth(&bearer).body(body);
    let large = app.api.send(post(vec![b'x'; 500_000])).await;
    assert_eq!((large.status, large.json["body"].as_str().unwrap().len()), (200, 500_000));
    let larger = app.api.send(post(vec![b'x'; 2_000_000])).await;
    assert_eq!(larger.problem(), (413, "body_too_large"));

    let huge = |content_length| {
        let effect = Effect::Huge(Huge { bytes: 100_000_000, content_length });
        app.sandbox.set_fault(Fault::new(effect).on(DANA_API).times(1)).unwrap();
    };
    huge(true);
    assert_eq!(proxied(&app, "x").await.problem(), (502, "upstream_failed"));
    huge(false);
    let cut = app.api.request(Method::GET, path).bearer_auth(&bearer).send().await.unwrap();
    assert!(cut.bytes().await.is_err(), "half must not pass for whole");
    let effect = Effect::Huge(Huge { bytes: 20_000_000, content_length: false });
    app.sandbox.set_fault(Fault::new(effect).on(DANA_API).times(1)).unwrap();
    let whole = app.api.request(Method::GET, path).bearer_auth(&bearer).send().await.unwrap();
    assert!(whole.bytes().await.unwrap().len() > 20_000_000);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_called_is_a_502_of_ours() {
    let app = spawn_with_dana().await;
    app.sandbox.set_fault(Fault::new(Effect::Drop).on(DANA_API).times(1)).unwrap();
    let dropped = proxied(&app, "x").await;
    assert_eq!(dropped.problem(), (502, "upstream_failed"));
    assert_eq!(dropped.header("strongroom-upstream"), "");
    let changed = change(&app, "dana", json!({"baseURL": null})).await;
    assert_eq!(changed.json["baseURL"], Value::Null);
    assert_eq!(proxied(&app, "x").await.problem(), (404, "not_found"));
    let head = app.api.request(Method::HEAD, "/v1/upstreams/dana/proxy/x");
    assert_eq!(app.api.send(head.bearer_auth(app.token().await)).await.status, 404);
}

#[tokio::test]
async fn urls_that_lead_inside_are_refused_when_they_come_and_when_they_are_used() {
    let app = TestApp::spawn().await;
    let (bearer, public) = (app.token().await, "https://api.example.com/token");
    let described = json!({
        "name": "inside", "tokenURL": public, "clientID": "id", "clientSecret": "CANARY-secret",
    });
    for url in [
        "http://api.example.com/token",
        "https://127.0.0.1/token",
        "https://127.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://user:CANARY@api.example.com/",
        "https://api.example.com/#x",
        "file:///etc/passwd",
    ] {
        for field in ["tokenURL", "baseURL"] {
            let body = with(&described, json!({ field: url }));
            let refused = app.api.post(&bearer, "/v1/admin/upstreams", &body).await;
            assert_eq!(refused.problem(), (400, "invalid_request"), "{field} {url}");
            assert_eq!(refused.json["field"], field);
            assert!(!refused.text.contains("CANARY"), "{}", refused.text);
        }
    }

    // A name is judged by what it stands for when the connection is made.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let by_name = with(&described, json!({"tokenURL": format!("https://localhost:{port}/token")}));
    assert_eq!(app.api.post(&bearer, "/v1/admin/upstreams", &by_name).await.status, 201);
    let refused = ask(&app.api, &bearer, "inside").await;
    assert_eq!(refused.problem(), (502, "upstream_failed"));
    assert_eq!(refused.json["failure"], "not_allowed");

    // And one that was kept while private addresses were allowed.
    let kept = format!(
        "UPDATE upstreams SET token_url = 'http://127.0.0.1:{port}/', failures = 0, failure = NULL,
         failure_detail = NULL, retry_at = NULL"
    );
    sqlx::query(sqlx::AssertSqlSafe(kept)).execute(&app.database.pool).await.unwrap();
    let refused = ask(&app.api, &bearer, "inside").await;
    assert_eq!((refused.status, &refused.json["failure"]), (502, &json!("not_allowed")));
    assert!(listener.accept().is_err(), "nobody connected");
}

#[tokio::test]
async fn calls_do_not_reach_inside_either() {
    let app = spawn_with_dana().await;
    access_token(&token(&app, "dana").await);
    // The same database, under a service that does not allow it.
    let mut environment = app.environment.clone();
    environment.set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "false");
    let config = strongroom::config::Config::from_environment(&environment).unwrap();
    let service = strongroom::service::Service::build(config, app.clock.clone()).await.unwrap();
    let strict = Api::new(service.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(service.run(async move { drop(stopped.await) }));
    let bearer =
        strict.token(crate::support::BOOTSTRAP_ID, crate::support::BOOTSTRAP_SECRET, None).await;
    for base in
        [app.sandbox_url.clone(), app.sandbox_url.replace("http://127.0.0.1", "https://localhost")]
    {
        let moved = "UPDATE upstreams SET base_url = $1";
        sqlx::query(moved).bind(base).execute(&app.database.pool).await.unwrap();
        let refused = strict.get(&bearer, "/v1/upstreams/dana/proxy/danaconnect/api/x").await;
        assert_eq!(refused.problem(), (502, "upstream_failed"));
        assert!(refused.json["detail"].as_str().unwrap().contains("may not be reached"));
    }
    assert_eq!(app.sandbox.calls_to(DANA_API), 0);
    drop(stop);
}

#[tokio::test]
async fn an_admin_adds_lists_shows_changes_and_removes() {
    let app = spawn_with_dana().await;
    let bearer = app.token().await;
    let taken = app.api.post(&bearer, "/v1/admin/upstreams", &dana(&app)).await;
    assert_eq!(taken.problem(), (409, "upstream_exists"));
    add(&app, &with(&dana(&app), json!({"name": "another", "parameters": {"audience": "x"}})))
        .await;
    let list = app.api.get(&bearer, "/v1/admin/upstreams").await;
    let names: Vec<_> =
        list.json["upstreams"].as_array().unwrap().iter().map(|u| u["name"].clone()).collect();
    assert_eq!(names, ["another", "dana"]);
    assert_eq!(list.json["upstreams"][0]["parameters"], json!({"audience": "x"}));
    assert!(!list.text.contains(SYSTEMS_CLIENT_SECRET));

    let elsewhere = change(&app, "dana", json!({"tokenURL": "https://evil.example/"})).await;
    assert_eq!(elsewhere.problem(), (400, "invalid_request"));
    assert_eq!(elsewhere.json["field"], "clientSecret");
    let changed = change(&app, "dana", json!({"scope": null, "auth": "form"})).await;
    assert_eq!((&changed.json["scope"], &changed.json["auth"]), (&Value::Null, &json!("form")));
    assert_eq!(changed.json["tokenURL"], dana(&app)["tokenURL"]);

    let path = "/v1/admin/upstreams/dana";
    let remove = || app.api.request(Method::DELETE, path).bearer_auth(&bearer);
    assert_eq!(app.api.send(remove()).await.status, 204);
    assert_eq!(app.api.send(remove()).await.problem(), (404, "not_found"));
    assert_eq!(app.api.get(&bearer, path).await.problem(), (404, "not_found"));
    assert_eq!(change(&app, "dana", json!({})).await.problem(), (404, "not_found"));
    assert_eq!(token(&app, "dana").await.problem(), (404, "not_found"));
    assert_eq!(proxied(&app, "x").await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn another_apps_upstream_is_not_there() {
    let app = spawn_with_dana().await;
    let stranger = app.token_of_another_app().await;
    let requests = [
        (Method::POST, "/v1/upstreams/dana/token"),
        (Method::GET, "/v1/upstreams/dana/proxy/x"),
        (Method::GET, "/v1/admin/upstreams/dana"),
        (Method::PATCH, "/v1/admin/upstreams/dana"),
        (Method::DELETE, "/v1/admin/upstreams/dana"),
    ];
    for (method, path) in requests {
        let request = app.api.request(method.clone(), path).bearer_auth(&stranger);
        let answer = app.api.send(request.json(&json!({}))).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{method} {path}");
    }
    let list = app.api.get(&stranger, "/v1/admin/upstreams").await;
    assert_eq!(list.json, json!({"upstreams": []}));
    // The same name in another app is another upstream.
    let own = app.api.post(&stranger, "/v1/admin/upstreams", &dana(&app)).await;
    assert_eq!(own.status, 201, "{}", own.text);
    assert_eq!(app.sandbox.calls_to(DANA), 0);
}

#[tokio::test]
async fn a_sealed_secret_or_token_opens_in_its_own_row_alone() {
    let app = spawn_with_dana().await;
    add(&app, &with(&dana(&app), json!({"name": "other"}))).await;
    access_token(&token(&app, "dana").await);
    access_token(&token(&app, "other").await);
    app.database
        .execute(
            "UPDATE upstreams a SET access_token = b.access_token FROM upstreams b
             WHERE a.name = 'dana' AND b.name = 'other'",
        )
        .await;
    assert_eq!(token(&app, "dana").await.problem(), (500, "internal"));
    app.database
        .execute("UPDATE upstreams SET access_token = client_secret WHERE name = 'other'")
        .await;
    assert_eq!(token(&app, "other").await.problem(), (500, "internal"));
}

/// Runs `strongroom upstreams …`; returns what it prints, or how it fails.
fn cli(stage: &Stage, arguments: &[&str], input: &str) -> Result<Value, (i32, String)> {
    use std::io::Write as _;
    let mut command = command(stage, &[]);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.args(["--output", "json", "upstreams"]).args(arguments);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    if done.status.success() {
        return Ok(serde_json::from_slice(&done.stdout).unwrap());
    }
    Err((done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap()))
}

#[tokio::test]
async fn the_command_line_does_what_the_api_does() {
    let app = spawn().await;
    let (token_url, base_url) =
        (format!("{}/{KAISA}", app.sandbox_url), format!("{}/kaisa/api", app.sandbox_url));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "wrong\n").unwrap();
    let add = [
        "add",
        "kaisa",
        "--preset",
        "kaisa",
        "--token-url",
        &token_url,
        "--base-url",
        &base_url,
        "--client-id",
        SYSTEMS_CLIENT_ID,
        "--client-secret-file",
        file.to_str().unwrap(),
    ];
    let added = cli(&app, &add, "").unwrap();
    assert_eq!((&added["name"], &added["auth"]), (&json!("kaisa"), &json!("form")));
    assert_eq!(token(&app, "kaisa").await.problem(), (502, "upstream_failed"));
    let shown = cli(&app, &["show", "kaisa"], "").unwrap();
    assert_eq!(shown["failure"]["oauthError"], "invalid_client");

    std::fs::write(&file, SYSTEMS_CLIENT_SECRET).unwrap();
    let change =
        ["change", "kaisa", "--auth", "json", "--client-secret-file", file.to_str().unwrap()];
    assert_eq!(cli(&app, &change, "").unwrap()["auth"], "json");
    access_token(&token(&app, "kaisa").await);
    let again = ["add", "kaisa", "--token-url", &token_url, "--client-id", "x"];
    let (status, told) = cli(&app, &again, "secret").unwrap_err();
    assert!(status == 1 && told.contains("already"), "{told}");
    let (status, told) =
        cli(&app, &["add", "x", "--token-url", "CANARY", "--client-id", "x"], "s").unwrap_err();
    assert!(status == 2 && told.contains("tokenURL") && !told.contains("CANARY"), "{told}");

    assert_eq!(cli(&app, &["list"], "").unwrap().as_array().unwrap().len(), 1);
    assert_eq!(cli(&app, &["remove", "kaisa"], "").unwrap()["removed"], true);
    assert_eq!(cli(&app, &["remove", "kaisa"], "").unwrap_err().0, 2);
    assert_eq!(cli(&app, &["list"], "").unwrap(), json!([]));
    let rows =
        "SELECT count(*) FROM audit_events WHERE actor = 'operator' AND action LIKE 'upstream.%'";
    assert_eq!(app.database.value(rows).await, "3");
}
