//! DPoP (RFC 9449): tokens that are bound to a key, and the proofs of it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Api, Keypair, OauthClient, PUBLIC_URL, TestApp, ath, base64, refusal,
};

const CONNECTIONS: &str = "/v1/connections";

/// What the token endpoint answers to a client that sends these proofs.
async fn ask(api: &Api, client: &OauthClient, proofs: &[&str]) -> Answer {
    let mut request = api
        .request(Method::POST, "/oauth2/token")
        .basic_auth(&client.id, Some(&client.secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    for proof in proofs {
        request = request.header("dpop", *proof);
    }
    api.send(request).await
}

/// A token that is bound to this key.
async fn bound(app: &TestApp, client: &OauthClient, key: &Keypair) -> String {
    let proof = app.proof(key, "POST", "/oauth2/token", json!({}));
    let answer = ask(&app.api, client, &[&proof]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["token_type"], "DPoP");
    answer.json["access_token"].as_str().unwrap().to_owned()
}

/// A request for the connections, by this scheme and with these proofs.
async fn get(api: &Api, scheme: &str, token: &str, proofs: &[&str]) -> Answer {
    let mut request = api.request(Method::GET, CONNECTIONS);
    request = request.header("authorization", format!("{scheme} {token}"));
    for proof in proofs {
        request = request.header("dpop", *proof);
    }
    api.send(request).await
}

fn with_ath(token: &str, mut changes: Value) -> Value {
    changes.as_object_mut().unwrap().entry("ath").or_insert_with(|| ath(token));
    changes
}

fn challenge<'a>(answer: &'a Answer, error: &str) -> &'a str {
    assert_eq!(answer.problem(), (401, "unauthorized"), "{}", answer.text);
    let header = answer.header("www-authenticate");
    assert!(header.starts_with("DPoP ") && header.contains("algs=\"ES256 "), "{header}");
    assert!(header.contains(&format!("error=\"{error}\"")), "{header}");
    header
}

#[tokio::test]
async fn a_bound_token_works_with_a_proof_of_its_key() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read").await;
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256", "PS256"] {
        let key = Keypair::of(algorithm);
        let token = bound(&app, &client, &key).await;
        for scheme in ["DPoP", "dpop"] {
            let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
            let answer = get(&app.api, scheme, &token, &[&proof]).await;
            assert_eq!(answer.status, 200, "{algorithm}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn introspection_and_the_token_itself_tell_of_the_key() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let token = bound(&app, &client, &key).await;
    let members = ["crv", "kty", "x", "y"];
    let members = members.map(|name| format!("\"{name}\":{}", key.jwk[name])).join(",");
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{{{members}}}").as_bytes());
    let told = client.introspect(&app.api, &token).await.json;
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(told["cnf"], json!({ "jkt": base64(digest) }));
    let unbound = client.introspect(&app.api, &client.token(&app.api).await).await.json;
    assert_eq!((&unbound["token_type"], unbound.get("cnf")), (&json!("Bearer"), None));
    assert_eq!(client.revoke(&app.api, &token).await.status, 200);
    assert_eq!(client.introspect(&app.api, &token).await.json, json!({ "active": false }));
}

#[tokio::test]
async fn a_bound_token_is_no_bearer_token_and_a_bearer_token_is_not_bound() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let token = bound(&app, &client, &key).await;
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
    challenge(&get(&app.api, "Bearer", &token, &[]).await, "invalid_token");
    challenge(&get(&app.api, "Bearer", &token, &[&proof]).await, "invalid_token");
    let unbound = client.token(&app.api).await;
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&unbound, json!({})));
    challenge(&get(&app.api, "DPoP", &unbound, &[&proof]).await, "invalid_token");
    assert_eq!(get(&app.api, "Bearer", &unbound, &[]).await.status, 200);
    challenge(&get(&app.api, "DPoP", "x", &[&proof]).await, "invalid_token");
}

