//! What is Plaid's own: a login that only the exchange tells, accounts that the browser claims and Plaid confirms,
//! duplicates, and what a refusal says about a token. What it has in common with Dapi is in the other suites.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::apps::{self, Settings};
use strongroom::common::actor::Actor;
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::{Effect, Fault, LinkOptions, RemovedItem, RulesChange};

#[cfg(feature = "failpoints")]
use crate::support::Process;
use crate::support::{Answer, Bank, TestApp, for_user, id, with};

const ACCOUNTS: &str = "plaid/accounts/get";
const TARTAN_BANK: &str = "ins_109511";

/// A link by this user of the institution: the same name has the same accounts.
fn as_username(username: &str) -> LinkOptions {
    LinkOptions { username: Some(username.to_owned()), ..LinkOptions::default() }
}

async fn linked(app: &TestApp, user: &str, options: &LinkOptions) -> Value {
    app.active_from(user, &app.link_with(options)).await
}

async fn shown(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

async fn import(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, "/v1/connections/import", body).await
}

async fn supersede_duplicates(app: &TestApp) {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let settings = Settings { supersede_duplicates: Some(true), rotate_after_reveal: None };
    apps::change(&mut conn, &Actor::operator(), "plaid", settings).await.unwrap().unwrap();
}

fn masks(connection: &Value) -> Vec<&str> {
    let accounts = connection["accounts"].as_array().unwrap();
    accounts.iter().map(|account| account["mask"].as_str().unwrap()).collect()
}

/// A result whose metadata is another's.
fn claiming(result: &Value, of: &Value) -> Value {
    with(result, json!({ "metadata": of["metadata"] }))
}

#[tokio::test]
async fn the_login_is_told_with_the_token_and_not_before() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(Bank::Plaid.exchange()).times(1)).unwrap();
    let result = app.connect();
    let answer = app.hand_in("ada", &result).await.json;
    let pending = app.settled(id(&answer)).await;
    assert_eq!((&pending["status"], &pending["connectionID"]), (&json!("pending"), &Value::Null));
    assert_eq!(pending["provider"], "plaid");
    let claimed = &result["metadata"]["institution"];
    let institution = json!({ "id": claimed["institution_id"], "name": claimed["name"] });
    assert_eq!(pending["institution"], institution);
    app.turn_clock(Duration::from_secs(2)).await;
    app.tick().await;
    let active = shown(&app, &pending).await;
    assert_eq!((&active["status"], &active["institution"]), (&json!("active"), &institution));
    assert_eq!(active["connectionID"], app.login_of(&result));
}

#[tokio::test]
async fn accounts_are_told_with_id_name_mask_and_type_and_the_call_for_them_is_no_use() {
    let app = Bank::Plaid.spawn().await;
    let result = app.connect();
    let active = app.active_from("ada", &result).await;
    let claimed = result["metadata"]["accounts"].as_array().unwrap();
    let told = claimed.iter().map(|account| {
        json!({
            "id": account["id"], "name": account["name"],
            "mask": account["mask"], "type": account["type"],
        })
    });
    assert_eq!(active["accounts"], told.collect::<Value>());
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 1);
    assert_eq!(active["lastUsedAt"], Value::Null);
}

#[tokio::test]
async fn what_the_browser_claims_is_told_until_plaid_says_otherwise() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS).times(1)).unwrap();
    let (truth, lie) = (
        app.connect(),
        app.link_with(&LinkOptions {
            institution_id: Some(TARTAN_BANK.to_owned()),
            accounts: Some(vec!["9999".to_owned()]),
            ..LinkOptions::default()
        }),
    );
    let claimed = app.active_from("ada", &claiming(&truth, &lie)).await;
    assert_eq!(
        (&claimed["institution"]["id"], masks(&claimed)),
        (&json!(TARTAN_BANK), vec!["9999"])
    );
    app.turn_clock(Duration::from_mins(2)).await;
    app.tick().await;
    let confirmed = shown(&app, &claimed).await;
    assert_eq!(confirmed["institution"]["name"], "First Platypus Bank");
    let truth = truth["metadata"]["accounts"].as_array().unwrap().iter();
    let truth: Vec<_> = truth.map(|account| account["mask"].as_str().unwrap()).collect();
    assert_eq!(masks(&confirmed), truth);
}

