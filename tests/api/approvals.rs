//! Four eyes: what waits for a second person, who that may be, and that it is carried out once.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::approvals::{self, DecideError, Refused};
use strongroom::common::actor::Actor;
use strongroom::operators::{self, Role};

use crate::support::{Answer, Browser, TestApp, add_operator, command, id};

/// A service in which bulk revocations of more than so many connections wait, and all else that four eyes cover.
pub async fn above(connections: &str) -> TestApp {
    let builder = TestApp::builder().set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0");
    builder.set("STRONGROOM_FOUR_EYES", connections).spawn().await
}

async fn page_of(browser: &Browser, approval: &Value) -> String {
    format!("{}/approvals/{}", browser.pages().await, id(approval))
}

async fn approve(browser: &Browser, approval: &Value) -> Answer {
    browser.post(&format!("{}/approve", page_of(browser, approval).await), &[]).await
}

async fn revoke_all(app: &TestApp) -> Answer {
    let body = json!({ "kind": "invalidate", "reason": "incident 7", "filter": { "all": true } });
    app.api.post(&app.token().await, "/v1/admin/revocations", &body).await
}

async fn erase(app: &TestApp, user: &str) -> Answer {
    let path = format!("/v1/users/{user}");
    let request = app.api.request(reqwest::Method::DELETE, &path);
    app.api.send(request.bearer_auth(app.token().await)).await
}

/// What waits, of an answer that says so.
fn waiting(answer: &Answer) -> Value {
    let approval = answer.json["approval"].clone();
    assert_eq!((answer.status, &approval["status"]), (202, &json!("pending")), "{}", answer.text);
    assert!(id(&approval).starts_with("apr_") && approval["expiresAt"].is_string(), "{approval}");
    approval
}

async fn status(app: &TestApp, approval: &Value) -> String {
    let path = format!("/v1/admin/approvals/{}", id(approval));
    let answer = app.api.get(&app.token().await, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["status"].as_str().unwrap().to_owned()
}

async fn orders(app: &TestApp) -> String {
    app.database.value("SELECT count(*) FROM bulk_revocations WHERE erasure_id IS NULL").await
}

#[tokio::test]
async fn a_bulk_revocation_waits_above_the_number_and_not_at_it() {
    let app = above("1").await;
    app.active("ada").await;
    let body = json!({ "kind": "delink", "reason": "one", "filter": { "clientUserIDs": ["ada"] } });
    let one = app.api.post(&app.token().await, "/v1/admin/revocations", &body).await;
    assert!(one.status == 202 && one.json["approval"].is_null(), "{}", one.text);
    let (bob, eve) = (app.active("bob").await, app.active("eve").await);
    let answer = revoke_all(&app).await;
    let approval = waiting(&answer);
    assert_eq!(answer.header("location"), format!("/v1/admin/approvals/{}", id(&approval)));
    for connection in [bob, eve] {
        let status = app.api.connection(&app.token().await, id(&connection)).await;
        assert_eq!(status["status"], "active", "nothing is in force before it is approved");
    }
}

#[tokio::test]
async fn what_waits_is_carried_out_with_the_approval_of_somebody_else() {
    let app = above("0").await;
    let connection = app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let page = browser.get(&page_of(&browser, &approval).await).await;
    assert!(page.text.contains("incident 7") && page.text.contains("connections would be revoked"));
    let approved = approve(&browser, &approval).await;
    let begun = app.database.value("SELECT id FROM bulk_revocations").await;
    let incident = format!("{}/incident/ord_{begun}", browser.pages().await);
    assert_eq!((approved.status, approved.header("location")), (303, incident.as_str()));
    assert_eq!(status(&app, &approval).await, "approved");
    let revealed = app.api.reveal(&app.token().await, id(&connection)).await;
    assert_eq!(revealed.problem(), (409, "connection_not_active"));
    let trail = "SELECT string_agg(action || ' by ' || actor, ', ' ORDER BY id) FROM audit_events
                 WHERE action LIKE 'approval.%' OR action = 'revocations.ordered'";
    assert_eq!(
        app.database.value(trail).await,
        "approval.requested by client, approval.approved by operator: bob, revocations.ordered by operator: bob"
    );
}

#[tokio::test]
async fn of_two_who_approve_at_once_one_does_and_the_other_changes_nothing() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let (one, two) = (
        Browser::of(&app, "bob", Role::Operator).await,
        Browser::of(&app, "eve", Role::Operator).await,
    );
    let (first, second) = tokio::join!(approve(&one, &approval), approve(&two, &approval));
    let mut answers = [first.status, second.status];
    answers.sort_unstable();
    assert_eq!(answers, [303, 409]);
    assert_eq!(approve(&one, &approval).await.status, 409, "a second press");
    assert_eq!(orders(&app).await, "1");
}

