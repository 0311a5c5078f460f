//! What the server says of itself: RFC 8414 metadata and the key set.

use serde_json::{Value, json};

use crate::support::TestApp;

async fn get(app: &TestApp, path: &str) -> crate::support::Answer {
    app.api.send(app.api.request(reqwest::Method::GET, path)).await
}

#[tokio::test]
async fn the_metadata_is_the_servers_own_under_its_public_url() {
    let app = TestApp::spawn().await;
    let answer = get(&app, "/.well-known/oauth-authorization-server").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let told = &answer.json;
    let issuer = told["issuer"].as_str().unwrap();
    assert_eq!(issuer, "http://strongroom.test");
    assert!(!issuer.contains(['?', '#']), "no query, no fragment (RFC 8414 §2)");
    let at = |path: &str| json!(format!("{issuer}{path}"));
    assert_eq!(told["token_endpoint"], at("/oauth2/token"));
    assert_eq!(told["revocation_endpoint"], at("/oauth2/revoke"));
    assert_eq!(told["introspection_endpoint"], at("/oauth2/introspect"));
    assert_eq!(told["jwks_uri"], at("/.well-known/jwks.json"));
    assert_eq!(told["grant_types_supported"], json!(["client_credentials"]));
    assert_eq!(told["response_types_supported"], json!([]));
    let methods = json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]);
    let algorithms = &told["dpop_signing_alg_values_supported"];
    assert!(algorithms.as_array().unwrap().contains(&json!("ES256")));
    for algorithm in algorithms.as_array().unwrap() {
        let name = algorithm.as_str().unwrap();
        assert!(name != "none" && !name.starts_with("HS"), "signatures alone: {name}");
    }
    for endpoint in ["token", "revocation", "introspection"] {
        assert_eq!(told[format!("{endpoint}_endpoint_auth_methods_supported")], methods);
        let named = format!("{endpoint}_endpoint_auth_signing_alg_values_supported");
        assert_eq!(&told[named], algorithms, "required beside private_key_jwt (RFC 8414 §2)");
    }
    assert!(told["scopes_supported"].as_array().unwrap().contains(&json!("tokens:read")));
}

#[tokio::test]
async fn every_endpoint_of_the_metadata_is_there() {
    let app = TestApp::spawn().await;
    let told = get(&app, "/.well-known/oauth-authorization-server").await.json;
    for (name, url) in told.as_object().unwrap() {
        let Some(path) = url.as_str().and_then(|url| url.strip_prefix("http://strongroom.test"))
        else {
            continue;
        };
        if !path.is_empty() {
            assert_ne!(get(&app, path).await.status, 404, "{name}");
        }
    }
}

#[tokio::test]
async fn the_key_set_verifies_tokens_and_holds_nothing_private() {
    let app = TestApp::spawn().await;
    let answer = get(&app, "/.well-known/jwks.json").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "public, max-age=300"));
    let keys = answer.json["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let names: Vec<_> = keys[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["use", "alg", "kid", "crv", "kty", "x", "y"]);
    let token = app.token().await;
    let jwk = serde_json::from_value(keys[0].clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_issuer(&["http://strongroom.test"]);
    validation.set_audience(&["http://strongroom.test"]);
    let read = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
    assert_eq!(read.header.kid.as_deref(), keys[0]["kid"].as_str());
}
