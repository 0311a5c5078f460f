//! From the console's pages: ending what the bank link is not told of, and what that leaves live there.

use strongroom::operators::Role;

use crate::approvals::above;
use crate::support::{Bank, Browser, TestApp, assert_shows, id, until};

/// A browser of an operator, and the path of the app's pages.
async fn operator(app: &TestApp, name: &str) -> (Browser, String) {
    let browser = Browser::of(app, name, Role::Operator).await;
    let at = browser.pages().await;
    (browser, at)
}

/// Begins an incident of every connection, whose delinkings the bank link refuses; returns its page.
async fn incident(app: &TestApp, browser: &Browser, at: &str) -> String {
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let asked = [("kind", "invalidate"), ("all", "true"), ("reason", "laptop lost")];
    let created = browser.post(&format!("{at}/incident"), &asked).await;
    assert_eq!(created.status, 303, "{}", created.text);
    created.header("location").to_owned()
}

async fn revocations_unconfirmed(app: &TestApp) -> f64 {
    app.metric("strongroom_revocations_total{outcome=\"unconfirmed\"}").await
}

#[tokio::test]
async fn a_connection_is_ended_without_telling_the_bank_and_says_what_may_live_on() {
    let app = TestApp::with_console().await;
    let (browser, at) = operator(&app, "ana").await;
    let connection = app.active("ada").await;
    let shown = format!("{at}/connections/{}", id(&connection));
    assert_shows(&browser.page(&shown).await, &["End it without telling the bank…"]);
    let path = format!("{shown}/give-up");
    let asked = browser.page(&path).await;
    assert_shows(&asked, &["The bank link is not told.", "It may live on at the bank"]);
    assert!(!asked.contains("second person"), "{asked}");
    assert_eq!(browser.post(&path, &[]).await.status, 400, "a reason is needed");
    assert_eq!(app.settled(id(&connection)).await["status"], "active");
    let done = browser.post(&path, &[("reason", "the app was closed there")]).await;
    let shown = browser.followed(&done).await;
    assert_shows(&shown, &["Ended without a confirmation", "a token may live on there"]);
    assert!(!shown.contains("End it without"), "it has ended: {shown}");
    assert_eq!(app.settled(id(&connection)).await["status"], "invalidated");
    assert_eq!(app.sandbox.calls_to(Bank::Dapi.revoke()), 0, "the bank link was not told");
    assert_eq!(revocations_unconfirmed(&app).await, 1.0);
}

#[tokio::test]
async fn what_is_being_delinked_can_be_given_up_and_not_delinked_again() {
    let builder = TestApp::builder().set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0");
    let app = builder.set("STRONGROOM_ANSWER_WITHIN", "0").spawn().await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let (browser, at) = operator(&app, "ana").await;
    let connection = app.active("ada").await;
    let path = format!("/v1/connections/{}/delink", id(&connection));
    app.api.post_empty(&app.token().await, &path).await;
    let shown = format!("{at}/connections/{}", id(&connection));
    let life = browser.page(&shown).await;
    assert_shows(&life, &[&format!("{shown}/give-up")]);
    assert!(!life.contains(&format!("{shown}/delink")), "{life}");
    let delink = browser.page(&format!("{shown}/delink")).await;
    assert_shows(&delink, &["It is revoked already"]);
    assert!(!delink.contains("name=\"reason\""), "{delink}");
    let give_up = browser.page(&format!("{shown}/give-up")).await;
    assert_shows(&give_up, &["As long as the bank link may still confirm, leave it"]);
    let done = browser.post(&format!("{shown}/give-up"), &[("reason", "never confirmed")]).await;
    assert_shows(&browser.followed(&done).await, &["Ended without a confirmation"]);
    let ended = browser.page(&format!("{shown}/give-up")).await;
    assert_shows(&ended, &["It has ended already."]);
}