#[tokio::test]
async fn nobody_approves_their_own_request() {
    let app = above("0").await;
    app.active("ada").await;
    let ana = Browser::of(&app, "ana", Role::Admin).await;
    let fields = [("kind", "invalidate"), ("all", "true"), ("reason", "incident 7")];
    let preview = ana.post(&format!("{}/incident/preview", ana.pages().await), &fields).await;
    assert!(preview.text.contains("A second person has to approve this"), "{}", preview.text);
    let answer = ana.post(&format!("{}/incident", ana.pages().await), &fields).await;
    let place = answer.header("location").to_owned();
    assert!(answer.status == 303 && place.contains("/approvals/apr_"), "{}", answer.text);
    let page = ana.get(&place).await;
    assert!(page.text.contains("somebody else has to approve"), "{}", page.text);
    assert_eq!(ana.post(&format!("{place}/approve"), &[]).await.status, 403);
    assert_eq!(orders(&app).await, "0");
    let bob = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(bob.post(&format!("{place}/approve"), &[]).await.status, 303);
    assert_eq!(orders(&app).await, "1");
}

#[tokio::test]
async fn the_database_itself_refuses_an_approval_by_the_requester_or_by_nobody() {
    let app = above("0").await;
    app.active("ada").await;
    let ana = Browser::of(&app, "ana", Role::Admin).await;
    let fields = [("kind", "invalidate"), ("all", "true"), ("reason", "incident 7")];
    ana.post(&format!("{}/incident", ana.pages().await), &fields).await;
    let set =
        "UPDATE approvals SET status = 'approved', request = NULL, decided_at = strongroom_now()";
    for by in [
        "decided_by = requested_by, decided_in = gen_random_uuid()",
        "decided_by = 'client: x', decided_in = gen_random_uuid()",
        "decided_by = 'operator', decided_in = gen_random_uuid()",
        "decided_by = 'operator: bob'",
        "decided_in = gen_random_uuid()",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("{set}, {by}")));
        let refused = refused.execute(&app.database.pool).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("23514"), "{by}: {refused}");
    }
}

#[tokio::test]
async fn an_auditor_sees_what_waits_and_decides_nothing() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let auditor = Browser::of(&app, "ana", Role::Auditor).await;
    let page = page_of(&auditor, &approval).await;
    assert_eq!(auditor.get(&page).await.status, 200);
    for what in ["approve", "reject", "withdraw"] {
        let answer = auditor.post(&format!("{page}/{what}"), &[("reason", "no")]).await;
        assert_eq!(answer.status, 403, "{what}");
    }
    assert_eq!(status(&app, &approval).await, "pending");
}

#[tokio::test]
async fn a_sign_in_that_is_older_than_five_minutes_approves_nothing() {
    let app = above("0").await;
    app.active("ada").await;
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    app.turn_clock(Duration::from_mins(6)).await;
    let approval = waiting(&revoke_all(&app).await);
    assert_eq!(approve(&browser, &approval).await.status, 403);
    assert_eq!(status(&app, &approval).await, "pending");
}

