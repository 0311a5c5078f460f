//! Clients that prove themselves by a key: `private_key_jwt` (RFC 7523), with keys that are registered or published.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Issuer, JWT_BEARER, Keypair, Mood, PUBLIC_URL, TestApp, base64, command, refusal,
    with_assertion,
};

const PATH: &str = "/v1/admin/clients";
/// Longer than a minute: the count of failed logins begins anew.
const MINUTE: Duration = Duration::from_secs(61);

fn set(keys: &[Value]) -> Value {
    json!({ "jwks": { "keys": keys } })
}

fn only(key: &Keypair) -> Value {
    set(std::slice::from_ref(&key.jwk))
}

/// A service that may call addresses of this machine.
async fn spawn() -> TestApp {
    TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true").spawn().await
}

#[tokio::test]
async fn a_client_gets_a_token_with_a_key_of_every_kind() {
    let app = TestApp::spawn().await;
    for algorithm in ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"] {
        let key = Keypair::of(algorithm);
        let id = app.keyed_client(set(&[key.named("k")])).await;
        for header in [json!({ "kid": "k", "typ": "JWT" }), json!({})] {
            let answer = app.api.assert(&key.sign(&header, &app.claims(&id, json!({})))).await;
            assert_eq!(answer.status, 200, "{algorithm}: {}", answer.text);
            assert_eq!(answer.json["token_type"], "Bearer");
            let token = answer.json["access_token"].as_str().unwrap();
            assert_eq!(app.api.get(token, "/v1/connections").await.status, 200);
        }
    }
}

#[tokio::test]
async fn the_issuer_the_token_endpoint_and_the_endpoint_itself_are_audiences() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    let sign = |aud: Value| key.sign(&json!({}), &app.claims(&id, json!({ "aud": aud })));
    let token = app.api.assert(&sign(json!([PUBLIC_URL]))).await.json["access_token"].clone();
    let token = format!("&token={}", token.as_str().unwrap());
    for path in ["/oauth2/introspect", "/oauth2/revoke"] {
        for aud in ["", "/oauth2/token", path] {
            let assertion = sign(json!(format!("{PUBLIC_URL}{aud}")));
            let answer = app.api.form(path, with_assertion(&assertion, &token)).await;
            assert_eq!(answer.status, 200, "{path} {aud}: {}", answer.text);
        }
        let other = if path == "/oauth2/revoke" { "/oauth2/introspect" } else { "/oauth2/revoke" };
        let assertion = sign(json!(format!("{PUBLIC_URL}{other}")));
        let answer = app.api.form(path, with_assertion(&assertion, &token)).await;
        assert_eq!(refusal(&answer), (401, "invalid_client"), "{path}");
    }
}

#[tokio::test]
async fn an_assertion_whose_claims_are_not_sound_is_refused() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    let other = app.client("connections:read").await.id;
    for (changes, word) in [
        (json!({ "iss": other }), "iss"),
        (json!({ "sub": other }), "sub"),
        (json!({ "iss": null }), "iss"),
        (json!({ "sub": null }), "sub"),
        (json!({ "aud": null }), "aud"),
        (json!({ "aud": "https://elsewhere.example" }), "aud"),
        (json!({ "aud": [PUBLIC_URL, "https://elsewhere.example"] }), "aud"),
        (json!({ "aud": [] }), "aud"),
        (json!({ "aud": format!("{PUBLIC_URL}/") }), "aud"),
        (json!({ "aud": format!("{PUBLIC_URL}.evil.example") }), "aud"),
        (json!({ "exp": null }), "exp"),
        (json!({ "exp": -1 }), "expired"),
        (json!({ "exp": 0 }), "expired"),
        (json!({ "exp": 600 }), "exp"),
        (json!({ "nbf": 300 }), "nbf"),
        (json!({ "iat": 300 }), "iat"),
        (json!({ "jti": null }), "jti"),
        (json!({ "jti": "" }), "jti"),
        (json!({ "jti": "x".repeat(513) }), "jti"),
    ] {
        app.turn_clock(MINUTE).await;
        // Times are told relative to now.
        let mut moved = changes.clone();
        for name in ["exp", "nbf", "iat"] {
            if let Some(seconds) = changes[name].as_i64() {
                moved[name] = json!(app.clock.unix_seconds() + seconds);
            }
        }
        let assertion = key.sign(&json!({}), &app.claims(&id, moved));
        let answer = app.api.assert_as(&id, &assertion).await;
        assert_eq!(refusal(&answer), (401, "invalid_client"), "{changes}");
        let description = answer.json["error_description"].as_str().unwrap();
        assert!(description.contains(word), "{changes}: {description}");
    }
    for typ in ["dpop+jwt", "at+jwt", "erasure-receipt+jwt", ""] {
        app.turn_clock(MINUTE).await;
        let assertion = key.sign(&json!({ "typ": typ }), &app.claims(&id, json!({})));
        assert_eq!(refusal(&app.api.assert(&assertion).await), (401, "invalid_client"), "{typ}");
    }
    let typed = json!({ "typ": "client-authentication+jwt" });
    assert_eq!(app.api.assert(&key.sign(&typed, &app.claims(&id, json!({})))).await.status, 200);
}