#[tokio::test]
async fn with_four_eyes_giving_a_connection_up_waits_for_somebody_else() {
    let app = above("1000").await;
    let (ana, at) = operator(&app, "ana").await;
    let connection = app.active("ada").await;
    let path = format!("{at}/connections/{}/give-up", id(&connection));
    assert_shows(&ana.page(&path).await, &["A second person has to approve this", "Ask to end it"]);
    let asked = ana.post(&path, &[("reason", "the app was closed there")]).await;
    let approval = asked.header("location").to_owned();
    assert!(approval.contains("/approvals/apr_"), "{}", asked.text);
    assert_eq!(app.settled(id(&connection)).await["status"], "active");
    let (ben, _) = operator(&app, "ben").await;
    assert_shows(&ben.page(&approval).await, &["a token may live on there", "app was closed"]);
    assert_eq!(ana.post(&format!("{approval}/approve"), &[]).await.status, 403);
    assert_eq!(ben.post(&format!("{approval}/approve"), &[]).await.status, 303);
    assert_eq!(app.settled(id(&connection)).await["status"], "invalidated");
    // What is told to the bank link waits for nobody.
    let other = app.active("bob").await;
    let path = format!("{at}/connections/{}/invalidate", id(&other));
    assert!(!ana.page(&path).await.contains("second person"));
    let done = ana.post(&path, &[("reason", "stolen")]).await;
    assert!(done.header("location").contains("/connections/conn_"), "{}", done.text);
}

#[tokio::test]
async fn the_rest_of_an_incident_is_given_up_and_its_page_says_what_that_leaves() {
    let app = TestApp::with_console().await;
    let (browser, at) = operator(&app, "ana").await;
    app.active("ada").await;
    let order = incident(&app, &browser, &at).await;
    until("it is counted", async || {
        browser
            .page(&format!("{order}/cancel"))
            .await
            .contains("<data value=\"1\">1</data></strong> tokens live")
    })
    .await;
    let asked = browser.page(&format!("{order}/cancel")).await;
    assert_shows(&asked, &["To stop for now, pause", "Nothing becomes usable again"]);
    assert!(!asked.contains("second person"), "{asked}");
    let blank = browser.post(&format!("{order}/cancel"), &[("reason", " ")]).await;
    assert_eq!(blank.status, 400, "a reason is needed");
    assert_shows(
        &blank.text,
        &["Nothing was given up", "id=\"reason-error\"", "To stop for now, pause"],
    );
    let why = [("reason", "the bank closed that API")];
    let cancelled = browser.post(&format!("{order}/cancel"), &why).await;
    assert_shows(&browser.followed(&cancelled).await, &["pill-cancelled"]);
    // A delinking that was under way ends with its answer.
    until("it is given up", async || {
        browser.page(&order).await.contains("may live on at the bank")
    })
    .await;
    let shown = browser.page(&order).await;
    assert!(!shown.contains("Give up the rest"), "{shown}");
    assert_eq!(app.database.value("SELECT status FROM connections").await, "invalidated");
    until("it is counted", async || revocations_unconfirmed(&app).await == 1.0).await;
    let said = "SELECT reason FROM audit_events WHERE action = 'revocations.cancelled'";
    let said = app.database.value(said).await;
    assert!(said.ends_with(" connections given up: the bank closed that API"), "{said}");
    assert_shows(&browser.page(&format!("{order}/cancel")).await, &["nothing left to give up"]);
    let again = browser.post(&format!("{order}/cancel"), &why).await;
    assert_eq!(again.header("location"), order, "repeatable: {}", again.text);
    assert_eq!(revocations_unconfirmed(&app).await, 1.0, "counted once");
    assert_eq!(browser.post(&format!("{order}/resume"), &[]).await.status, 409);
}

#[tokio::test]
async fn with_four_eyes_giving_up_the_rest_of_an_incident_waits_for_somebody_else() {
    let app = above("1000").await;
    let (ana, at) = operator(&app, "ana").await;
    app.active("ada").await;
    let order = incident(&app, &ana, &at).await;
    assert_shows(
        &ana.page(&format!("{order}/cancel")).await,
        &["A second person", "Ask to give up"],
    );
    let why = [("reason", "the bank closed that API")];
    let asked = ana.post(&format!("{order}/cancel"), &why).await;
    let approval = asked.header("location").to_owned();
    assert!(approval.contains("/approvals/apr_"), "{}", asked.text);
    assert_eq!(app.database.value("SELECT state FROM bulk_revocations").await, "running");
    let (ben, _) = operator(&app, "ben").await;
    assert_shows(
        &ben.page(&approval).await,
        &["tokens would be given up", "laptop lost", "the bank closed that API"],
    );
    let approved = ben.post(&format!("{approval}/approve"), &[]).await;
    assert_eq!((approved.status, approved.header("location")), (303, order.as_str()));
    assert_eq!(app.database.value("SELECT state FROM bulk_revocations").await, "cancelled");
}

