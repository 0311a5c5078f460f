//! The console's screens: what each is for, over HTTP, and what each role sees of it.

use serde_json::{Value, json};
use strongroom::operators::Role;
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Bank, Browser, TestApp, assert_shows, id, until};

/// A browser of this role, and the path of the app's pages.
async fn signed_in(app: &TestApp, role: Role) -> (Browser, String) {
    let browser = Browser::of(app, &format!("{}-of-screens", role.as_str()), role).await;
    let at = browser.pages().await;
    (browser, at)
}

/// The value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let field = page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap();
    field.split('"').next().unwrap().to_owned()
}

fn never_confirms(app: &TestApp) {
    app.sandbox.set_fault(Fault::new(Effect::Drop).on(Bank::Dapi.revoke()).before()).unwrap();
}

#[tokio::test]
async fn an_alert_leads_to_its_screen_of_the_app_that_the_reader_chooses() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let revoking = format!("{at}/connections?status=revoking");
    let only = browser.get("/to/connections?status=revoking").await;
    assert_eq!((only.status, only.header("location")), (303, revoking.as_str()));
    app.client_of_another_app().await;
    let choice = browser.page("/to/connections?status=revoking").await;
    assert_shows(&choice, &[">other<", &revoking]);
    assert_eq!(browser.get("/to/elsewhere").await.status, 404);
}

#[tokio::test]
async fn now_says_what_lives_at_the_bank_though_it_is_revoked_here_and_why() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let connection = app.active("ada").await;
    let now = browser.page(&format!("{at}/now")).await;
    assert_shows(
        &now,
        &["Every revocation is confirmed", "have not sealed a hundredth of what one key may"],
    );
    never_confirms(&app);
    let id = id(&connection);
    let path = format!("/v1/connections/{id}/delink");
    app.api.post_empty(&app.token().await, &path).await;
    let now = browser.page(&format!("{at}/now")).await;
    assert_shows(&now, &["Alive at the bank though revoked here", id, "oldest revoked"]);
    assert_shows(&now, &[&format!("{at}/connections?status=revoking"), "figure-bad"]);
}

#[tokio::test]
async fn now_s_live_part_is_a_stream_of_events_with_the_same_content() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let answer = browser.get(&format!("{at}/now/live")).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(answer.text.starts_with("event: page\ndata: "), "{}", answer.text);
    assert_shows(&answer.text, &["Codes in flight"]);
}

#[tokio::test]
async fn connections_are_found_by_id_user_status_and_client() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    let (ada, bob) = (id(&ada), id(&bob));
    let client = app.database.value("SELECT created_by FROM connections LIMIT 1").await;
    let queries = [
        format!("text={}", &ada[ada.len() - 12..]),
        "user=ada".to_owned(),
        format!("status=active&user=ada&age=hour&client={client}"),
    ];
    for query in queries {
        let found = browser.page(&format!("{at}/connections?{query}")).await;
        assert!(found.contains(ada) && !found.contains(bob), "{query}");
    }
    let none = browser.page(&format!("{at}/connections?client=nobody")).await;
    assert_shows(&none, &["No connection matches."]);
}

#[tokio::test]
async fn a_timeline_verifies_the_link_of_each_row_and_says_which_was_changed() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let connection = app.active("ada").await;
    app.link().await;
    let path = format!("{at}/connections/{}", id(&connection));
    let life = browser.page(&path).await;
    assert_shows(&life, &["connection.received", "connection.activated", " holds</span>"]);
    assert!(!life.contains("is broken"), "{life}");
    app.database
        .execute(
            "SET session_replication_role = replica;
             UPDATE audit_events SET reason = 'changed' WHERE action = 'connection.activated';
             SET session_replication_role = origin",
        )
        .await;
    assert_shows(&browser.page(&path).await, &["The trail was changed", "is broken"]);
}

