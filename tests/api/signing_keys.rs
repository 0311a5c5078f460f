//! Keys that sign come and go without anybody noticing.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use strongroom::common::actor::Actor;
use strongroom::config::Config;
use strongroom::oauth::Algorithm;
use strongroom::oauth::signing_keys::{self, Begin, Successor};

use crate::support::{Api, TestApp};

const PATH: &str = "/v1/connections";
const TEN_MINUTES: Duration = Duration::from_secs(600);

fn header(token: &str) -> Value {
    let part = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn kid(token: &str) -> String {
    header(token)["kid"].as_str().unwrap().to_owned()
}

async fn published(api: &Api) -> BTreeSet<String> {
    let answer = api.send(api.request(reqwest::Method::GET, "/.well-known/jwks.json")).await;
    let keys = answer.json["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn rotate(app: &TestApp, algorithm: Algorithm, begin: Begin) -> Successor {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let vault = &app.context.vault;
    let new = signing_keys::rotate(&mut conn, vault, &Actor::operator(), algorithm, begin).await;
    app.refresh_directories().await;
    new.unwrap()
}

async fn reconcile(app: &TestApp) {
    let config = Config::from_environment(&app.environment).unwrap();
    let context = &app.context;
    strongroom::background::housekeeping(context, &config.oauth).await.unwrap();
    app.refresh_directories().await;
}

#[tokio::test]
async fn a_new_key_is_published_on_every_replica_before_it_signs_and_the_old_one_still_verifies() {
    let app = TestApp::by_hand().await;
    let other = app.replica().await;
    let before = app.token().await;
    let new = rotate(&app, Algorithm::Es256, Begin::Ahead).await;
    let both: BTreeSet<_> = [kid(&before), new.kid.clone()].into();
    for api in [&app.api, &other] {
        assert_eq!(published(api).await, both);
    }
    app.turn_clock(Duration::from_secs(597)).await;
    assert_eq!(kid(&app.token().await), kid(&before), "not yet");
    app.refresh_directories().await;
    // Nothing has to be read at the moment when the key takes over.
    app.clock.advance(Duration::from_millis(3200));
    app.database.turn_clock(Duration::from_millis(3200)).await;
    let after = app.token().await;
    assert_eq!(kid(&after), new.kid);
    for token in [&before, &after] {
        assert_eq!(other.get(token, PATH).await.status, 200);
    }
}

#[tokio::test]
async fn an_old_key_is_gone_when_its_last_token_has_ended() {
    let app = TestApp::by_hand().await;
    let old = kid(&app.token().await);
    rotate(&app, Algorithm::Es256, Begin::Ahead).await;
    app.turn_clock(TEN_MINUTES + Duration::from_secs(24 * 3600)).await;
    reconcile(&app).await;
    assert!(published(&app.api).await.contains(&old), "a token of a day may be alive");
    app.turn_clock(Duration::from_secs(3601)).await;
    reconcile(&app).await;
    assert!(!published(&app.api).await.contains(&old));
    assert_eq!(app.database.value("SELECT count(*) FROM signing_keys").await, "1");
}

#[tokio::test]
async fn keys_rotate_on_schedule_once_for_all_replicas() {
    let app =
        TestApp::builder().by_hand().set("STRONGROOM_SIGNING_KEY_LIFETIME", "7200").spawn().await;
    let first = kid(&app.token().await);
    app.turn_clock(Duration::from_secs(7200 - 660)).await;
    reconcile(&app).await;
    assert_eq!(published(&app.api).await.len(), 1, "not due yet");
    app.turn_clock(Duration::from_mins(1)).await;
    let config = Config::from_environment(&app.environment).unwrap().oauth;
    let round = || strongroom::background::housekeeping(&app.context, &config);
    let (one, two, three) = tokio::join!(round(), round(), round());
    for done in [one, two, three] {
        done.unwrap();
    }
    app.refresh_directories().await;
    assert_eq!(published(&app.api).await.len(), 2);
    assert_eq!(kid(&app.token().await), first);
    app.turn_clock(TEN_MINUTES).await;
    assert_ne!(kid(&app.token().await), first);
}

#[tokio::test]
async fn another_algorithm_takes_over_from_the_setting_and_tokens_of_both_count() {
    let app = TestApp::by_hand().await;
    let es256 = app.token().await;
    for (name, algorithm) in [("RS256", "RS256"), ("EdDSA", "EdDSA")] {
        app.replica_with(&[("STRONGROOM_SIGNING_ALGORITHM", name)]).await;
        app.refresh_directories().await;
        app.turn_clock(TEN_MINUTES).await;
        let token = app.token().await;
        assert_eq!(header(&token)["alg"], algorithm);
        assert_eq!(app.api.get(&token, PATH).await.status, 200);
    }
    assert_eq!(header(&es256)["alg"], "ES256");
    assert_eq!(app.api.get(&es256, PATH).await.status, 200);
    assert_eq!(published(&app.api).await.len(), 3);
}

#[tokio::test]
async fn a_key_in_wrong_hands_is_succeeded_within_seconds_and_its_tokens_end() {
    let app = TestApp::by_hand().await;
    let other = app.replica().await;
    let old = app.token().await;
    assert_eq!(other.get(&old, PATH).await.status, 200);
    let mut conn = app.context.pool.acquire().await.unwrap();
    let revoke = async |conn: &mut strongroom::database::Conn| {
        signing_keys::revoke(conn, &Actor::operator(), &kid(&old)).await.unwrap()
    };
    assert!(!revoke(&mut conn).await, "the one that signs stays");
    let new = rotate(&app, Algorithm::Es256, Begin::AtOnce).await;
    assert!(!revoke(&mut conn).await, "it signs still");
    app.turn_clock(Duration::from_secs(11)).await;
    assert!(revoke(&mut conn).await);
    app.refresh_directories().await;
    assert_eq!(published(&other).await, [new.kid].into());
    for api in [&app.api, &other] {
        assert_eq!(api.get(&old, PATH).await.problem(), (401, "unauthorized"));
        assert_eq!(api.get(&app.token().await, PATH).await.status, 200);
    }
    let audit = app.database.audit().await;
    assert!(audit.contains(&"signing_key.rotated ok".to_owned()), "{audit:?}");
    assert!(audit.contains(&"signing_key.revoked ok".to_owned()), "{audit:?}");
}

#[tokio::test]
async fn a_hasty_successor_overtakes_one_that_waits_for_its_turn() {
    let app = TestApp::by_hand().await;
    rotate(&app, Algorithm::Es256, Begin::Ahead).await;
    let hasty = rotate(&app, Algorithm::Es256, Begin::AtOnce).await;
    app.turn_clock(Duration::from_secs(11)).await;
    assert_eq!(kid(&app.token().await), hasty.kid);
    app.turn_clock(TEN_MINUTES).await;
    assert_eq!(kid(&app.token().await), hasty.kid);
}

#[tokio::test]
async fn replicas_that_start_together_agree_on_one_key() {
    let app = TestApp::by_hand().await;
    app.database.execute("DELETE FROM signing_keys").await;
    let start = || async {
        let mut conn = app.context.pool.acquire().await.unwrap();
        signing_keys::ensure(&mut conn, &app.context.vault, Algorithm::Es256).await.unwrap();
    };
    tokio::join!(start(), start(), start());
    assert_eq!(app.database.value("SELECT count(*) FROM signing_keys").await, "1");
}