#[tokio::test]
async fn a_proof_that_does_not_hold_is_refused() {
    let app = TestApp::spawn().await;
    let (client, key, other) =
        (app.client("connections:read").await, Keypair::new(), Keypair::new());
    let token = bound(&app, &client, &key).await;
    let now = app.clock.unix_seconds();
    let proof = |changes: Value| app.proof(&key, "GET", CONNECTIONS, with_ath(&token, changes));
    for changes in [
        json!({ "jti": null }),
        json!({ "jti": "" }),
        json!({ "jti": "x".repeat(513) }),
        json!({ "jti": 1 }),
        json!({ "htm": null }),
        json!({ "htm": "POST" }),
        json!({ "htm": "get" }),
        json!({ "htu": null }),
        json!({ "htu": format!("{PUBLIC_URL}/v1/connect-sessions") }),
        json!({ "htu": format!("{PUBLIC_URL}/v1/connections/") }),
        json!({ "htu": "https://strongroom.test/v1/connections" }),
        json!({ "htu": "http://elsewhere.test/v1/connections" }),
        json!({ "htu": CONNECTIONS }),
        json!({ "iat": null }),
        json!({ "iat": now - 120 }),
        json!({ "iat": now + 120 }),
        json!({ "iat": now.to_string() }),
        json!({ "ath": null }),
        json!({ "ath": ath("another") }),
    ] {
        let answer = get(&app.api, "DPoP", &token, &[&proof(changes.clone())]).await;
        challenge(&answer, "invalid_dpop_proof");
        assert!(!answer.text.contains("eyJ"), "{changes}: nothing of it is repeated");
    }
    let claims = json!({ "jti": "a", "htm": "GET", "htu": format!("{PUBLIC_URL}{CONNECTIONS}"), "iat": now, "ath": ath(&token) });
    let mut private = key.jwk.clone();
    private["d"] = json!("AAAA");
    let weak = json!({ "kty": "RSA", "e": "AQAB", "n": base64([0xc1_u8; 128]) });
    for header in [
        json!({ "typ": "JWT", "jwk": key.jwk }),
        json!({ "jwk": key.jwk }),
        json!({ "typ": "dpop+jwt" }),
        json!({ "typ": "dpop+jwt", "jwk": private }),
        json!({ "typ": "dpop+jwt", "jwk": other.jwk }),
        json!({ "typ": "dpop+jwt", "jwk": weak, "alg": "RS256" }),
        json!({ "typ": "dpop+jwt", "jwk": { "kty": "oct", "k": "AAAA" }, "alg": "HS256" }),
        json!({ "typ": "dpop+jwt", "jwk": key.jwk, "alg": "none" }),
        json!({ "typ": "dpop+jwt", "jwk": key.jwk, "alg": "ES384" }),
        json!({ "typ": "dpop+jwt", "jwk": key.jwk, "crit": ["exp"] }),
    ] {
        let answer = get(&app.api, "DPoP", &token, &[&key.sign(&header, &claims)]).await;
        challenge(&answer, "invalid_dpop_proof");
    }
    for proofs in [&[][..], &["x"], &["a.b.c"]] {
        challenge(&get(&app.api, "DPoP", &token, proofs).await, "invalid_dpop_proof");
    }
    let of_another = app.proof(&other, "GET", CONNECTIONS, with_ath(&token, json!({})));
    challenge(&get(&app.api, "DPoP", &token, &[&of_another]).await, "invalid_token");
    assert_eq!(get(&app.api, "DPoP", &token, &[&proof(json!({}))]).await.status, 200);
}

#[tokio::test]
async fn a_proof_counts_once_at_any_replica() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    app.refresh_directories().await;
    let token = bound(&app, &client, &key).await;
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
    assert_eq!(get(&app.api, "DPoP", &token, &[&proof]).await.status, 200);
    for api in [&replica, &app.api] {
        let header =
            challenge(&get(api, "DPoP", &token, &[&proof]).await, "invalid_dpop_proof").to_owned();
        assert!(header.contains("used before"), "{header}");
    }
    let proof = app.proof(&key, "POST", "/oauth2/token", json!({}));
    assert_eq!(ask(&app.api, &client, &[&proof]).await.status, 200);
    assert_eq!(refusal(&ask(&replica, &client, &[&proof]).await), (400, "invalid_dpop_proof"));
}

#[tokio::test]
async fn a_proof_that_does_not_hold_leaves_no_row() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let token = bound(&app, &client, &key).await;
    let before = app.database.value("SELECT count(*) FROM used_jtis").await;
    let other = app.proof(&Keypair::new(), "GET", CONNECTIONS, with_ath(&token, json!({})));
    assert_eq!(get(&app.api, "DPoP", &token, &[&other]).await.status, 401);
    let of_no_token = app.proof(&key, "GET", CONNECTIONS, with_ath("x", json!({})));
    assert_eq!(get(&app.api, "DPoP", "x", &[&of_no_token]).await.status, 401);
    let proof = app.proof(&key, "POST", "/oauth2/token", json!({}));
    let wrong = OauthClient { id: client.id.clone(), secret: "wrong".to_owned() };
    assert_eq!(ask(&app.api, &wrong, &[&proof]).await.status, 401);
    assert_eq!(app.database.value("SELECT count(*) FROM used_jtis").await, before);
}