#[tokio::test]
async fn what_the_key_did_not_sign_is_told_apart_from_nothing() {
    let app = TestApp::spawn().await;
    let (key, other) = (Keypair::new(), Keypair::new());
    let id = app.keyed_client(set(&[key.named("k")])).await;
    let claims = app.claims(&id, json!({}));
    let good = key.sign(&json!({ "kid": "k" }), &claims);
    let parts: Vec<_> = good.split('.').collect();
    let header = |header: Value| base64(header.to_string());
    let rebuilt = |header: String| format!("{header}.{}.{}", parts[1], parts[2]);
    let payload = base64(app.claims(&id, json!({ "exp": 9_999_999_999_i64 })).to_string());
    let unknown = app.api.assert(&other.sign(&json!({}), &app.claims("nobody", json!({})))).await;
    let text = |answer: &crate::support::Answer| answer.json.clone();
    assert_eq!(refusal(&unknown), (401, "invalid_client"));
    assert!(unknown.header("www-authenticate").starts_with("Basic "));
    for assertion in [
        other.sign(&json!({ "kid": "k" }), &claims),
        other.sign(&json!({}), &claims),
        other.sign(&json!({ "kid": "k", "jwk": other.jwk }), &claims),
        key.sign(&json!({ "kid": "unknown" }), &claims),
        key.sign(&json!({ "kid": "k", "crit": ["exp"] }), &claims),
        key.sign(&json!({ "kid": "k", "alg": "none" }), &claims),
        key.sign(&json!({ "kid": "k", "alg": "HS256" }), &claims),
        key.sign(&json!({ "kid": "k", "alg": "RS256" }), &claims),
        key.sign(&json!({ "kid": "k", "alg": "EdDSA" }), &claims),
        rebuilt(header(json!({ "alg": "none" }))),
        format!("{}.{}.", header(json!({ "alg": "none" })), parts[1]),
        format!("{}.{payload}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        "a.b.c".to_owned(),
        "x".repeat(40_000),
    ] {
        app.turn_clock(MINUTE).await;
        let answer = app.api.assert_as(&id, &assertion).await;
        assert_eq!(answer.status, 401, "{assertion}: {}", answer.text);
        assert_eq!(text(&answer), text(&unknown), "{assertion}");
    }
}

#[tokio::test]
async fn a_client_without_keys_has_no_assertion_and_one_with_keys_has_no_secret() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let plain = app.client("connections:read").await;
    let assertion = key.sign(&json!({}), &app.claims(&plain.id, json!({})));
    assert_eq!(refusal(&app.api.assert(&assertion).await), (401, "invalid_client"));
    let made = app.create_client(only(&key)).await;
    assert_eq!((made.status, &made.json["clientSecret"]), (201, &Value::Null));
    let id = made.json["clientID"].as_str().unwrap();
    assert_eq!(
        app.database.value("SELECT count(*) FROM client_secrets s JOIN clients c ON c.id = s.client_id WHERE c.name = 'keyed'").await,
        "0"
    );
    // A secret beside the keys is asked for by name.
    let token = app.token().await;
    let secret = app.api.post(&token, &format!("{PATH}/{id}/secrets"), &json!({})).await;
    let secret = secret.json["clientSecret"].as_str().unwrap();
    app.api.token(id, secret, None).await;
    let assertion = key.sign(&json!({}), &app.claims(id, json!({})));
    assert_eq!(app.api.assert(&assertion).await.status, 200);
}