/// Approves as the console does, past its guard.
async fn past_the_guard(app: &TestApp, approval: &Value) -> Refused {
    let session = app.database.value("SELECT id FROM operator_sessions").await;
    let of = app.database.value("SELECT app_id FROM approvals WHERE app_id IS NOT NULL").await;
    let actor = Actor::operator_named("bob");
    let mut conn = app.context.pool.acquire().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    let approved = approvals::approve(
        &mut tx,
        &app.context.vault,
        session.parse::<uuid::Uuid>().unwrap().into(),
        &actor,
        of.parse::<uuid::Uuid>().unwrap().into(),
        id(approval).parse().unwrap(),
    );
    match approved.await {
        Err(DecideError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_approver_who_is_disabled_or_lowered_in_between_approves_nothing() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(browser.get(&page_of(&browser, &approval).await).await.status, 200);
    app.database.execute("UPDATE operators SET role = 'auditor'").await;
    assert_eq!(past_the_guard(&app, &approval).await, Refused::MayNot);
    app.database.execute("UPDATE operators SET role = 'operator'").await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    operators::disable(&mut conn, &Actor::operator(), &"bob".parse().unwrap()).await.unwrap();
    assert_eq!(past_the_guard(&app, &approval).await, Refused::MayNot);
    assert_eq!(status(&app, &approval).await, "pending");
}

#[tokio::test]
async fn after_an_hour_a_request_is_of_no_use_and_its_names_are_gone() {
    let app = above("0").await;
    app.active("ada").await;
    let body = json!({ "kind": "delink", "reason": "one", "filter": { "clientUserIDs": ["ada"] } });
    let answer = app.api.post(&app.token().await, "/v1/admin/revocations", &body).await;
    let approval = waiting(&answer);
    app.turn_clock(Duration::from_mins(60)).await;
    assert_eq!(status(&app, &approval).await, "expired");
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 409);
    assert_eq!(orders(&app).await, "0");
    // The same request anew ends the old one, and waits again.
    let again = app.api.post(&app.token().await, "/v1/admin/revocations", &body).await;
    assert_ne!(id(&waiting(&again)), id(&approval));
    let row = "SELECT status || coalesce(request, '') || described::text FROM approvals WHERE status <> 'pending'";
    let row = app.database.value(row).await;
    assert!(row.starts_with("expired{") && !row.contains("ada"), "{row}");
    assert!(app.database.audit().await.iter().any(|row| row.contains("approval.expired")));
}

#[tokio::test]
async fn a_request_that_is_repeated_while_it_waits_is_the_same_and_withdrawn_it_is_of_no_use() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&erase(&app, "ada").await);
    assert_eq!(waiting(&erase(&app, "ada").await), approval);
    let token = app.token().await;
    let other = app.client("admin").await.token(&app.api).await;
    let path = format!("/v1/admin/approvals/{}/withdraw", id(&approval));
    assert_eq!(app.api.post_empty(&other, &path).await.problem(), (404, "not_found"));
    let withdrawn = app.api.post_empty(&token, &path).await;
    assert_eq!((withdrawn.status, &withdrawn.json["status"]), (200, &json!("withdrawn")));
    assert_eq!(app.api.post_empty(&token, &path).await.problem(), (409, "approval_ended"));
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 409);
    assert_eq!(app.database.value("SELECT count(*) FROM erasures").await, "0");
}

#[tokio::test]
async fn an_erasure_waits_without_its_users_name_and_is_complete_after_the_approval() {
    let app = above("1000").await;
    app.active("ada").await;
    let approval = waiting(&erase(&app, "ada").await);
    let row = "SELECT request || described::text FROM approvals";
    assert!(!app.database.value(row).await.contains("ada"));
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 303);
    let receipt = erase(&app, "ada").await;
    assert!(
        receipt.json["approval"].is_null() && receipt.json["id"].is_string(),
        "{}",
        receipt.text
    );
}

#[tokio::test]
async fn ending_a_connection_without_its_delinking_waits_and_with_it_does_not() {
    let app = above("1000").await;
    let (one, two) = (app.active("ada").await, app.active("bob").await);
    let token = app.token().await;
    let told = app.api.invalidate(&token, id(&one), &json!({ "reason": "stolen" })).await;
    assert!(told.json["approval"].is_null(), "{}", told.text);
    let body = json!({ "reason": "stolen", "revokeUpstream": false });
    let approval = waiting(&app.api.invalidate(&token, id(&two), &body).await);
    assert_eq!(app.api.connection(&token, id(&two)).await["status"], "active");
    let browser = Browser::of(&app, "eve", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 303);
    let ended = app.api.connection(&token, id(&two)).await;
    assert_eq!(ended["status"], "invalidated", "{ended}");
}