#[tokio::test]
async fn a_second_link_of_the_same_accounts_names_the_first() {
    let app = Bank::Plaid.spawn().await;
    let first = linked(&app, "ada", &as_username("countess")).await;
    let second = app.hand_in("ada", &app.link_with(&as_username("countess"))).await;
    assert_eq!((second.status, &second.json["duplicateOf"]), (201, &first["id"]));
    assert_ne!(second.json["connectionID"], first["connectionID"]);
    let first = shown(&app, &first).await;
    assert_eq!((&first["status"], &first["duplicateOf"]), (&json!("active"), &Value::Null));
    let trail = app.database.trail().await;
    assert_eq!(trail.last().unwrap(), "connection.duplicate_found ok");
    assert_eq!((app.live_tokens(), app.revocations()), (2, 0));
}

#[tokio::test]
async fn other_users_other_accounts_and_other_institutions_are_no_duplicates() {
    let app = Bank::Plaid.spawn().await;
    let same = as_username("countess");
    let first = linked(&app, "ada", &same).await;
    let one = LinkOptions { accounts: Some(vec![masks(&first)[0].to_owned()]), ..same.clone() };
    let elsewhere = LinkOptions {
        institution_id: Some(TARTAN_BANK.to_owned()),
        accounts: Some(masks(&first).into_iter().map(str::to_owned).collect()),
        ..LinkOptions::default()
    };
    for (user, options) in [("bob", &same), ("ada", &one), ("ada", &elsewhere)] {
        let other = linked(&app, user, options).await;
        assert_eq!(other["duplicateOf"], Value::Null, "{user} {options:?}");
    }
}

#[tokio::test]
async fn what_the_browser_claims_neither_makes_a_duplicate_nor_hides_one() {
    let app = Bank::Plaid.spawn().await;
    supersede_duplicates(&app).await;
    let same = app.link_with(&as_username("countess"));
    let first = app.active_from("ada", &same).await;
    let lie = claiming(&app.link_with(&as_username("lady")), &same);
    let other = app.active_from("ada", &lie).await;
    assert_eq!(other["duplicateOf"], Value::Null);
    assert_eq!(shown(&app, &first).await["status"], "active");
    assert_eq!(app.revocations(), 0);
    let hidden = claiming(&app.link_with(&as_username("countess")), &app.connect());
    assert_eq!(app.active_from("ada", &hidden).await["duplicateOf"], first["id"]);
}