#[tokio::test]
async fn an_assertion_counts_once_at_any_replica() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    app.refresh_directories().await;
    let assertion = key.sign(&json!({}), &app.claims(&id, json!({})));
    assert_eq!(app.api.assert(&assertion).await.status, 200);
    for api in [&replica, &app.api] {
        let again = api.assert(&assertion).await;
        assert_eq!(refusal(&again), (401, "invalid_client"));
        assert_eq!(again.json["error_description"], "The assertion has been used before");
    }
    // The same `jti` is another client's own.
    let jti = json!({ "jti": "the same" });
    let other = Keypair::new();
    let other_id = app.keyed_client(only(&other)).await;
    let first = key.sign(&json!({}), &app.claims(&id, jti.clone()));
    assert_eq!(app.api.assert(&first).await.status, 200);
    let second = other.sign(&json!({}), &app.claims(&other_id, jti));
    assert_eq!(replica.assert(&second).await.status, 200);
}

#[tokio::test]
async fn of_many_who_present_one_assertion_at_once_one_gets_a_token() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    app.refresh_directories().await;
    let assertion = key.sign(&json!({}), &app.claims(&id, json!({})));
    let apis = [&app.api, &replica].into_iter().cycle().take(12);
    let answers = futures_util::future::join_all(apis.map(|api| api.assert(&assertion))).await;
    let granted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn what_was_used_is_forgotten_when_it_is_not_accepted_any_more() {
    let app = TestApp::by_hand().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    assert_eq!(
        app.api.assert(&key.sign(&json!({}), &app.claims(&id, json!({})))).await.status,
        200
    );
    let config = strongroom::config::Config::from_environment(&app.environment).unwrap().oauth;
    let count = "SELECT count(*) FROM used_jtis";
    strongroom::background::housekeeping(&app.context, &config).await.unwrap();
    assert_eq!(app.database.value(count).await, "1");
    app.turn_clock(Duration::from_secs(601)).await;
    strongroom::background::housekeeping(&app.context, &config).await.unwrap();
    assert_eq!(app.database.value(count).await, "0");
}

#[tokio::test]
async fn a_caller_without_the_key_leaves_no_row() {
    let app = TestApp::spawn().await;
    let id = app.keyed_client(set(&[Keypair::new().jwk])).await;
    let assertion = Keypair::new().sign(&json!({}), &app.claims(&id, json!({})));
    assert_eq!(app.api.assert(&assertion).await.status, 401);
    assert_eq!(app.database.value("SELECT count(*) FROM used_jtis").await, "0");
}

