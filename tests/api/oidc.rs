//! Operators who sign in at an OpenID provider, and what an attacker tries there.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use strongroom::common::actor::Actor;
use strongroom::operators::{self, Role};

use crate::support::{Answer, Browser, CLIENT, OpenId, SECRET, TestApp, add_operator, encoded};

const ROLES: &str = "groups:support=operator,groups:bank-admins=admin,groups:audit=auditor";

async fn app(provider: &OpenId) -> TestApp {
    TestApp::builder()
        .set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0")
        .set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")
        .set("STRONGROOM_OIDC_ISSUER", &provider.url)
        .set("STRONGROOM_OIDC_CLIENT_ID", CLIENT)
        .set("STRONGROOM_OIDC_CLIENT_SECRET", SECRET)
        .set("STRONGROOM_OIDC_ROLES", ROLES)
        .spawn()
        .await
}

/// Sends the browser to the provider, where the person signs in; returns what it brings back.
async fn begin(browser: &Browser, provider: &OpenId) -> HashMap<String, String> {
    let sent = browser.get("/sign-in/oidc?to=%2Fpasskeys").await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    provider.authorize(sent.header("location"))
}

async fn call_back(browser: &Browser, callback: &HashMap<String, String>) -> Answer {
    let pairs: Vec<_> = callback.iter().map(|(name, value)| (&**name, &**value)).collect();
    browser.get(&format!("/sign-in/oidc/callback?{}", encoded(&pairs))).await
}

async fn sign_in(app: &TestApp, provider: &OpenId) -> (Browser, Answer) {
    let browser = Browser::new(app);
    let callback = begin(&browser, provider).await;
    let answer = call_back(&browser, &callback).await;
    (browser, answer)
}

#[tokio::test]
async fn an_operator_signs_in_at_the_provider_with_the_role_of_their_claims() {
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        let provider = OpenId::spawn(algorithm);
        let app = app(&provider).await;
        let (browser, answer) = sign_in(&app, &provider).await;
        let location = answer.header("location");
        assert_eq!((answer.status, location), (303, "/passkeys"), "{}", answer.text);
        assert!(browser.get("/passkeys").await.text.contains("ana, operator"));
        assert!(browser.get("/sign-in").await.text.contains("Sign in with your organisation"));
    }
}

#[tokio::test]
async fn the_provider_decides_the_role_at_each_sign_in_and_the_highest_counts() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    sign_in(&app, &provider).await;
    provider.say(json!({ "groups": ["audit", "bank-admins"], "preferred_username": "renamed" }));
    let (browser, _) = sign_in(&app, &provider).await;
    assert!(browser.get("/passkeys").await.text.contains("ana, admin"));
    provider.say(json!({ "groups": ["staff"] }));
    let (browser, refused) = sign_in(&app, &provider).await;
    assert_eq!((refused.status, browser.is_signed_in()), (403, false));
    provider.say(json!({ "groups": "support" }));
    let (browser, _) = sign_in(&app, &provider).await;
    assert!(browser.get("/passkeys").await.text.contains("ana, operator"));
}

#[tokio::test]
async fn a_name_alone_makes_nobody_an_operator_who_is_here_already() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    add_operator(&app, "ana", Role::Admin).await;
    let (browser, refused) = sign_in(&app, &provider).await;
    assert_eq!((refused.status, browser.is_signed_in()), (403, false), "{}", refused.text);
    provider.say(json!({ "preferred_username": "bea" }));
    assert_eq!(sign_in(&app, &provider).await.1.status, 303);
    // Another subject of the same name is somebody else.
    provider.say(json!({ "preferred_username": "bea", "sub": "other" }));
    assert_eq!(sign_in(&app, &provider).await.1.status, 403);
}

#[tokio::test]
async fn a_disabled_operator_is_refused_whatever_the_provider_says() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    sign_in(&app, &provider).await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    operators::disable(&mut conn, &Actor::operator(), &"ana".parse().unwrap()).await.unwrap();
    let (browser, refused) = sign_in(&app, &provider).await;
    assert_eq!((refused.status, browser.is_signed_in()), (403, false));
}