#[tokio::test]
async fn giving_up_what_an_incident_has_not_delinked_waits() {
    let app = above("1000").await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let active = app.active("ada").await;
    let order = revoke_all(&app).await;
    let path = format!("/v1/admin/revocations/{}/cancel", id(&order.json));
    let approval = waiting(&app.api.post_empty(&app.token().await, &path).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 303);
    assert_eq!(app.database.value("SELECT state FROM bulk_revocations").await, "cancelled");
    // What is being told to the provider when the incident is cancelled is given up after the answer.
    app.settled(id(&active)).await;
    app.tick().await;
    assert_eq!(app.database.value("SELECT status FROM connections").await, "invalidated");
}

#[tokio::test]
async fn why_a_bulk_revocation_is_cancelled_is_optional_at_the_api_and_in_the_trail() {
    let app = TestApp::by_hand().await;
    let cancel = async |body: Option<Value>| {
        app.active("ada").await;
        let order = revoke_all(&app).await;
        let path = format!("/v1/admin/revocations/{}/cancel", id(&order.json));
        let token = app.token().await;
        match body {
            Some(body) => app.api.post(&token, &path, &body).await,
            None => app.api.post_empty(&token, &path).await,
        }
    };
    let said = "SELECT reason FROM audit_events WHERE action = 'revocations.cancelled' ORDER BY id DESC LIMIT 1";
    for body in [None, Some(json!({}))] {
        assert_eq!(cancel(body).await.status, 200);
        assert!(app.database.value(said).await.ends_with(" connections given up"));
    }
    assert_eq!(cancel(Some(json!({ "reason": "closed" }))).await.status, 200);
    assert!(app.database.value(said).await.ends_with(" connections given up: closed"));
    for wrong in [json!({ "reason": "" }), json!({ "why": "closed" })] {
        assert_eq!(cancel(Some(wrong)).await.problem(), (400, "invalid_request"));
    }
}

#[tokio::test]
async fn whoever_looks_at_an_erasure_that_waits_is_in_the_trail_as_on_the_persons_page() {
    let app = above("1000").await;
    app.active("ada").await;
    let approval = waiting(&erase(&app, "ada").await);
    let browser = Browser::of(&app, "eve", Role::Auditor).await;
    let page = browser.get(&page_of(&browser, &approval).await).await;
    assert!(page.text.contains("ada"), "{}", page.text);
    let viewed =
        "SELECT actor FROM audit_events WHERE action = 'user.viewed' AND user_id IS NOT NULL";
    assert_eq!(app.database.value(viewed).await, "operator: eve");
}

#[tokio::test]
async fn a_rejection_without_a_reason_gives_the_form_back() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let path = format!("{}/reject", page_of(&browser, &approval).await);
    let answer = browser.post(&path, &[("reason", &"x".repeat(600))]).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    for shown in ["<title>Error: ", "Nothing was decided", "id=\"reason-error\"", &"x".repeat(600)]
    {
        assert!(answer.text.contains(shown), "{shown}: {}", answer.text);
    }
    assert_eq!(status(&app, &approval).await, "pending");
}

#[tokio::test]
async fn a_revocation_that_cannot_be_counted_in_time_can_be_approved_all_the_same() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let page = format!("{}/approve", page_of(&browser, &approval).await);
    // The dry run reads these, and waits for as long as it may.
    let mut held = app.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE connection_counts").execute(&mut *held).await.unwrap();
    let answer = browser.get(&page).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains("could not be counted in time"), "{}", answer.text);
    assert!(answer.text.contains("incident 7"), "the request is whole: {}", answer.text);
    assert!(answer.text.contains("Approve and carry out"), "{}", answer.text);
    held.rollback().await.unwrap();
    assert!(!browser.get(&page).await.text.contains("could not be counted"));
    assert_eq!(approve(&browser, &approval).await.status, 303);
}

#[tokio::test]
async fn what_one_client_asks_for_keeps_nobody_else_from_asking() {
    let app = above("0").await;
    app.active("ada").await;
    let token = app.token().await;
    for n in 0..20 {
        let body = json!({ "kind": "invalidate", "reason": format!("junk {n}"), "filter": { "all": true } });
        waiting(&app.api.post(&token, "/v1/admin/revocations", &body).await);
    }
    let one_more = json!({ "kind": "invalidate", "reason": "junk", "filter": { "all": true } });
    let refused = app.api.post(&token, "/v1/admin/revocations", &one_more).await;
    assert_eq!(refused.problem(), (429, "too_many_requests"));
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let form = [("kind", "invalidate"), ("all", "true"), ("reason", "the real one")];
    let answer = browser.post(&format!("{}/incident", browser.pages().await), &form).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert!(answer.header("location").contains("/approvals/"), "{}", answer.header("location"));
}

