//! The end of a token, and its limit of one call at a time.

use std::time::Duration;

use serde_json::json;
use strongroom_dev::sandbox::{ConnectOptions, DelinkCuts, Effect, Fault, Rules};

use crate::support::TestSandbox;

#[tokio::test]
async fn delinking_ends_a_token_on_both_paths() {
    let test = TestSandbox::start();
    for path in ["users/DelinkUser", "data/DelinkUser", "users/delinkuser"] {
        let user = test.user().await;
        user.call(path, json!({})).await.done();
        let after = user.call("data/identity/get", json!({})).await;
        assert_eq!(after.refusal(), (401, "USER_DELINKED"), "{path}");
    }
}

#[tokio::test]
async fn delinking_twice_is_refused() {
    let test = TestSandbox::start();
    let user = test.user().await;
    user.call("users/DelinkUser", json!({})).await.done();
    let again = user.call("users/DelinkUser", json!({})).await;
    assert_eq!(again.refusal(), (401, "USER_DELINKED"));
}

#[tokio::test]
async fn a_token_needs_its_own_secrets() {
    let test = TestSandbox::start();
    let (user, other) = (test.user().await, test.user().await);
    let refused = [
        (json!({"userSecret": other.linked.user_secret}), "INVALID_USER_SECRET"),
        (json!({"appSecret": "wrong"}), "INVALID_APP_SECRET"),
        (json!({"userSecret": null}), "PARAMETER_MISSING"),
    ];
    for (body, kind) in refused {
        for path in ["users/DelinkUser", "data/accounts/get"] {
            let reply = user.call(path, body.clone()).await;
            assert_eq!(reply.refusal().1, kind, "{path}");
        }
    }
    user.call("data/accounts/get", json!({})).await.done();
}