#[tokio::test]
async fn an_id_token_with_a_wrong_claim_is_refused() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    let now = app.clock.unix_seconds();
    for wrong in [
        json!({ "iss": "https://evil.example" }),
        json!({ "aud": "another" }),
        json!({ "aud": ["another", "third"] }),
        json!({ "aud": [CLIENT, "another"] }),
        json!({ "aud": [CLIENT, "another"], "azp": "another" }),
        json!({ "azp": "another" }),
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "exp": now - 1 }),
        json!({ "exp": null }),
        json!({ "iat": now + 600 }),
        json!({ "nbf": now + 600 }),
        json!({ "auth_time": now - 3600 }),
        json!({ "auth_time": null }),
        json!({ "sub": "" }),
        json!({ "sub": null }),
    ] {
        provider.say(wrong.clone());
        let (browser, refused) = sign_in(&app, &provider).await;
        assert_eq!((refused.status, browser.is_signed_in()), (403, false), "{wrong}");
    }
    provider.say(json!({ "aud": [CLIENT, "another"], "azp": CLIENT }));
    assert_eq!(sign_in(&app, &provider).await.1.status, 303);
}

#[tokio::test]
async fn an_id_token_that_no_key_of_the_provider_signed_is_refused() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    // `none`; and HMAC, for which a public key would serve as the secret.
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"None","typ":"JWT"}"#] {
        let header = crate::support::base64(header);
        for signature in ["", "AAAA"] {
            provider.answer_instead(Some(&format!("{header}.{{claims}}.{signature}")));
            let (browser, refused) = sign_in(&app, &provider).await;
            assert_eq!((refused.status, browser.is_signed_in()), (403, false), "{header}");
        }
    }
    provider.answer_instead(None);
    provider.sign_with_another_key("ES256");
    let (browser, refused) = sign_in(&app, &provider).await;
    assert_eq!((refused.status, browser.is_signed_in()), (403, false));
}

#[tokio::test]
async fn a_callback_counts_once_and_only_in_the_browser_that_was_sent_away() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    let (browser, victim) = (Browser::new(&app), Browser::new(&app));
    let callback = begin(&browser, &provider).await;
    begin(&victim, &provider).await;
    let bare = Browser::new(&app);
    for other in [&victim, &bare] {
        assert_eq!(call_back(other, &callback).await.status, 403);
        assert!(!other.is_signed_in());
    }
    let binding = browser.cookie();
    assert_eq!(call_back(&browser, &callback).await.status, 303);
    // The same state once more, with a code that is new.
    let replayed = Browser::new(&app);
    replayed.set_cookie(binding);
    let new = begin(&Browser::new(&app), &provider).await;
    let mixed = HashMap::from([
        ("state".to_owned(), callback["state"].clone()),
        ("code".to_owned(), new["code"].clone()),
    ]);
    assert_eq!(call_back(&replayed, &mixed).await.status, 403);
    assert!(!replayed.is_signed_in());
}

#[tokio::test]
async fn a_code_of_another_sign_in_does_not_pass_its_proof_key() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    let stolen = begin(&Browser::new(&app), &provider).await["code"].clone();
    let browser = Browser::new(&app);
    let mut callback = begin(&browser, &provider).await;
    callback.insert("code".to_owned(), stolen);
    let refused = call_back(&browser, &callback).await;
    assert_eq!((refused.status, browser.is_signed_in()), (502, false));
}

#[tokio::test]
async fn a_callback_of_another_issuer_an_old_one_and_an_error_sign_nobody_in() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    let browser = Browser::new(&app);
    let mut callback = begin(&browser, &provider).await;
    callback.insert("iss".to_owned(), "https://evil.example".to_owned());
    assert_eq!(call_back(&browser, &callback).await.status, 403);
    let mut callback = begin(&browser, &provider).await;
    callback.remove("code");
    callback.insert("error".to_owned(), "access_denied".to_owned());
    assert_eq!(call_back(&browser, &callback).await.status, 403);
    let callback = begin(&browser, &provider).await;
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    assert_eq!(call_back(&browser, &callback).await.status, 403);
    assert!(!browser.is_signed_in());
}

#[tokio::test]
async fn a_provider_that_calls_itself_another_is_not_asked_further() {
    let provider = OpenId::spawn("ES256");
    let app = app(&provider).await;
    provider.call_itself("https://evil.example");
    assert_eq!(Browser::new(&app).get("/sign-in/oidc").await.status, 502);
}

#[tokio::test]
async fn without_a_provider_there_is_no_such_sign_in() {
    let app = TestApp::with_console().await;
    let browser = Browser::new(&app);
    assert_eq!(browser.get("/sign-in/oidc").await.status, 404);
    assert_eq!(browser.get("/sign-in/oidc/callback?code=x&state=y").await.status, 404);
    assert!(!browser.get("/sign-in").await.text.contains("your organisation"));
}