#[tokio::test]
async fn two_ways_of_authenticating_in_one_request_are_refused() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let id = app.keyed_client(only(&key)).await;
    let sign = || key.sign(&json!({}), &app.claims(&id, json!({})));
    let grant = "&grant_type=client_credentials";
    let secret = with_assertion(&sign(), &format!("{grant}&client_id={id}&client_secret=x"));
    assert_eq!(refusal(&app.api.form("/oauth2/token", secret).await), (400, "invalid_request"));
    let basic = app
        .api
        .request(Method::POST, "/oauth2/token")
        .basic_auth(&id, Some("x"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(with_assertion(&sign(), grant));
    assert_eq!(refusal(&app.api.send(basic).await), (400, "invalid_request"));
    let no_type = format!("client_assertion={}{grant}", sign());
    assert_eq!(refusal(&app.api.form("/oauth2/token", no_type).await), (400, "invalid_request"));
    let other_type = format!("client_assertion_type=x&client_assertion={}{grant}", sign());
    assert_eq!(refusal(&app.api.form("/oauth2/token", other_type).await), (401, "invalid_client"));
    let in_uri = format!("/oauth2/token?client_assertion={}", sign());
    assert_eq!(
        refusal(&app.api.form(&in_uri, grant[1..].to_owned()).await),
        (400, "invalid_request")
    );
    let twice = format!("{}&client_assertion=x", with_assertion(&sign(), grant));
    assert_eq!(refusal(&app.api.form("/oauth2/token", twice).await), (400, "invalid_request"));
    let another = app.client("connections:read").await.id;
    assert_eq!(refusal(&app.api.assert_as(&another, &sign()).await), (401, "invalid_client"));
    let body = json!({ "grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": sign() });
    let by_json = app.api.request(Method::POST, "/oauth2/token").json(&body);
    assert_eq!(app.api.send(by_json).await.status, 200);
}

#[tokio::test]
async fn wrong_assertions_have_to_wait_and_a_right_one_never_does() {
    let app = TestApp::spawn().await;
    let (key, other) = (Keypair::new(), Keypair::new());
    let id = app.keyed_client(only(&key)).await;
    let wrong = || other.sign(&json!({}), &app.claims(&id, json!({})));
    for _ in 0..10 {
        assert_eq!(app.api.assert(&wrong()).await.status, 401);
    }
    let answer = app.api.assert(&wrong()).await;
    assert_eq!(refusal(&answer), (429, "invalid_client"));
    assert!(answer.header("retry-after").parse::<u64>().is_ok());
    assert_eq!(
        app.api.assert(&key.sign(&json!({}), &app.claims(&id, json!({})))).await.status,
        200
    );
}

#[tokio::test]
async fn a_disabled_client_and_withdrawn_keys_end_at_once() {
    let app = TestApp::spawn().await;
    let (key, next) = (Keypair::new(), Keypair::new());
    let id = app.keyed_client(only(&key)).await;
    let by = |key: &Keypair| key.sign(&json!({}), &app.claims(&id, json!({})));
    assert_eq!(app.api.assert(&by(&key)).await.status, 200);
    assert_eq!(app.change_client(&id, &only(&next)).await.status, 200);
    app.refresh_directories().await;
    assert_eq!(refusal(&app.api.assert(&by(&key)).await), (401, "invalid_client"));
    assert_eq!(app.api.assert(&by(&next)).await.status, 200);
    assert_eq!(app.change_client(&id, &json!({ "disabled": true })).await.status, 200);
    app.refresh_directories().await;
    assert_eq!(refusal(&app.api.assert(&by(&next)).await), (401, "invalid_client"));
}

#[tokio::test]
async fn a_key_that_was_registered_a_moment_ago_is_accepted_at_every_replica() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let (key, next) = (Keypair::new(), Keypair::new());
    let id = app.keyed_client(only(&key)).await;
    let by = |key: &Keypair| key.sign(&json!({}), &app.claims(&id, json!({})));
    assert_eq!(replica.assert(&by(&key)).await.status, 200, "a client that it does not know yet");
    assert_eq!(app.change_client(&id, &only(&next)).await.status, 200);
    assert_eq!(replica.assert(&by(&next)).await.status, 200, "a key that it does not know yet");
}

#[tokio::test]
async fn keys_that_cannot_be_registered_are_refused_by_field() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let rsa = Keypair::of("RS256");
    let with = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let weak = with(&rsa.jwk, "n", json!(base64([0xc1_u8; 128])));
    let url = "https://keys.example.com/jwks";
    let workload = |issuer: &str, audience: &str, subject: &str| json!({ "workload": { "issuer": issuer, "audience": audience, "subject": subject } });
    for (members, field) in [
        (set(&[]), "jwks"),
        (json!({ "jwks": { "keys": [1] } }), "jwks"),
        (json!({ "jwks": {} }), "jwks"),
        (set(&[with(&key.jwk, "d", json!("AA"))]), "jwks"),
        (set(&[json!({ "kty": "oct", "k": "AAAA" })]), "jwks"),
        (set(&[weak]), "jwks"),
        (set(&[with(&key.jwk, "crv", json!("secp256k1"))]), "jwks"),
        (set(&[with(&key.jwk, "use", json!("enc"))]), "jwks"),
        (set(&[with(&key.jwk, "alg", json!("HS256"))]), "jwks"),
        (json!({ "jwks": { "keys": [key.jwk] }, "jwksURI": url }), "jwksURI"),
        (json!({ "jwksURI": "http://keys.example.com/jwks" }), "jwksURI"),
        (json!({ "jwksURI": "https://127.0.0.1/jwks" }), "jwksURI"),
        (json!({ "jwksURI": "https://u:p@keys.example.com/jwks" }), "jwksURI"),
        (json!({ "jwksURI": "" }), "jwksURI"),
        (workload("", "a", "s"), "workload.issuer"),
        (workload("https://issuer.example.com", "", "s"), "workload.audience"),
        (workload("https://issuer.example.com", "a", ""), "workload.subject"),
        (workload("https://issuer.example.com", "a", " "), "workload.subject"),
        (workload("http://issuer.example.com", "a", "s"), "workload.issuer"),
    ] {
        let answer = app.create_client(members.clone()).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{members}");
        assert_eq!(answer.json["field"], field, "{members}");
    }
    for missing in [json!({ "issuer": "https://a.example" }), json!({}), json!(null), json!("x")] {
        let answer = app.create_client(json!({ "workload": missing })).await;
        let made = missing.is_null();
        assert_eq!(answer.status, if made { 201 } else { 400 }, "{missing}");
    }
    let private = app.create_client(set(&[with(&key.jwk, "d", json!("canary"))])).await;
    assert!(!private.text.contains("canary"), "a private key is not repeated");
}