#[tokio::test]
async fn a_request_that_somebody_changed_in_the_table_is_not_carried_out() {
    let app = above("1000").await;
    app.active("ada").await;
    app.active("bob").await;
    let approval = waiting(&erase(&app, "ada").await);
    let change = "UPDATE approvals SET request = replace(request,
        (SELECT id::text FROM users WHERE client_user_id = 'ada'),
        (SELECT id::text FROM users WHERE client_user_id = 'bob'))";
    assert!(sqlx::query(change).execute(&app.database.pool).await.is_err(), "a trigger refuses it");
    app.database.execute("ALTER TABLE approvals DISABLE TRIGGER approvals_end_once").await;
    app.database.execute(change).await;
    let browser = Browser::of(&app, "eve", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 409);
    assert_eq!(app.database.value("SELECT count(*) FROM erasures").await, "0");
}

#[tokio::test]
async fn a_rejection_has_a_reason_and_ends_the_request() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let path = format!("{}/reject", page_of(&browser, &approval).await);
    assert_eq!(browser.post(&path, &[]).await.status, 400);
    assert_eq!(browser.post(&path, &[("reason", "too wide")]).await.status, 303);
    let answer = app.api.get(&app.token().await, "/v1/admin/approvals").await;
    let row = &answer.json["approvals"][0];
    assert_eq!((&row["status"], &row["decisionReason"]), (&json!("rejected"), &json!("too wide")));
    assert_eq!(row["decidedBy"], "operator: bob");
    assert_eq!(approve(&browser, &approval).await.status, 409);
}

async fn run(app: &TestApp, arguments: &[&str]) -> Output {
    let mut command = command(app, &[]);
    command.args(["--output", "json"]).args(arguments).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What waits, of a command that ends with the status for it.
fn printed(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["approval"]["status"], "pending");
    printed["approval"].clone()
}

#[tokio::test]
async fn commands_ask_and_end_with_a_status_of_their_own() {
    let app = above("0").await;
    app.active("ada").await;
    add_operator(&app, "ana", Role::Operator).await;
    let revoke = ["revocations", "create", "--all", "--reason", "incident 7"];
    let approval = printed(&run(&app, &[&["--as", "ana"], revoke.as_slice()].concat()).await);
    printed(&run(&app, &["users", "erase", "ada"]).await);
    let refused = run(&app, &["approvals", "withdraw", id(&approval)]).await;
    assert_eq!(refused.status.code(), Some(2), "another's");
    let withdrawn = run(&app, &["--as", "ana", "approvals", "withdraw", id(&approval)]).await;
    assert!(withdrawn.status.success(), "{}", String::from_utf8_lossy(&withdrawn.stderr));
    let shown = run(&app, &["approvals", "show", id(&approval)]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["status"], &shown["requestedBy"]),
        (&json!("withdrawn"), &json!("operator: ana"))
    );
    let listed = run(&app, &["approvals", "list"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(orders(&app).await, "0");
}

#[tokio::test]
async fn who_the_operators_are_is_approved_by_another_admin_and_power_is_taken_at_once() {
    let app = above("1000").await;
    let operator = Browser::of(&app, "bob", Role::Operator).await;
    let admin = Browser::of(&app, "ana", Role::Admin).await;
    let raised = printed(&run(&app, &["operators", "set-role", "bob", "--role", "admin"]).await);
    let added = printed(&run(&app, &["operators", "add", "eve", "--role", "operator"]).await);
    assert!(run(&app, &["operators", "add", "max", "--role", "auditor"]).await.status.success());
    for approval in [&raised, &added] {
        assert_eq!(approve(&operator, approval).await.status, 403);
    }
    for approval in [&raised, &added] {
        assert_eq!(approve(&admin, approval).await.status, 303);
    }
    let roles = "SELECT string_agg(name || ' ' || role, ', ' ORDER BY name) FROM operators";
    let roles = async || app.database.value(roles).await;
    assert_eq!(roles().await, "ana admin, bob admin, eve operator, max auditor");
    assert!(
        run(&app, &["operators", "set-role", "bob", "--role", "auditor"]).await.status.success()
    );
    assert!(run(&app, &["operators", "disable", "eve"]).await.status.success());
    // What concerns the deployment is no client's to read.
    let path = format!("/v1/admin/approvals/{}", id(&raised));
    assert_eq!(app.api.get(&app.token().await, &path).await.status, 404);
}

#[tokio::test]
async fn what_waits_stays_bound_to_its_request_when_the_number_changes() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let off =
        app.replica_with(&[("STRONGROOM_CONSOLE_LISTEN", ""), ("STRONGROOM_FOUR_EYES", "")]).await;
    let answer =
        off.get(&app.token().await, &format!("/v1/admin/approvals/{}", id(&approval))).await;
    assert_eq!(answer.json["status"], "pending");
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    assert_eq!(approve(&browser, &approval).await.status, 303);
    assert_eq!(orders(&app).await, "1");
}