#[tokio::test]
async fn a_timeline_says_at_a_calls_end_how_long_it_took() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let connection = app.active("ada").await;
    let answer =
        app.api.post(&app.token().await, &Bank::Dapi.relayed(&connection), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let life = browser.page(&format!("{at}/connections/{}", id(&connection))).await;
    assert_shows(&life, &["dapi.call", ">begun</span>", ">answered after "]);
    assert_eq!(life.matches(" after ").count(), 1, "{life}");
}

#[tokio::test]
async fn an_operator_invalidates_with_a_reason_and_the_trail_names_them() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    let connection = app.active("ada").await;
    let path = format!("{at}/connections/{}/invalidate", id(&connection));
    assert_shows(&browser.page(&path).await, &["What follows", "This cannot be undone"]);
    let without = browser.post(&path, &[("reason", "")]).await;
    assert_eq!(without.status, 400, "{}", without.text);
    let done = browser.post(&path, &[("reason", "device stolen")]).await;
    let shown = browser.followed(&done).await;
    assert_shows(&shown, &["device stolen", "operator: operator-of-screens"]);
    assert_ne!(app.settled(id(&connection)).await["status"], "active");
}

#[tokio::test]
async fn an_incident_is_counted_first_and_revokes_with_its_reason_once() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    let (ada, _bob) = (app.active("ada").await, app.active("bob").await);
    let asked = [("kind", "invalidate"), ("users", "ada"), ("rate", "5")];
    let preview = browser.post(&format!("{at}/incident/preview"), &asked).await;
    assert_eq!(preview.status, 200, "{}", preview.text);
    assert_shows(
        &preview.text,
        &["nothing was revoked", "Revoke <data value=\"1\">1</data>", id(&ada)],
    );
    assert_eq!(app.settled(id(&ada)).await["status"], "active");

    let key = hidden(&preview.text, "key");
    let decided = [asked.as_slice(), &[("key", &key), ("reason", "laptop lost")]].concat();
    let first = browser.post(&format!("{at}/incident"), &decided).await;
    let order = browser.followed(&first).await;
    assert_shows(&order, &["laptop lost", "Live at the bank", "Told", "Waiting"]);
    let again = browser.post(&format!("{at}/incident"), &decided).await;
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(app.database.value("SELECT count(*)::text FROM bulk_revocations").await, "1");
}

#[tokio::test]
async fn an_incident_that_names_nobody_is_refused_with_what_to_change() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    let preview = browser.post(&format!("{at}/incident/preview"), &[("kind", "delink")]).await;
    assert_eq!(preview.status, 400);
    assert_shows(
        &preview.text,
        &[
            "<title>Error: Begin an incident",
            "Nothing was revoked",
            "every connection, and not both",
            "<a href=\"#all\">Which</a>",
            "aria-invalid=\"true\" aria-describedby=\"all-error\"",
            "id=\"all-error\"",
        ],
    );
}

#[tokio::test]
async fn a_form_whose_reason_cannot_be_used_comes_back_with_what_was_filled_in() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    let connection = app.active("ada").await;
    let long = "y".repeat(600);
    let wrong = ["<title>Error: ", "href=\"#reason\">Reason</a>", "id=\"reason-error\"", &long];
    let path = format!("{at}/connections/{}/delink", id(&connection));
    let answer = browser.post(&path, &[("reason", &long)]).await;
    assert_eq!(answer.status, 400);
    assert_shows(&answer.text, &wrong);
    assert_shows(&answer.text, &["aria-describedby=\"reason-error reason-help\"", "What follows"]);
    let fields =
        [("kind", "delink"), ("users", "ada"), ("rate", "7"), ("key", "k"), ("reason", &long)];
    let answer = browser.post(&format!("{at}/incident"), &fields).await;
    assert_eq!(answer.status, 400);
    assert_shows(&answer.text, &wrong);
    assert_shows(
        &answer.text,
        &["Dry run", "name=\"rate\" value=\"7\"", "name=\"key\" value=\"k\""],
    );
    assert_eq!(app.settled(id(&connection)).await["status"], "active");
}