#[tokio::test]
async fn what_changes_is_shown_and_recorded() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let id = app.client("connections:read").await.id;
    let workload =
        json!({ "issuer": "https://issuer.example.com", "audience": "a", "subject": "s" });
    let audit = async |action: &str| {
        let events = app.database.audit().await;
        events.iter().filter(|event| **event == format!("{action} ok")).count()
    };
    let changed = app.change_client(&id, &set(&[key.named("k")])).await;
    assert_eq!(changed.json["jwks"]["keys"][0], key.named("k"));
    assert_eq!(audit("client.keys_changed").await, 1);
    app.change_client(&id, &set(&[key.named("k")])).await;
    assert_eq!(audit("client.keys_changed").await, 1, "nothing changed");
    let changed = app.change_client(&id, &json!({ "jwksURI": "https://a.example/jwks" })).await;
    assert_eq!(
        (&changed.json["jwks"], changed.json["jwksURI"].as_str()),
        (&Value::Null, Some("https://a.example/jwks"))
    );
    let changed = app.change_client(&id, &json!({ "workload": workload, "dpopBound": true })).await;
    assert_eq!((&changed.json["workload"], &changed.json["dpopBound"]), (&workload, &json!(true)));
    assert_eq!(
        (audit("client.workload_changed").await, audit("client.dpop_changed").await),
        (1, 1)
    );
    let token = app.token().await;
    let shown = app.api.get(&token, &format!("{PATH}/{id}")).await.json;
    let listed = app.api.get(&token, PATH).await.json["clients"][0].clone();
    for client in [&shown, &listed] {
        assert_eq!((&client["workload"], &client["dpopBound"]), (&workload, &json!(true)));
        assert_eq!(client["jwksURI"], "https://a.example/jwks");
    }
    let nothing = json!({ "jwksURI": null, "workload": null, "dpopBound": false });
    let changed = app.change_client(&id, &nothing).await.json;
    assert_eq!((&changed["jwksURI"], &changed["workload"]), (&Value::Null, &Value::Null));
    assert_eq!(audit("client.keys_changed").await, 3);
    assert_eq!(app.change_client(&id, &json!({})).await.problem(), (400, "invalid_request"));
    let bootstrap = app.change_client("bootstrap", &only(&key)).await;
    assert_eq!(bootstrap.problem(), (400, "invalid_request"), "it follows the environment");
}