#[tokio::test]
async fn what_repeats_a_request_that_was_approved_is_answered_without_asking_again() {
    let app = above("0").await;
    app.active("ada").await;
    let body = json!({ "kind": "delink", "reason": "one", "filter": { "all": true } });
    let send = async || {
        let request = app.api.request(reqwest::Method::POST, "/v1/admin/revocations");
        let request = request.bearer_auth(app.token().await).header("idempotency-key", "seven");
        app.api.send(request.json(&body)).await
    };
    let approval = waiting(&send().await);
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    approve(&browser, &approval).await;
    let answer = send().await;
    assert!(answer.status == 202 && id(&answer.json).starts_with("ord_"), "{}", answer.text);
    assert_eq!(orders(&app).await, "1");
}

#[tokio::test]
async fn another_app_sees_and_approves_none_of_it() {
    let app = above("0").await;
    app.active("ada").await;
    let approval = waiting(&revoke_all(&app).await);
    let token = app.token_of_another_app().await;
    let path = format!("/v1/admin/approvals/{}", id(&approval));
    assert_eq!(app.api.get(&token, &path).await.problem(), (404, "not_found"));
    assert_eq!(app.api.post_empty(&token, &format!("{path}/withdraw")).await.status, 404);
    let listed = app.api.get(&token, "/v1/admin/approvals").await;
    assert_eq!(listed.json["approvals"], json!([]));
    let other = app.database.value("SELECT id FROM apps WHERE name <> 'default' LIMIT 1").await;
    let browser = Browser::of(&app, "bob", Role::Operator).await;
    let page = format!("/apps/app_{other}/approvals/{}", id(&approval));
    assert_eq!(browser.get(&page).await.status, 404);
    assert_eq!(browser.post(&format!("{page}/approve"), &[]).await.status, 404);
}

#[tokio::test]
async fn what_waits_is_counted_by_its_kind_with_the_age_of_the_oldest() {
    let app = above("0").await;
    app.active("ada").await;
    app.active("bob").await;
    let gauge = async |of: &str, kind: &str| {
        strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
        let name = format!("strongroom_approvals_pending{of}{{kind=\"{kind}\"}}");
        app.metric(&name).await
    };
    waiting(&erase(&app, "ada").await);
    app.turn_clock(Duration::from_mins(10)).await;
    let second = waiting(&erase(&app, "bob").await);
    assert_eq!(gauge("", "erasure").await, 2.0);
    let age = gauge("_oldest_seconds", "erasure").await;
    assert!((600.0..700.0).contains(&age), "{age}");
    assert_eq!(gauge("", "bulk_revocation").await, 0.0);
    waiting(&revoke_all(&app).await);
    assert_eq!(gauge("", "bulk_revocation").await, 1.0);
    // The first one's hour is over, and the second is approved.
    app.turn_clock(Duration::from_mins(51)).await;
    assert_eq!(gauge("", "erasure").await, 1.0);
    let browser = Browser::of(&app, "ben", Role::Operator).await;
    assert_eq!(approve(&browser, &second).await.status, 303);
    assert_eq!(gauge("", "erasure").await, 0.0);
    assert_eq!(gauge("_oldest_seconds", "erasure").await, 0.0);
    let metrics = app.metrics().await;
    for kind in ["bulk_revocation", "cancellation", "invalidation", "erasure", "operator", "role"] {
        let name = format!("strongroom_approvals_pending{{kind=\"{kind}\"}}");
        assert!(metrics.contains(&name), "{name}");
    }
}