#[tokio::test]
async fn by_setting_the_older_duplicate_is_removed_at_plaid_and_names_the_newer() {
    let app = Bank::Plaid.by_hand().await;
    supersede_duplicates(&app).await;
    let older = linked(&app, "ada", &as_username("countess")).await;
    let newer = linked(&app, "ada", &as_username("countess")).await;
    let revoking = shown(&app, &older).await;
    assert_eq!(revoking["status"], "revoking");
    assert_eq!(revoking["replacedBy"], newer["id"]);
    let refused = app.api.reveal(&app.token().await, id(&older)).await;
    assert_eq!(refused.problem(), (409, "connection_not_active"));
    app.sandbox.set_fault(app.revocation_fails().times(1)).unwrap();
    app.tick().await;
    assert_eq!(shown(&app, &older).await["status"], "revoking", "Plaid has not confirmed it");
    app.turn_clock(Duration::from_secs(5)).await;
    app.tick().await;
    let ended = shown(&app, &older).await;
    assert_eq!((&ended["status"], &ended["replacedBy"]), (&json!("invalidated"), &newer["id"]));
    assert!(ended["revocation"]["confirmedAt"].is_string());
    assert_eq!(shown(&app, &newer).await["status"], "active");
    let items = app.sandbox.plaid();
    let lives = |connection: &Value| items.item(connection["connectionID"].as_str().unwrap());
    assert!(!lives(&older).unwrap().live && lives(&newer).unwrap().live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_duplicates_that_are_confirmed_at_the_same_moment_one_names_the_other() {
    let app = Bank::Plaid.spawn().await;
    for round in 0..6 {
        if round == 3 {
            supersede_duplicates(&app).await;
        }
        let (user, name) = (format!("user-{round}"), as_username(&format!("name-{round}")));
        let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_millis(400));
        app.sandbox.set_fault(slow.times(2)).unwrap();
        let (one, two) = (app.link_with(&name), app.link_with(&name));
        let (one, two) = tokio::join!(app.hand_in(&user, &one), app.hand_in(&user, &two));
        for answer in [&one, &two] {
            app.details_asked(id(&answer.json)).await;
        }
        let mut both = [shown(&app, &one.json).await, shown(&app, &two.json).await];
        both.sort_by_key(|it| (it["createdAt"].to_string(), id(it).to_owned()));
        assert_eq!(both[1]["duplicateOf"], both[0]["id"], "{both:?}");
        assert_eq!(both[0]["duplicateOf"], Value::Null, "{both:?}");
        assert_eq!(both[1]["status"], "active", "{both:?}");
        if round >= 3 {
            assert_eq!(both[0]["replacedBy"], both[1]["id"], "{both:?}");
        }
    }
}

#[tokio::test]
async fn a_duplicate_that_is_revoked_while_it_is_confirmed_ends_no_older_one() {
    let app = Bank::Plaid.by_hand().await;
    supersede_duplicates(&app).await;
    let older = linked(&app, "ada", &as_username("countess")).await;
    let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow.times(1)).unwrap();
    let newer = app.hand_in("ada", &app.link_with(&as_username("countess"))).await.json;
    app.sandbox.calls_reached(ACCOUNTS, 2).await;
    // The confirmation waits for the older one's row, which somebody has locked, and meanwhile the newer one is revoked.
    let mut tx = app.database.pool.begin().await.unwrap();
    let lock = "SELECT FROM connections WHERE id = $1 FOR UPDATE";
    let uuid: uuid::Uuid = id(&older).trim_start_matches("conn_").parse().unwrap();
    sqlx::query(lock).bind(uuid).fetch_all(&mut *tx).await.unwrap();
    app.sandbox.clear_faults();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while app.database.value(waiting).await == "0" {}
    let revoked = app.api.delink(&app.token().await, id(&newer)).await;
    assert_eq!(revoked.connection_status(), "revoking");
    tx.commit().await.unwrap();
    for _ in 0..3 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    assert_eq!(shown(&app, &newer).await["status"], "delinked");
    assert_eq!(shown(&app, &older).await["status"], "active");
}

#[tokio::test]
async fn of_two_codes_of_one_item_at_once_the_newer_link_stays() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox.set_fault(app.exchange_is_slow()).unwrap();
    let result = app.connect();
    let older = app.hand_in("ada", &result).await.json;
    let newer = app.hand_in("ada", &app.connect_again(&result)).await.json;
    app.sandbox.calls_reached(Bank::Plaid.exchange(), 2).await;
    app.sandbox.clear_faults();
    for connection in [&older, &newer] {
        app.settled(id(connection)).await;
    }
    let (older, newer) = (shown(&app, &older).await, shown(&app, &newer).await);
    assert_eq!(newer["status"], "active");
    assert_eq!((&older["status"], &older["replacedBy"]), (&json!("invalidated"), &newer["id"]));
    assert_eq!(app.revocations(), 0, "it would have cut the new link");
    assert_eq!(app.live_tokens(), 1);
}