#[tokio::test]
async fn nobody_becomes_a_client_that_may_do_more_by_giving_it_keys() {
    let app = TestApp::spawn().await;
    let narrow = app.client("admin connections:read").await.token(&app.api).await;
    let powerful = app.client("admin tokens:read").await.id;
    let key = Keypair::new();
    let workload =
        json!({ "issuer": "https://issuer.example.com", "audience": "a", "subject": "s" });
    for change in [
        only(&key),
        json!({ "workload": workload }),
        json!({ "dpopBound": false }),
        json!({ "disabled": true, "jwks": { "keys": [key.jwk] } }),
    ] {
        let path = format!("{PATH}/{powerful}");
        let request = app.api.request(Method::PATCH, &path).bearer_auth(&narrow).json(&change);
        assert_eq!(app.api.send(request).await.problem(), (403, "insufficient_scope"), "{change}");
    }
    let grant = json!({ "name": "x", "scopes": ["tokens:read"], "jwks": { "keys": [key.jwk] } });
    assert_eq!(app.api.post(&narrow, PATH, &grant).await.problem(), (403, "insufficient_scope"));
    let stranger = app.token_of_another_app().await;
    let path = format!("{PATH}/{powerful}");
    let request = app.api.request(Method::PATCH, &path).bearer_auth(&stranger).json(&only(&key));
    assert_eq!(app.api.send(request).await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn published_keys_are_fetched_once_for_many_requests() {
    let app = spawn().await;
    let key = Keypair::new();
    let issuer = Issuer::spawn(&[key.named("k")]);
    let id = app.keyed_client(json!({ "jwksURI": issuer.jwks() })).await;
    let sign = || key.sign(&json!({ "kid": "k" }), &app.claims(&id, json!({})));
    let assertions: Vec<_> = (0..16).map(|_| sign()).collect();
    let answers = assertions.iter().map(|assertion| app.api.assert(assertion));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(issuer.asked("/jwks"), 1);
    app.turn_clock(Duration::from_secs(301)).await;
    assert_eq!(app.api.assert(&sign()).await.status, 200);
    assert_eq!(issuer.asked("/jwks"), 2, "they count for five minutes");
}

#[tokio::test]
async fn a_rotated_key_is_accepted_soon_and_the_old_one_ends() {
    let app = spawn().await;
    let (old, new) = (Keypair::new(), Keypair::new());
    let issuer = Issuer::spawn(&[old.named("old")]);
    let id = app.keyed_client(json!({ "jwksURI": issuer.jwks() })).await;
    let by =
        |key: &Keypair, kid: &str| key.sign(&json!({ "kid": kid }), &app.claims(&id, json!({})));
    assert_eq!(app.api.assert(&by(&old, "old")).await.status, 200);
    issuer.publish(&[new.named("new")]);
    app.turn_clock(Duration::from_secs(31)).await;
    assert_eq!(app.api.assert(&by(&new, "new")).await.status, 200, "an unknown key is looked for");
    assert_eq!(issuer.asked("/jwks"), 2);
    assert_eq!(refusal(&app.api.assert(&by(&old, "old")).await), (401, "invalid_client"));
}

#[tokio::test]
async fn forged_ids_of_keys_make_one_request_in_half_a_minute() {
    let app = spawn().await;
    let (key, other) = (Keypair::new(), Keypair::new());
    let issuer = Issuer::spawn(&[key.named("k")]);
    let id = app.keyed_client(json!({ "jwksURI": issuer.jwks() })).await;
    let forged =
        |kid: usize| other.sign(&json!({ "kid": kid.to_string() }), &app.claims(&id, json!({})));
    for n in 0..8 {
        assert_eq!(refusal(&app.api.assert(&forged(n)).await), (401, "invalid_client"));
    }
    assert_eq!(issuer.asked("/jwks"), 1, "the first look brought all that there is");
    app.turn_clock(MINUTE).await;
    for n in 0..8 {
        assert_eq!(refusal(&app.api.assert(&forged(n)).await), (401, "invalid_client"));
    }
    assert_eq!(issuer.asked("/jwks"), 2);
    let unknown = other.sign(&json!({ "kid": "k" }), &app.claims("nobody", json!({})));
    app.turn_clock(MINUTE).await;
    assert_eq!(refusal(&app.api.assert(&unknown).await), (401, "invalid_client"));
    assert_eq!(issuer.asked("/jwks"), 2, "nothing is fetched for a client that there is not");
}

#[tokio::test]
async fn a_place_that_fails_is_left_alone_for_a_while_and_its_keys_count_for_an_hour() {
    let app = spawn().await;
    let key = Keypair::new();
    let issuer = Issuer::spawn(&[key.named("k")]);
    let id = app.keyed_client(json!({ "jwksURI": issuer.jwks() })).await;
    let sign = || key.sign(&json!({ "kid": "k" }), &app.claims(&id, json!({})));
    assert_eq!(app.api.assert(&sign()).await.status, 200);
    issuer.mood(Mood::Status(500));
    app.turn_clock(Duration::from_secs(600)).await;
    for _ in 0..3 {
        assert_eq!(app.api.assert(&sign()).await.status, 200, "stale, and better than an outage");
    }
    assert_eq!(issuer.asked("/jwks"), 2);
    app.turn_clock(Duration::from_secs(3600)).await;
    for _ in 0..3 {
        let answer = app.api.assert(&sign()).await;
        assert_eq!(refusal(&answer), (503, "temporarily_unavailable"), "{}", answer.text);
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(issuer.asked("/jwks"), 3);
    issuer.mood(Mood::Well);
    app.turn_clock(Duration::from_secs(11)).await;
    assert_eq!(app.api.assert(&sign()).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_is_none() {
    let app = spawn().await;
    let key = Keypair::new();
    let issuer = Issuer::spawn(&[key.named("k")]);
    for (mood, path) in [
        (Mood::Huge, "/jwks"),
        (Mood::Status(404), "/jwks"),
        (Mood::Status(302), "/jwks"),
        (Mood::Well, "/.well-known/openid-configuration"),
    ] {
        issuer.mood(mood);
        // The query makes it another place.
        let uri = format!("{}{path}?{mood:?}", issuer.url).replace(['(', ')'], "");
        let id = app.keyed_client(json!({ "jwksURI": uri })).await;
        let assertion = key.sign(&json!({ "kid": "k" }), &app.claims(&id, json!({})));
        assert_eq!(
            refusal(&app.api.assert(&assertion).await),
            (503, "temporarily_unavailable"),
            "{mood:?}"
        );
    }
}

#[tokio::test]
async fn keys_that_never_come_delay_nobody_else() {
    let app = spawn().await;
    let key = Keypair::new();
    let issuer = Issuer::spawn(&[]);
    issuer.mood(Mood::Hang);
    let id = app.keyed_client(json!({ "jwksURI": issuer.jwks() })).await;
    let other = app.client("connections:read").await;
    let hanging: Vec<_> = (0..200)
        .map(|_| {
            let assertion = key.sign(&json!({ "kid": "k" }), &app.claims(&id, json!({})));
            let api = app.api.clone();
            tokio::spawn(async move { api.assert(&assertion).await })
        })
        .collect();
    while issuer.asked("/jwks") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(other.ask(&app.api, None).await.status, 200);
    for answer in futures_util::future::join_all(hanging).await {
        assert_eq!(refusal(&answer.unwrap()), (503, "temporarily_unavailable"));
    }
    assert_eq!(issuer.asked("/jwks"), 1);
}

#[tokio::test]
async fn keys_are_not_fetched_from_an_address_that_is_not_public() {
    let app = TestApp::spawn().await;
    let key = Keypair::new();
    let issuer = Issuer::spawn(&[key.named("k")]);
    let port = issuer.url.rsplit(':').next().unwrap();
    let id = app.keyed_client(json!({ "jwksURI": format!("https://localhost:{port}/jwks") })).await;
    let assertion = key.sign(&json!({ "kid": "k" }), &app.claims(&id, json!({})));
    assert_eq!(refusal(&app.api.assert(&assertion).await), (503, "temporarily_unavailable"));
    assert_eq!(issuer.asked("/jwks"), 0);
}

#[tokio::test]
async fn the_command_line_registers_keys_as_the_api_does() {
    let app = TestApp::spawn().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = Keypair::new();
    std::fs::write(&file, json!({ "keys": [key.jwk] }).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = command(&app, &[]);
        command.args(["--output", "json", "clients"]).args(arguments);
        command.stderr(std::process::Stdio::piped());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.success(), json)
    };
    let scope = ["--scope", "connections:read"];
    let (done, made) =
        run(&[&["create", "ci", "--jwks-file", file], scope.as_slice()].concat()).await;
    assert!(done && made["clientSecret"].is_null(), "{made}");
    let id = made["clientID"].as_str().unwrap();
    app.refresh_directories().await;
    assert_eq!(app.api.assert(&key.sign(&json!({}), &app.claims(id, json!({})))).await.status, 200);
    let workload = ["--workload-issuer", "https://issuer.example.com", "--workload-audience", "a"];
    let subject = ["--workload-subject", "s", "--dpop-bound", "true"];
    let (done, set) =
        run(&[&["set", id, "--no-keys"], workload.as_slice(), &subject].concat()).await;
    assert!(done, "{set}");
    assert_eq!((&set["jwks"], &set["dpopBound"]), (&Value::Null, &json!(true)));
    assert_eq!(set["workload"]["subject"], "s");
    assert!(!run(&[&["set", id], workload.as_slice()].concat()).await.0, "a workload is whole");
    assert!(!run(&["set", id]).await.0, "nothing to do");
    assert!(!run(&["set", id, "--jwks-uri", "http://a.example/"]).await.0);
    let (done, set) = run(&["set", id, "--no-workload", "--dpop-bound", "false"]).await;
    assert!(done && set["workload"].is_null() && set["dpopBound"] == false, "{set}");
}
