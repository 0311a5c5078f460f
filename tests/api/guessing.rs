//! Guessing secrets: a right one is never refused, wrong ones are told alike and then told to wait.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, OauthClient, TestApp};

impl OauthClient {
    fn with_secret(&self, secret: &str) -> Self {
        Self { id: self.id.clone(), secret: secret.to_owned() }
    }
}

fn wait(answer: &Answer) -> u64 {
    assert_eq!((answer.status, &answer.json["error"]), (429, &json!("invalid_client")));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.header("retry-after").parse().unwrap()
}

/// Requests of this test come from here, whatever they say.
fn builder_that_believes_the_tests() -> crate::support::Builder {
    TestApp::builder().set("STRONGROOM_TRUSTED_PROXIES", "127.0.0.0/8")
}

async fn guess(app: &TestApp, client: &OauthClient, from: &str) -> Answer {
    let request = app
        .api
        .request(reqwest::Method::POST, "/oauth2/token")
        .basic_auth(&client.id, Some(&client.secret))
        .header("x-forwarded-for", from)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    app.api.send(request).await
}

#[tokio::test]
async fn ten_wrong_secrets_a_minute_for_a_client_and_a_right_one_is_never_refused() {
    let app = builder_that_believes_the_tests().spawn().await;
    let client = app.client("connections:read").await;
    let wrong = client.with_secret("wrong");
    for n in 0..10 {
        let answer = guess(&app, &wrong, &format!("192.0.2.{n}")).await;
        assert_eq!((answer.status, &answer.json["error"]), (401, &json!("invalid_client")));
        assert!(answer.header("www-authenticate").starts_with("Basic "));
    }
    let seconds = wait(&guess(&app, &wrong, "192.0.2.99").await);
    assert!((1..=60).contains(&seconds), "{seconds}");
    for n in 0..20 {
        assert_eq!(guess(&app, &client, &format!("192.0.2.{n}")).await.status, 200, "it is right");
    }
    let other = OauthClient { id: "somebody".to_owned(), secret: "wrong".to_owned() };
    assert_eq!(guess(&app, &other, "198.51.100.1").await.status, 401, "another's count");
    app.turn_clock(Duration::from_secs(61)).await;
    assert_eq!(guess(&app, &wrong, "192.0.2.99").await.status, 401, "a minute is over");
}

#[tokio::test]
async fn ten_wrong_secrets_a_minute_from_an_address_whatever_ids_it_tries() {
    let app = builder_that_believes_the_tests().spawn().await;
    let client = app.client("connections:read").await;
    let unknown = |n: u32| OauthClient { id: format!("guess{n}"), secret: "wrong".to_owned() };
    for n in 0..10 {
        assert_eq!(guess(&app, &unknown(n), "192.0.2.1").await.status, 401);
    }
    wait(&guess(&app, &unknown(10), "192.0.2.1").await);
    assert_eq!(guess(&app, &unknown(11), "192.0.2.2").await.status, 401);
    assert_eq!(guess(&app, &client, "192.0.2.1").await.status, 200, "the right one from there");
}

#[tokio::test]
async fn an_unknown_client_and_a_wrong_secret_get_the_same_answer_and_the_same_look_at_the_database()
 {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read").await;
    let unknown = OauthClient { id: "nobody".to_owned(), secret: client.secret.clone() };
    let mut told = Vec::new();
    for guess in [client.with_secret("wrong"), unknown] {
        for path in ["/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"] {
            let answer = guess.post(&app.api, path, "grant_type=client_credentials&token=x").await;
            assert_eq!(answer.status, 401);
            told.push(answer.json);
        }
    }
    assert!(told.iter().all(|json| *json == told[0]));
    assert_eq!(app.metric("strongroom_oauth_wrong_credentials_total").await, 6.0);
}

#[tokio::test]
async fn guesses_at_every_endpoint_count_together_and_show_in_the_metrics() {
    let app = TestApp::spawn().await;
    let wrong = app.client("connections:read").await.with_secret("wrong");
    for _ in 0..4 {
        for path in ["/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"] {
            wrong.post(&app.api, path, "token=x").await;
        }
    }
    assert_eq!(app.metric("strongroom_oauth_wrong_credentials_total").await, 12.0);
    assert_eq!(app.metric("strongroom_oauth_guesses_refused_total").await, 2.0);
}

#[tokio::test]
async fn a_client_of_this_moment_is_let_in_on_every_replica_in_the_middle_of_guesses() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let wrong = OauthClient { id: "nobody".to_owned(), secret: "wrong".to_owned() };
    for _ in 0..12 {
        wrong.ask(&other, None).await;
    }
    let client = app.client("connections:read").await;
    assert_eq!(client.ask(&other, None).await.status, 200);
    assert_eq!(client.ask(&app.api, None).await.status, 200);
}