#[tokio::test]
async fn a_call_for_details_that_fails_is_repeated_ever_later() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS)).unwrap();
    let active = app.active("ada").await;
    let wait =
        "SELECT ceil(extract(epoch FROM details_due_at - strongroom_now())) FROM connections";
    let mut waits = Vec::new();
    for _ in 0..5 {
        let seconds: u64 = app.database.value(wait).await.parse().unwrap();
        waits.push(seconds);
        app.turn_clock(Duration::from_secs(seconds - 1)).await;
        let asked = app.sandbox.calls_to(ACCOUNTS);
        app.tick().await;
        assert_eq!(app.sandbox.calls_to(ACCOUNTS), asked, "a second before its time");
        app.turn_clock(Duration::from_secs(1)).await;
        app.tick().await;
        assert_eq!(app.sandbox.calls_to(ACCOUNTS), asked + 1);
    }
    assert_eq!(waits, [60, 120, 240, 480, 960]);
    assert_eq!(shown(&app, &active).await["status"], "active");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn killed_between_activation_and_confirmation_the_background_confirms() {
    let stage = Bank::Plaid.builder().set("STRONGROOM_ANSWER_WITHIN", "5").stage().await;
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    let result = stage.link_with(&as_username("countess"));
    let first = process.api.hand_in(&token, "ada", &result).await.json;
    process.kill();
    let process = Process::serve(&stage, &[("FAILPOINTS", "details::before_commit=pause")]).await;
    let token = process.token().await;
    let body = for_user(&stage.link_with(&as_username("countess")), "ada");
    let request = process.api.request(reqwest::Method::POST, "/v1/connections");
    tokio::spawn(request.bearer_auth(&token).json(&body).send());
    stage.sandbox.calls_reached(ACCOUNTS, 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
    let unconfirmed = "SELECT count(*) FROM connections
                       WHERE status = 'active' AND details_due_at IS NOT NULL AND duplicate_of IS NULL";
    assert_eq!(stage.database.value(unconfirmed).await, "1");
    let process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(Duration::from_secs(61)).await;
    let found = "SELECT 'conn_' || duplicate_of FROM connections
                 WHERE duplicate_of IS NOT NULL UNION ALL SELECT '' LIMIT 1";
    for _ in 0..3000 {
        if stage.database.value(found).await == first["id"] {
            return drop(process);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is not confirmed");
}

#[tokio::test]
async fn a_slow_call_for_details_holds_up_neither_the_answer_nor_the_token() {
    let app = Bank::Plaid.spawn().await;
    let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow).unwrap();
    let began = std::time::Instant::now();
    let answer = app.hand_in("ada", &app.connect()).await;
    assert_eq!((answer.status, answer.connection_status()), (201, "active"));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(app.api.reveal(&app.token().await, id(&answer.json)).await.status, 200);
    app.sandbox.clear_faults();
}

#[tokio::test]
async fn a_login_in_trouble_is_asked_for_its_details_once_the_attention_is_cleared() {
    let app = Bank::Plaid.by_hand().await;
    let result = app.connect();
    let _ = app.sandbox.plaid().require_login(&app.login_of(&result));
    let lie = claiming(
        &result,
        &app.link_with(&LinkOptions {
            institution_id: Some(TARTAN_BANK.to_owned()),
            ..LinkOptions::default()
        }),
    );
    let active = app.active_from("ada", &lie).await;
    assert_eq!(active["attention"]["type"], "ITEM_LOGIN_REQUIRED");
    app.turn_clock(Duration::from_hours(1)).await;
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 1, "no call is made meanwhile");
    let _ = app.sandbox.plaid().repair_login(&app.login_of(&result));
    let path = format!("/v1/connections/{}/attention", id(&active));
    let cleared = app.api.request(reqwest::Method::DELETE, &path).bearer_auth(app.token().await);
    assert_eq!(app.api.send(cleared).await.status, 200);
    app.tick().await;
    let confirmed = shown(&app, &active).await;
    assert_eq!(confirmed["institution"]["name"], "First Platypus Bank");
}

#[tokio::test]
async fn a_token_whose_answer_broke_off_behind_it_is_kept_and_its_item_names_itself() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox
        .set_fault(Fault::new(Effect::HalfAnswer).on(Bank::Plaid.exchange()).after().times(1))
        .unwrap();
    let result = app.connect();
    let active = app.active_from("ada", &result).await;
    assert_eq!(shown(&app, &active).await["connectionID"], app.login_of(&result));
    assert_eq!(app.api.reveal(&app.token().await, id(&active)).await.status, 200);
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn an_operators_mistake_costs_no_code() {
    let app = Bank::Plaid.by_hand().await;
    let refusals = ["INVALID_API_KEYS", "UNAUTHORIZED_ENVIRONMENT", "RATE_LIMIT_EXCEEDED/X"];
    for (number, kind) in refusals.into_iter().enumerate() {
        let fault = Bank::Plaid.refusal(kind).on(Bank::Plaid.exchange());
        app.sandbox.set_fault(fault.times(1)).unwrap();
        let answer = app.hand_in(&format!("user-{number}"), &app.connect()).await.json;
        let pending = app.settled(id(&answer)).await;
        assert_eq!(pending["status"], "pending", "{kind}");
        app.turn_clock(Duration::from_secs(2)).await;
        app.tick().await;
        assert_eq!(shown(&app, &pending).await["status"], "active", "{kind}");
    }
    let doubtful = "SELECT count(*) FROM connections WHERE unanswered";
    assert_eq!(app.database.value(doubtful).await, "0", "nothing was consumed");
}

#[tokio::test]
async fn what_blames_plaid_or_the_bank_settles_nothing() {
    let app = Bank::Plaid.by_hand().await;
    for kind in ["API_ERROR/INTERNAL_SERVER_ERROR", "INSTITUTION_ERROR/INSTITUTION_DOWN"] {
        let fault = Bank::Plaid.refusal(kind).on(Bank::Plaid.exchange());
        app.sandbox.set_fault(fault.times(1)).unwrap();
        let answer = app.hand_in("ada", &app.connect()).await.json;
        assert_eq!(app.settled(id(&answer)).await["status"], "pending", "{kind}");
        app.turn_clock(Duration::from_secs(2)).await;
        app.tick().await;
        assert_eq!(shown(&app, &answer).await["status"], "active", "{kind}");
    }
}

#[tokio::test]
async fn an_unknown_token_that_never_worked_is_told_again_and_shown_and_never_confirmed() {
    let app = Bank::Plaid.by_hand().await;
    let mistyped = Bank::Plaid.import("ada", "item-1", "access-sandbox-mistyped");
    let imported = import(&app, &mistyped).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
    app.tick().await;
    assert_eq!(shown(&app, &imported.json).await["status"], "active", "nothing is certain");
    let token = app.token().await;
    assert_eq!(app.api.delink(&token, id(&imported.json)).await.status, 202);
    for attempts in 1..=3 {
        app.tick().await;
        let revocation = shown(&app, &imported.json).await["revocation"].clone();
        assert_eq!(revocation["attempts"], attempts);
        let told = revocation["lastError"].as_str().unwrap();
        assert!(told.starts_with("INVALID_ACCESS_TOKEN"), "{told}");
        app.turn_clock(Duration::from_mins(1)).await;
    }
    app.turn_clock(Duration::from_hours(7 * 24)).await;
    app.tick().await;
    let ended = shown(&app, &imported.json).await;
    assert_eq!(ended["status"], "invalidated", "delinked would say that Plaid confirmed");
    assert_eq!(ended["revocation"]["confirmedAt"], Value::Null);
}

#[tokio::test]
async fn a_token_that_worked_is_gone_by_either_refusal() {
    let app = Bank::Plaid.by_hand().await;
    for removed_item in [RemovedItem::ItemNotFound, RemovedItem::InvalidAccessToken] {
        let rules = RulesChange { removed_item: Some(removed_item), ..RulesChange::default() };
        app.sandbox.change_rules(rules);
        // One that an exchange brought, and one that was imported and worked when its accounts were asked for.
        let exchanged = app.active("ada").await;
        let imported = import(&app, &app.held_by_an_app("bob").await).await.json;
        app.tick().await;
        for connection in [&exchanged, &imported] {
            let item = connection["connectionID"].as_str().unwrap();
            app.sandbox.plaid().remove_item(item).unwrap();
            app.api.delink(&app.token().await, id(connection)).await;
            app.tick().await;
            let ended = shown(&app, connection).await;
            assert_eq!(ended["status"], "delinked", "{removed_item:?} {ended}");
        }
    }
}

#[tokio::test]
async fn an_item_that_is_not_found_is_gone_whatever_is_known_of_its_token() {
    let app = Bank::Plaid.by_hand().await;
    let imported = import(&app, &app.held_by_an_app("ada").await).await.json;
    app.sandbox.plaid().remove_item(imported["connectionID"].as_str().unwrap()).unwrap();
    app.api.delink(&app.token().await, id(&imported)).await;
    app.tick().await;
    assert_eq!(shown(&app, &imported).await["status"], "delinked");
}

#[tokio::test]
async fn a_mistyped_import_gives_the_link_back_that_it_superseded() {
    let app = Bank::Plaid.by_hand().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    let mistyped = Bank::Plaid.import("ada", &app.login_of(&result), "access-sandbox-mistyped");
    let newer = import(&app, &mistyped).await.json;
    assert_eq!(shown(&app, &older).await["status"], "invalidated");
    app.tick().await;
    assert_eq!(shown(&app, &older).await["status"], "active");
    let ended = shown(&app, &newer).await;
    assert_eq!(ended["status"], "invalidated");
    assert_eq!(ended["revocation"]["reason"], "Plaid answered INVALID_ACCESS_TOKEN");
    assert_eq!(ended["revocation"]["confirmedAt"], Value::Null, "it may be another environment's");
    let revealed = app.api.reveal(&app.token().await, id(&older)).await;
    assert!(app.sandbox.plaid().lives(revealed.json["accessToken"].as_str().unwrap()));
    assert_eq!(app.revocations(), 0);
}

#[tokio::test]
async fn a_link_that_comes_back_before_its_details_were_confirmed_is_asked_for_them() {
    let app = Bank::Plaid.by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS).times(1)).unwrap();
    let elsewhere = app.link_with(&LinkOptions {
        institution_id: Some(TARTAN_BANK.to_owned()),
        ..LinkOptions::default()
    });
    let result = app.connect();
    let older = app.active_from("ada", &claiming(&result, &elsewhere)).await;
    let mistyped = Bank::Plaid.import("ada", &app.login_of(&result), "access-sandbox-mistyped");
    import(&app, &mistyped).await;
    app.tick().await;
    app.tick().await;
    let back = shown(&app, &older).await;
    assert_eq!(back["status"], "active");
    assert_eq!(back["institution"]["name"], "First Platypus Bank");
}