#[tokio::test]
async fn two_proofs_are_none() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let at_the_token = || app.proof(&key, "POST", "/oauth2/token", json!({}));
    let answer = ask(&app.api, &client, &[&at_the_token(), &at_the_token()]).await;
    assert_eq!(refusal(&answer), (400, "invalid_dpop_proof"));
    let token = bound(&app, &client, &key).await;
    let proof = || app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
    let answer = get(&app.api, "DPoP", &token, &[&proof(), &proof()]).await;
    challenge(&answer, "invalid_dpop_proof");
}

#[tokio::test]
async fn the_token_endpoint_refuses_a_proof_that_does_not_hold() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let now = app.clock.unix_seconds();
    for changes in [
        json!({ "htm": "GET" }),
        json!({ "htu": format!("{PUBLIC_URL}{CONNECTIONS}") }),
        json!({ "htu": format!("{PUBLIC_URL}/oauth2/token/x") }),
        json!({ "iat": now - 120 }),
        json!({ "jti": null }),
    ] {
        let proof = app.proof(&key, "POST", "/oauth2/token", changes.clone());
        let answer = ask(&app.api, &client, &[&proof]).await;
        assert_eq!(refusal(&answer), (400, "invalid_dpop_proof"), "{changes}");
    }
    assert_eq!(refusal(&ask(&app.api, &client, &["x"]).await), (400, "invalid_dpop_proof"));
    let query = json!({ "htu": format!("{PUBLIC_URL}/oauth2/token?a=b#c") });
    let proof = app.proof(&key, "POST", "/oauth2/token", query);
    assert_eq!(ask(&app.api, &client, &[&proof]).await.status, 200);
}

#[tokio::test]
async fn a_client_whose_tokens_are_bound_gets_no_other_and_keeps_no_other() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let unbound = client.token(&app.api).await;
    let changed = app.change_client(&client.id, &json!({ "dpopBound": true })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    app.refresh_directories().await;
    assert_eq!(refusal(&ask(&app.api, &client, &[]).await), (400, "invalid_dpop_proof"));
    assert_eq!(get(&app.api, "Bearer", &unbound, &[]).await.problem(), (401, "unauthorized"));
    assert_eq!(client.introspect(&app.api, &unbound).await.json, json!({ "active": false }));
    let token = bound(&app, &client, &key).await;
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
    assert_eq!(get(&app.api, "DPoP", &token, &[&proof]).await.status, 200);
}

#[tokio::test]
async fn the_url_of_a_proof_is_the_public_one_whatever_the_request_says() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let token = bound(&app, &client, &key).await;
    let send = async |htu: &str| {
        let changes = with_ath(&token, json!({ "htu": htu }));
        let request = app
            .api
            .request(Method::GET, "/v1/connections?limit=1")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", app.proof(&key, "GET", "", changes))
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "https");
        app.api.send(request).await.status
    };
    assert_eq!(send("http://strongroom.test/v1/connections").await, 200);
    assert_eq!(send("http://STRONGROOM.test:80/v1/connections?limit=9#x").await, 200);
    assert_eq!(send("http://evil.example/v1/connections").await, 401);
    assert_eq!(send("https://evil.example/v1/connections").await, 401);
    assert_eq!(send(&app.api.url(CONNECTIONS)).await, 401);
}

#[tokio::test]
async fn connect_sessions_need_no_proof_and_browsers_may_send_one() {
    let app =
        TestApp::builder().set("STRONGROOM_CORS_ORIGINS", "https://app.example").spawn().await;
    let session = app.api.session(&app.token().await, "ada").await;
    assert_eq!(get(&app.api, "Bearer", &session, &[]).await.status, 200);
    let key = Keypair::new();
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&session, json!({})));
    challenge(&get(&app.api, "DPoP", &session, &[&proof]).await, "invalid_token");
    let preflight = app
        .api
        .request(Method::OPTIONS, CONNECTIONS)
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,dpop");
    let answer = app.api.send(preflight).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-headers").to_lowercase().contains("dpop"));
}

#[tokio::test]
async fn a_request_without_credentials_learns_of_both_schemes() {
    let app = TestApp::spawn().await;
    let answer = app.api.send(app.api.request(Method::GET, CONNECTIONS)).await;
    assert_eq!(answer.problem(), (401, "unauthorized"));
    let schemes: Vec<_> = answer
        .headers
        .get_all("www-authenticate")
        .iter()
        .map(|value| value.to_str().unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(schemes, ["Bearer", "DPoP"]);
}

#[tokio::test]
async fn a_proof_lives_for_a_minute() {
    let app = TestApp::spawn().await;
    let (client, key) = (app.client("connections:read").await, Keypair::new());
    let token = bound(&app, &client, &key).await;
    let proof = app.proof(&key, "GET", CONNECTIONS, with_ath(&token, json!({})));
    app.turn_clock(Duration::from_secs(62)).await;
    challenge(&get(&app.api, "DPoP", &token, &[&proof]).await, "invalid_dpop_proof");
}