#[tokio::test]
async fn an_id_that_is_no_connections_leads_to_what_it_names() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let body = json!({ "clientUserID": "ada" });
    app.api.post(&app.token().await, "/v1/connect-sessions", &body).await;
    let session = app.database.value("SELECT id FROM connect_sessions").await;
    let user = app.database.value("SELECT id FROM users").await;
    let some = uuid::Uuid::now_v7();
    for (text, leads_to) in [
        (format!("ord_{some}"), format!("{at}/incident/ord_{some}")),
        (format!("apr_{some}"), format!("{at}/approvals/apr_{some}")),
        (format!("ops_{some}"), format!("/operators#ops_{some}")),
        (format!("cs_{session}"), format!("{at}/users/usr_{user}")),
    ] {
        let found = browser.get(&format!("{at}/connections?text={text}")).await;
        assert_eq!((found.status, found.header("location")), (303, leads_to.as_str()), "{text}");
    }
    let request = browser.page(&format!("{at}/connections?text={some}")).await;
    assert_shows(&request, &[&format!("/requests/{some}")]);
}

#[tokio::test]
async fn an_incident_is_paused_and_resumed() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    app.active("ada").await;
    never_confirms(&app);
    let asked = [("kind", "delink"), ("all", "true"), ("rate", "1"), ("reason", "feature ends")];
    let created = browser.post(&format!("{at}/incident"), &asked).await;
    let order = created.header("location").to_owned();
    let paused = browser.post(&format!("{order}/pause"), &[]).await;
    assert_shows(&browser.followed(&paused).await, &["pill-paused", "Resume"]);
    let resumed = browser.post(&format!("{order}/resume"), &[]).await;
    assert_shows(&browser.followed(&resumed).await, &["pill-running", "Pause"]);
}

#[tokio::test]
async fn opening_a_person_s_page_is_in_the_trail() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    app.active("ada").await;
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;
    let shown = browser.page(&format!("{at}/users/usr_{user}")).await;
    assert_shows(&shown, &["ada", "What goes", "What stays"]);
    let viewed = "SELECT actor || ' ' || user_id FROM audit_events WHERE action = 'user.viewed'";
    assert_eq!(app.database.value(viewed).await, format!("operator: auditor-of-screens {user}"));
}

#[tokio::test]
async fn a_person_is_erased_and_the_receipt_is_shown() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    app.active("ada").await;
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;
    let path = format!("{at}/users/usr_{user}");
    assert_shows(&browser.page(&format!("{path}/erase")).await, &["This cannot be undone"]);
    let erased = browser.post(&format!("{path}/erase"), &[]).await;
    browser.followed(&erased).await;
    until("the erasure is complete", async || {
        app.tick().await;
        browser.page(&path).await.contains("<h2 id=\"erased\">Erased</h2>")
    })
    .await;
    assert_shows(&browser.page(&path).await, &["data-receipt", "eyJ"]);
}

#[tokio::test]
async fn ending_a_person_s_sessions_refuses_their_browsers() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Operator).await;
    let body = json!({ "clientUserID": "ada" });
    let made = app.api.post(&app.token().await, "/v1/connect-sessions", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;
    let path = format!("{at}/users/usr_{user}");
    assert_shows(&browser.page(&path).await, &["End them all"]);
    let ended = browser.post(&format!("{path}/end-sessions"), &[]).await;
    assert_shows(&browser.followed(&ended).await, &["None is alive."]);
}