#[tokio::test]
async fn an_imported_token_is_proven_by_its_details_and_what_it_superseded_is_destroyed() {
    let app = Bank::Plaid.by_hand().await;
    let held = app.held_by_an_app("ada").await;
    let typing_error = with(&held, json!({ "accessToken": "access-sandbox-mistyped" }));
    import(&app, &typing_error).await;
    let imported = import(&app, &held).await.json;
    let kept = "SELECT count(*) FROM superseded_tokens";
    assert_eq!(app.database.value(kept).await, "1");
    app.tick().await;
    assert_eq!(app.database.value(kept).await, "0");
    let confirmed = shown(&app, &imported).await;
    assert_eq!(confirmed["institution"]["name"], "First Platypus Bank");
    assert_eq!(confirmed["accounts"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_verified_import_is_of_the_item_that_it_names() {
    let app = Bank::Plaid.by_hand().await;
    let held = with(&app.held_by_an_app("ada").await, json!({ "verify": true }));
    let mistaken = import(&app, &with(&held, json!({ "itemID": "another" }))).await;
    assert_eq!(mistaken.problem(), (422, "token_rejected"));
    assert_eq!(mistaken.json["failure"]["type"], "ITEM_MISMATCH");
    let mistyped = import(&app, &with(&held, json!({ "accessToken": "access-sandbox-x" }))).await;
    assert_eq!(mistyped.problem(), (422, "token_rejected"));
    let imported = import(&app, &held).await;
    assert_eq!((imported.status, &imported.json["connectionID"]), (201, &held["itemID"]));
}

#[tokio::test]
async fn a_revocation_waits_for_every_call_that_is_under_way() {
    let app = Bank::Plaid.by_hand().await;
    let active = app.active("ada").await;
    // Two calls at once, as relayed ones are.
    let lease = "INSERT INTO token_leases (connection_id, slot, lease_id, ends_at)
                 SELECT c.id, md5(n::text)::uuid, md5(n::text)::uuid,
                        strongroom_now() + make_interval(secs => n * 10)
                 FROM connections c, generate_series(1, 2) n";
    app.database.execute(lease).await;
    assert_eq!(app.database.value("SELECT count(DISTINCT slot) FROM token_leases").await, "2");
    app.api.delink(&app.token().await, id(&active)).await;
    for seconds in [5, 6] {
        app.tick().await;
        assert_eq!(app.revocations(), 0, "a call is under way");
        app.turn_clock(Duration::from_secs(seconds)).await;
    }
    app.tick().await;
    assert_eq!(app.revocations(), 0, "the second one is");
    app.turn_clock(Duration::from_secs(10)).await;
    app.tick().await;
    assert_eq!(shown(&app, &active).await["status"], "delinked");
    app.turn_clock(Duration::from_hours(2)).await;
    reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value("SELECT count(*) FROM token_leases").await, "0");
}

#[tokio::test]
async fn a_body_that_lacks_the_token_or_has_it_wrong_is_refused_by_name() {
    let app = Bank::Plaid.spawn().await;
    let result = for_user(&app.connect(), "ada");
    let token = app.token().await;
    let wrong = [
        ("public_token", json!(null)),
        ("public_token", json!("")),
        ("public_token", json!(7)),
        ("public_token", json!("a\u{0}b")),
        ("public_token", json!("x".repeat(16 * 1024 + 1))),
        ("clientUserID", json!(null)),
        ("clientUserID", json!("x".repeat(257))),
    ];
    for (field, value) in wrong {
        let body = with(&result, json!({ field: value.clone() }));
        let answer = app.api.post(&token, "/v1/connections", &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{field} {value}");
        assert_eq!(answer.json["field"], field, "{}", answer.text);
    }
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}

#[tokio::test]
async fn metadata_of_any_kind_costs_no_token() {
    let app = Bank::Plaid.spawn().await;
    let long = "x".repeat(5000);
    for metadata in [
        json!(null),
        json!("nothing"),
        json!([1, 2]),
        json!({ "institution": null, "accounts": null }),
        json!({ "institution": { "institution_id": 7 }, "accounts": { "id": "x" } }),
        json!({ "institution": { "institution_id": long, "name": "a\u{0}b\u{7}" } }),
        json!({ "institution": { "institution_id": "\u{0}" }, "accounts": [null, {}, { "id": 1 }] }),
        json!({ "accounts": [{ "id": "a", "name": "\u{0}", "mask": ["1"], "type": null }] }),
        Value::from_iter([("accounts", Value::from_iter(vec![json!({ "id": "a" }); 300]))]),
    ] {
        let result = with(&app.connect(), json!({ "metadata": metadata }));
        let answer = app.hand_in("ada", &result).await;
        assert_eq!(answer.status, 201, "{metadata} {}", answer.text);
        assert_eq!(answer.json["institution"]["name"], "First Platypus Bank", "{metadata}");
    }
}

#[tokio::test]
async fn a_result_or_a_token_of_the_other_bank_link_is_refused_and_nothing_is_sent() {
    let plaid = Bank::Plaid.spawn().await;
    let dapi = Bank::Dapi.spawn().await;
    for (app, other) in [(&plaid, &dapi), (&dapi, &plaid)] {
        let answer = app.hand_in("ada", &other.connect()).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{}", answer.text);
        let answer = import(app, &other.bank.import("ada", "login", "access-sandbox-1")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{}", answer.text);
        let both = with(&other.connect(), app.connect());
        assert_eq!(app.hand_in("ada", &both).await.problem(), (400, "invalid_request"));
        assert_eq!(app.exchanges(), 0);
        assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
    }
}