#[tokio::test]
async fn an_unknown_token_is_no_connection() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let stranger = TestSandbox::start();
    let of_another_user = stranger.user().await.token;
    for token in ["nonsense", &of_another_user, &user.linked.access_code.replace('.', "x")] {
        let reply = user.send("users/DelinkUser", token, &json!({})).await;
        assert_eq!(reply.refusal(), (401, "INVALID_CONNECTION"));
    }
    let none = test.post("/v2/users/DelinkUser", &json!({})).await;
    assert_eq!(none.refusal(), (401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_token_is_worth_nothing_with_another_apps_secret() {
    let test = TestSandbox::with_apps(["one", "two"]);
    let linked = test.connect();
    let mut body = TestSandbox::exchange_body(&linked);
    body["appSecret"] = json!("secret of one");
    let given = test.post("/v2/auth/ExchangeToken", &body).await.done();
    let request = test.http.post(test.url("/v2/data/accounts/get"));
    let request = request.bearer_auth(given["accessToken"].as_str().unwrap());
    let body = json!({"appSecret": "secret of two", "userSecret": linked.user_secret});
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn delinking_ends_one_token_or_the_whole_login_as_told() {
    for (delink_cuts, survives) in [(DelinkCuts::Token, true), (DelinkCuts::Login, false)] {
        let test = TestSandbox::with_rules(Rules { delink_cuts, ..Rules::default() });
        let first = test.user().await;
        let again = ConnectOptions {
            connection_id: Some(first.linked.connection_id.clone()),
            ..ConnectOptions::default()
        };
        let second = test.user_of(test.sandbox.connect(&again).unwrap()).await;
        let stranger = test.user().await;
        assert_eq!(first.linked.user_id, second.linked.user_id);
        first.call("users/DelinkUser", json!({})).await.done();
        let status = second.call("data/accounts/get", json!({})).await.status;
        assert_eq!(status == 200, survives, "{delink_cuts:?}");
        stranger.call("data/accounts/get", json!({})).await.done();
    }
}

#[tokio::test]
async fn one_login_of_two_users_is_not_cut_by_one_of_them() {
    let test =
        TestSandbox::with_rules(Rules { delink_cuts: DelinkCuts::Login, ..Rules::default() });
    let link = |user: &str| ConnectOptions {
        connection_id: Some("shared".to_owned()),
        client_user_id: Some(user.to_owned()),
        ..ConnectOptions::default()
    };
    let ada = test.user_of(test.sandbox.connect(&link("ada")).unwrap()).await;
    let bob = test.user_of(test.sandbox.connect(&link("bob")).unwrap()).await;
    assert_ne!(ada.linked.user_id, bob.linked.user_id);
    ada.call("users/DelinkUser", json!({})).await.done();
    bob.call("data/accounts/get", json!({})).await.done();
}

#[tokio::test]
async fn a_token_that_the_user_unlinked_at_the_bank_is_refused() {
    let test = TestSandbox::start();
    for kind in ["USER_DELINKED", "INVALID_CREDENTIALS"] {
        let user = test.user().await;
        let info = test.sandbox.kill_token(user.linked.token_id, kind).unwrap();
        assert!(!info.live);
        let reply = user.call("data/accounts/get", json!({})).await;
        assert_eq!(reply.refusal(), (401, kind));
    }
}

/// Makes the next calls hang until the faults are cleared.
fn hold(test: &TestSandbox, calls: u32) {
    let fault = Fault::new(Effect::Answer).delayed(Duration::from_mins(1));
    test.fault(fault.times(calls));
}

#[tokio::test]
async fn two_calls_at_once_with_one_token_all_fail() {
    let test = TestSandbox::start();
    let user = test.user().await;
    hold(&test, 1);
    let running = user.call("data/accounts/get", json!({}));
    let meanwhile = async {
        test.sandbox.calls_reached("data/accounts/get", 1).await;
        let reply = user.call("data/cards/get", json!({})).await;
        test.sandbox.clear_faults();
        reply
    };
    let (running, meanwhile) = tokio::join!(running, meanwhile);
    for reply in [&running, &meanwhile] {
        assert_eq!(reply.refusal(), (401, "SESSION_INVALIDATED"));
    }
    // Once both have ended, the token works as before.
    user.call("data/accounts/get", json!({})).await.done();
}

#[tokio::test]
async fn a_delink_that_meets_another_call_does_not_happen() {
    let test = TestSandbox::start();
    let user = test.user().await;
    hold(&test, 1);
    let running = user.call("users/DelinkUser", json!({}));
    let meanwhile = async {
        test.sandbox.calls_reached("users/DelinkUser", 1).await;
        user.call("data/cards/get", json!({})).await;
        test.sandbox.clear_faults();
    };
    let (running, ()) = tokio::join!(running, meanwhile);
    assert_eq!(running.refusal().1, "SESSION_INVALIDATED");
    assert!(test.sandbox.tokens(1)[0].live);
}

#[tokio::test]
async fn two_tokens_do_not_get_in_each_others_way() {
    let test = TestSandbox::start();
    let (one, two) = (test.user().await, test.user().await);
    hold(&test, 2);
    let release = async {
        test.sandbox.calls_reached("data/accounts/get", 2).await;
        test.sandbox.clear_faults();
    };
    let (first, second, ()) = tokio::join!(
        one.call("data/accounts/get", json!({})),
        two.call("data/accounts/get", json!({})),
        release,
    );
    first.done();
    second.done();
}

#[tokio::test]
async fn the_rule_of_one_call_per_token_can_be_lifted() {
    let test = TestSandbox::with_rules(Rules { one_call_per_token: false, ..Rules::default() });
    let user = test.user().await;
    hold(&test, 2);
    let release = async {
        test.sandbox.calls_reached("data/accounts/get", 2).await;
        test.sandbox.clear_faults();
    };
    let (first, second, ()) = tokio::join!(
        user.call("data/accounts/get", json!({})),
        user.call("data/accounts/get", json!({})),
        release,
    );
    first.done();
    second.done();
}