#[tokio::test]
async fn the_chain_s_links_are_exported_in_order_for_the_check_in_the_browser() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    app.active("ada").await;
    app.link().await;
    let links: Value = browser.get(&format!("{at}/audit/links")).await.json;
    let seqs: Vec<_> = links.as_array().unwrap().iter().map(|link| link["seq"].as_i64()).collect();
    assert_eq!(seqs.first(), Some(&Some(1)), "{links}");
    assert!(links[0]["hash"].is_string() && links[0]["event"]["action"].is_string(), "{links}");
    let trail = browser.page(&format!("{at}/audit")).await;
    assert_shows(&trail, &["Checkpoint of this moment", "data-chain", "connection.activated"]);
    let export = browser.get(&format!("{at}/audit/export?action=connection.activated")).await;
    assert_eq!(export.text.lines().count(), 1, "{}", export.text);
}

#[tokio::test]
async fn a_problem_s_request_id_leads_to_what_the_request_did() {
    let app = TestApp::with_console().await;
    let (browser, _) = signed_in(&app, Role::Auditor).await;
    app.active("ada").await;
    let query = "SELECT request_id::text FROM audit_events WHERE action = 'connection.received'";
    let request = app.database.value(query).await;
    let shown = browser.page(&format!("/requests/{request}")).await;
    assert_shows(&shown, &["connection.received", &request]);
    let unknown = uuid::Uuid::now_v7();
    assert_shows(&browser.page(&format!("/requests/{unknown}")).await, &["has nothing of it"]);
}

#[tokio::test]
async fn clients_say_who_may_do_what_and_what_a_thief_could_do() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Admin).await;
    let list = browser.page(&format!("{at}/clients")).await;
    assert_shows(&list, &["tokens:read", "may read tokens in the clear"]);
    let client = app.database.value("SELECT id FROM clients LIMIT 1").await;
    let shown = browser.page(&format!("{at}/clients/{client}")).await;
    assert_shows(&shown, &["bank tokens a minute in the clear", "Live secrets", "step by step"]);
}

#[tokio::test]
async fn every_other_screen_has_its_empty_state() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    for (screen, text) in [
        ("connections", "There is no connection yet"),
        ("incident", "None."),
        ("approvals", "Four eyes are off"),
        ("approvals", "Nothing waits"),
        ("webhooks", "No webhook is registered"),
        ("upstreams", "describes another API"),
        ("keys", "wraps new data keys"),
    ] {
        assert_shows(&browser.page(&format!("{at}/{screen}")).await, &[text]);
    }
    assert_shows(&browser.page("/operators").await, &["auditor-of-screens"]);
}

#[tokio::test]
async fn an_auditor_sees_no_button_that_changes_something() {
    let app = TestApp::with_console().await;
    let (browser, at) = signed_in(&app, Role::Auditor).await;
    let connection = app.active("ada").await;
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;
    let client = app.database.value("SELECT id FROM clients LIMIT 1").await;
    for path in [
        format!("{at}/now"),
        format!("{at}/connections/{}", id(&connection)),
        format!("{at}/incident"),
        format!("{at}/approvals"),
        format!("{at}/users/usr_{user}"),
        format!("{at}/clients/{client}"),
        "/operators".to_owned(),
    ] {
        let shown = browser.page(&path).await;
        let forms = shown.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "more than the one that signs out on {path}: {shown}");
        assert!(!shown.contains("button danger"), "{path}");
    }
    let path = format!("{at}/connections/{}/delink", id(&connection));
    let refused = browser.post(&path, &[("reason", "curious")]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(app.settled(id(&connection)).await["status"], "active");
}

#[tokio::test]
async fn what_another_app_holds_is_not_found_under_this_app_s_address() {
    let app = TestApp::with_console().await;
    let (browser, _) = signed_in(&app, Role::Admin).await;
    let connection = app.active("ada").await;
    app.token_of_another_app().await;
    let other = app
        .database
        .value("SELECT a.id FROM apps a WHERE NOT EXISTS (SELECT FROM connections c WHERE c.app_id = a.id) LIMIT 1")
        .await;
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;
    for rest in [format!("connections/{}", id(&connection)), format!("users/usr_{user}")] {
        let answer = browser.get(&format!("/apps/app_{other}/{rest}")).await;
        assert_eq!(answer.status, 404, "{rest}");
    }
}