#[tokio::test]
async fn what_was_given_up_is_listed_by_its_incident_and_apart_from_what_is_confirmed() {
    let app = TestApp::with_console().await;
    let (browser, at) = operator(&app, "ana").await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    let order = incident(&app, &browser, &at).await;
    until("both are marked", async || {
        let marked = "SELECT count(*) FROM connections WHERE bulk_revocation_id IS NOT NULL";
        app.database.value(marked).await == "2"
    })
    .await;
    // One of them was confirmed before.
    app.database
        .execute(
            "UPDATE connections c SET status = 'invalidated', revocation_confirmed_at = strongroom_now(), code = NULL,
                    access_token = NULL, user_secret = NULL, due_at = NULL, leased_until = NULL
             FROM users u WHERE u.id = c.user_id AND u.client_user_id = 'ada'",
        )
        .await;
    until("the other is given up", async || {
        browser.post(&format!("{order}/cancel"), &[("reason", "never confirmed")]).await;
        app.database.value("SELECT count(*) FROM connections WHERE status = 'revoking'").await
            == "0"
    })
    .await;
    let name = order.rsplit('/').next().unwrap();
    let shown = browser.page(&order).await;
    let failed = format!("{at}/connections?incident={name}&amp;progress=failed");
    assert_shows(&shown, &[&failed, &failed.replace("failed", "told"), "Which they are"]);
    let failed = browser.page(&failed.replace("&amp;", "&")).await;
    assert!(failed.contains(id(&bob)) && !failed.contains(id(&ada)), "{failed}");
    let told = browser.page(&format!("{at}/connections?incident={name}&progress=told")).await;
    assert!(told.contains(id(&ada)) && !told.contains(id(&bob)), "{told}");
    let all = browser.page(&format!("{at}/connections?incident={name}")).await;
    assert_shows(&all, &[id(&ada), id(&bob)]);
    let live = browser.page(&format!("{at}/connections?incident={name}&progress=live")).await;
    assert_shows(&live, &["No connection matches."]);
    let none = browser.page(&format!("{at}/connections?incident=nonsense")).await;
    assert_shows(&none, &["No connection matches."]);
}

#[tokio::test]
async fn what_had_ended_before_is_said_to_have_and_nothing_is_done() {
    let app = TestApp::with_console().await;
    let (browser, at) = operator(&app, "ana").await;
    let connection = app.active("ada").await;
    let path = format!("{at}/connections/{}", id(&connection));
    let reason = [("reason", "stolen")];
    browser.post(&format!("{path}/invalidate"), &reason).await;
    until("it has ended", async || app.settled(id(&connection)).await["status"] == "invalidated")
        .await;
    let before = app.database.value("SELECT count(*) FROM audit_events").await;
    for way in ["delink", "invalidate", "give-up"] {
        let again = browser.post(&format!("{path}/{way}"), &reason).await;
        let shown = browser.followed(&again).await;
        assert_shows(&shown, &["It had ended before; nothing was done."]);
    }
    assert_eq!(app.database.value("SELECT count(*) FROM audit_events").await, before);
}

#[tokio::test]
async fn of_another_app_nothing_is_given_up() {
    let app = TestApp::with_console().await;
    let (browser, at) = operator(&app, "ana").await;
    let connection = app.active("ada").await;
    let order = incident(&app, &browser, &at).await;
    app.token_of_another_app().await;
    let other = app.database.value("SELECT id FROM apps WHERE name <> 'default' LIMIT 1").await;
    let order = order.rsplit('/').next().unwrap();
    for rest in
        [format!("connections/{}/give-up", id(&connection)), format!("incident/{order}/cancel")]
    {
        let path = format!("/apps/app_{other}/{rest}");
        assert_eq!(browser.get(&path).await.status, 404, "{rest}");
        assert_eq!(browser.post(&path, &[("reason", "x")]).await.status, 404, "{rest}");
    }
    assert_eq!(app.database.value("SELECT state FROM bulk_revocations").await, "running");
}
