//! The audit trail: its chain, what tampering with it looks like, reading, exporting, and the privileges
//! that keep the service itself from altering it.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use strongroom::audit::{self, Fault, Report};
use strongroom_dev::sandbox::Fault as DapiFault;

use crate::support::{Answer, BOOTSTRAP_ID, Process, TestApp, TestDatabase, command, id};

const EVENTS: &str = "/v1/admin/audit-events";
const CHECKPOINT: &str = "/v1/admin/audit-checkpoint";

impl TestApp {
    /// What a check of the chain of the app `default` finds.
    async fn check(&self) -> Report {
        self.check_against(&[]).await
    }

    async fn check_against(&self, points: &[audit::Checkpoint]) -> Report {
        let mut conn = self.context.pool.acquire().await.unwrap();
        let app = strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap();
        let known = audit::Known { checkpoints: points.to_vec(), ..Default::default() };
        audit::verify(&mut conn, app.id, &known, |_, _| {}).await.unwrap()
    }

    async fn fault(&self) -> Option<(Fault, Option<i64>)> {
        self.check().await.broken.map(|broken| (broken.fault, broken.seq))
    }

    /// A trail of a few rows, linked.
    async fn linked_trail(&self) -> Value {
        let connection = self.active("ada").await;
        let token = self.token().await;
        for _ in 0..5 {
            assert_eq!(self.api.reveal(&token, id(&connection)).await.status, 200);
        }
        self.link().await;
        connection
    }

    /// Changes the trail as only a superuser can, with the triggers off.
    async fn tamper(&self, sql: &'static str) {
        let mut tx = self.database.pool.begin().await.unwrap();
        tx.execute("SET LOCAL session_replication_role = replica").await.unwrap();
        let done = tx.execute(sql).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
        tx.commit().await.unwrap();
    }

    async fn point(&self) -> audit::Checkpoint {
        let answer = self.api.get(&self.token().await, CHECKPOINT).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        payload(answer.json["checkpoint"].as_str().unwrap())
    }

    async fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.api.get(&self.token().await, &format!("{EVENTS}?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["events"].as_array().unwrap().clone()
    }

    async fn lines(&self, token: &str, query: &str) -> Answer {
        let request = self.api.request(Method::GET, &format!("{EVENTS}?{query}"));
        self.api.send(request.bearer_auth(token).header("accept", "application/x-ndjson")).await
    }
}

/// What a JWS says, unverified.
fn payload<T: serde::de::DeserializeOwned>(jws: &str) -> T {
    use base64::Engine as _;
    let part = jws.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["action"].as_str().unwrap()).collect()
}

async fn run(app: &TestApp, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(app, &[]);
    command.args(arguments).stderr(std::process::Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

// ---- The chain.

#[tokio::test]
async fn one_round_links_everything_that_was_committed() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    app.api.reveal(&app.token().await, id(&connection)).await;
    let before = app.check().await;
    assert_eq!((before.linked, before.broken), (0, None));
    let written = app.database.value("SELECT count(*) FROM audit_events").await;
    assert_eq!(before.unlinked.to_string(), written);
    assert!(before.oldest_unlinked.is_some());
    app.link().await;
    let after = app.check().await;
    assert_eq!((after.linked.to_string(), after.unlinked, after.broken), (written, 0, None));
    assert_eq!(app.database.value("SELECT count(*) FROM audit_unlinked").await, "0");
    assert_eq!(app.link().await, 0);
}

#[tokio::test]
async fn a_service_that_runs_links_by_itself_within_a_second_or_so() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    let started = std::time::Instant::now();
    while app.check().await.unlinked > 0 || app.check().await.linked == 0 {
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    while app.metric("strongroom_audit_linked_total").await == 0.0 {
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
    assert!(app.metrics().await.contains("\nstrongroom_audit_unlinked "));
}

#[tokio::test]
async fn a_row_that_commits_late_is_linked_behind_those_that_came_after_it() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let mut late = app.database.pool.begin().await.unwrap();
    late.execute(
        "INSERT INTO audit_events (app_id, action, outcome, actor)
         SELECT id, 'test.late', 'ok', 'service' FROM apps WHERE name = 'default'",
    )
    .await
    .unwrap();
    app.active("bob").await;
    app.link().await;
    let seen = app.check().await;
    assert_eq!((seen.unlinked, seen.broken), (0, None));
    late.commit().await.unwrap();
    assert_eq!(app.check().await.unlinked, 1);
    assert_eq!(app.link().await, 1);
    let last = app.check().await;
    assert_eq!((last.linked, last.unlinked, last.broken), (seen.linked + 1, 0, None));
    let at_the_end = "SELECT e.action FROM audit_links l JOIN audit_events e ON e.id = l.event_id
                      JOIN apps a ON a.id = l.app_id WHERE a.name = 'default'
                      ORDER BY l.seq DESC LIMIT 1";
    assert_eq!(app.database.value(at_the_end).await, "test.late");
}

#[tokio::test]
async fn rows_of_a_transaction_that_is_undone_are_not_linked() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let mut undone = app.database.pool.begin().await.unwrap();
    let sql = "INSERT INTO audit_events (app_id, action, outcome, actor)
               SELECT id, 'test.undone', 'ok', 'service' FROM apps";
    undone.execute(sql).await.unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(app.link().await, 0);
    assert_eq!(app.check().await.unlinked, 0);
}

#[tokio::test]
async fn replicas_that_link_at_once_make_one_chain() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.token_of_another_app().await;
    app.database
        .execute(
            "INSERT INTO audit_events (app_id, action, outcome, actor)
             SELECT id, 'test.many', 'ok', 'service' FROM apps, generate_series(1, 2500)",
        )
        .await;
    // Each round ends when nothing waits or when another one is at it.
    for _ in 0..4 {
        futures_util::future::join_all((0..4).map(|_| app.link())).await;
    }
    assert_eq!(app.database.value("SELECT count(*) FROM audit_unlinked").await, "0");
    let report = app.check().await;
    assert_eq!((report.unlinked, report.broken), (0, None));
    let both = "SELECT (SELECT count(*) FROM audit_links) = (SELECT count(*) FROM audit_events)";
    assert_eq!(app.database.value(both).await, "true");
    let gaps = "SELECT bool_and(n = last) FROM (SELECT count(*) AS n, max(seq) AS last
                FROM audit_links GROUP BY app_id) chains";
    assert_eq!(app.database.value(gaps).await, "true");
}

#[tokio::test]
async fn a_chainer_that_hangs_holds_up_no_writer_and_no_other_replica_for_ever() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let mut hanging = app.database.pool.begin().await.unwrap();
    hanging.execute("SELECT one FROM audit_chainer FOR UPDATE").await.unwrap();
    app.active("bob").await;
    assert_eq!(app.link().await, 0);
    hanging.rollback().await.unwrap();
    assert!(app.link().await > 0);
}

#[tokio::test]
async fn a_queue_that_names_a_row_twice_or_none_at_all_breaks_nothing() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.active("bob").await;
    app.database
        .execute(
            "INSERT INTO audit_unlinked SELECT app_id, id FROM audit_events;
             INSERT INTO audit_unlinked SELECT id, gen_random_uuid() FROM apps;",
        )
        .await;
    app.link().await;
    let report = app.check().await;
    assert_eq!((report.unlinked, report.broken), (0, None));
}

// ---- Tampering.

#[tokio::test]
async fn an_edited_row_is_found() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.tamper(
        "UPDATE audit_events SET client_id = 'somebody' WHERE id =
            (SELECT event_id FROM audit_links l JOIN apps a ON a.id = l.app_id
             WHERE a.name = 'default' AND seq = 4)",
    )
    .await;
    assert_eq!(app.fault().await, Some((Fault::Changed, Some(4))));
    assert_eq!(app.check().await.linked, 3);
}

#[tokio::test]
async fn a_removed_row_is_found_even_together_with_its_link() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.tamper(
        "DELETE FROM audit_events WHERE id =
            (SELECT event_id FROM audit_links l JOIN apps a ON a.id = l.app_id
             WHERE a.name = 'default' AND seq = 3)",
    )
    .await;
    assert_eq!(app.fault().await, Some((Fault::Removed, Some(3))));
    app.tamper("DELETE FROM audit_links WHERE seq = 3").await;
    assert_eq!(app.fault().await, Some((Fault::LinkRemoved, Some(3))));
    // Closing the gap moves every later row to a place that is not its own.
    app.tamper("UPDATE audit_links SET seq = seq + 1000 WHERE seq > 3").await;
    app.tamper("UPDATE audit_links SET seq = seq - 1001 WHERE seq > 1000").await;
    assert_eq!(app.fault().await, Some((Fault::Changed, Some(3))));
}

#[tokio::test]
async fn rows_that_changed_places_are_found() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.tamper("UPDATE audit_links SET seq = seq + 1000 WHERE seq IN (2, 3)").await;
    app.tamper("UPDATE audit_links SET seq = 1005 - seq WHERE seq > 1000").await;
    assert_eq!(app.fault().await, Some((Fault::Changed, Some(2))));
}

#[tokio::test]
async fn rows_whose_links_were_cut_off_are_found() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let whole = app.check().await.linked;
    app.tamper("DELETE FROM audit_links WHERE seq > 4").await;
    let report = app.check().await;
    assert_eq!(report.linked, 4);
    assert_eq!(report.broken.unwrap().fault, Fault::NeverLinked);
    assert!(whole > 4);
}

#[tokio::test]
async fn a_row_that_was_put_in_without_the_queue_is_found() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.tamper(
        "INSERT INTO audit_events (app_id, action, outcome, actor)
         SELECT id, 'test.smuggled', 'ok', 'service' FROM apps WHERE name = 'default'",
    )
    .await;
    assert_eq!(app.fault().await, Some((Fault::NeverLinked, None)));
}

#[tokio::test]
async fn a_forged_link_is_found() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let whole = app.check().await.linked;
    app.tamper(
        "WITH forged AS (
            INSERT INTO audit_events (app_id, action, outcome, actor)
            SELECT id, 'test.forged', 'ok', 'service' FROM apps WHERE name = 'default'
            RETURNING app_id, id)
         INSERT INTO audit_links (app_id, seq, event_id, version, hash)
         SELECT f.app_id, max(l.seq) + 1, f.id, 1, sha256('x')
         FROM forged f JOIN audit_links l ON l.app_id = f.app_id GROUP BY f.app_id, f.id",
    )
    .await;
    assert_eq!(app.fault().await, Some((Fault::Changed, Some(whole + 1))));
}

#[tokio::test]
async fn a_chain_that_was_cut_off_with_its_rows_holds_and_a_checkpoint_tells() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let point = app.point().await;
    assert_eq!(app.check_against(std::slice::from_ref(&point)).await.broken, None);
    app.tamper(
        "DELETE FROM audit_events e USING audit_links l
         WHERE l.app_id = e.app_id AND l.event_id = e.id AND l.seq > 4",
    )
    .await;
    app.tamper("DELETE FROM audit_links WHERE seq > 4").await;
    assert_eq!(app.check().await.broken, None, "nothing in the database tells");
    let found = app.check_against(&[point]).await.broken.unwrap();
    assert_eq!((found.fault, found.seq), (Fault::CutOff, Some(5)));
}

#[tokio::test]
async fn a_chain_that_was_rewritten_as_a_whole_holds_and_a_checkpoint_tells() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let point = app.point().await;
    app.tamper(
        "UPDATE audit_events SET reason = 'nothing special' WHERE action = 'token.revealed'",
    )
    .await;
    app.tamper("DELETE FROM audit_links").await;
    app.tamper("DELETE FROM audit_heads").await;
    app.tamper("INSERT INTO audit_unlinked SELECT app_id, id FROM audit_events").await;
    app.link().await;
    assert_eq!(app.check().await.broken, None, "nothing in the database tells");
    let found = app.check_against(std::slice::from_ref(&point)).await.broken.unwrap();
    assert_eq!((found.fault, found.seq), (Fault::Rewritten, Some(point.seq)));
}

#[tokio::test]
async fn an_older_checkpoint_holds_while_the_chain_goes_on() {
    let app = TestApp::by_hand().await;
    let empty = app.point().await;
    app.linked_trail().await;
    let older = app.point().await;
    app.linked_trail().await;
    let newer = app.point().await;
    assert!(empty.seq < older.seq && older.seq < newer.seq);
    let report = app.check_against(&[newer, empty, older]).await;
    assert_eq!((report.broken, report.checkpoints), (None, 3));
}

#[tokio::test]
async fn a_chain_longer_than_one_piece_is_checked_to_its_end() {
    let app = TestApp::by_hand().await;
    app.database
        .execute(
            "INSERT INTO audit_events (app_id, action, outcome, actor, reason)
             SELECT id, 'test.many', 'ok', 'service', n::text
             FROM apps, generate_series(1, 4500) n WHERE name = 'default'",
        )
        .await;
    app.link().await;
    let report = app.check().await;
    assert!(report.linked > 4500 && report.broken.is_none());
    app.tamper("UPDATE audit_events SET reason = 'x' WHERE reason = '4500'").await;
    let broken = app.check().await.broken.unwrap();
    assert!(broken.fault == Fault::Changed && broken.seq.unwrap() > 4000);
}

// ---- The command line.

#[tokio::test]
async fn strongroom_audit_verify_tells_a_whole_trail_from_a_broken_one() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let (status, text, _) = run(&app, &["audit", "verify"]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("default: whole. "), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("points");
    let (status, point, _) = run(&app, &["audit", "checkpoint"]).await;
    assert_eq!(status, 0);
    std::fs::write(&file, &point).unwrap();
    let against = ["audit", "verify", "--checkpoint", file.to_str().unwrap(), "--output", "json"];
    let (status, json, _) = run(&app, &against).await;
    let verdict: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &verdict["ok"]), (0, &json!(true)), "{json}");
    assert_eq!(verdict["apps"][0]["checkpoints"], 1);

    app.tamper("DELETE FROM audit_events WHERE action = 'token.revealed'").await;
    let (status, json, error) = run(&app, &against).await;
    let verdict: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &verdict["ok"]), (1, &json!(false)));
    assert_eq!(verdict["apps"][0]["broken"]["fault"], "removed");
    assert!(error.contains("the audit trail is not what was written"), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_nobody_here_signed_is_refused_and_a_kept_key_set_helps() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (_, point, _) = run(&app, &["audit", "checkpoint"]).await;
    let points = file("points", &point);
    let jwks = file("jwks", &app.api.get("x", "/.well-known/jwks.json").await.text);

    let (head, signature) = point.trim().rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    let forged = file("forged", &format!("{head}.{turned}"));
    let (status, _, error) = run(&app, &["audit", "verify", "--checkpoint", &forged]).await;
    assert_eq!(status, 2);
    assert!(error.contains("line 1: its signature does not verify"), "{error}");

    let access = file("access", &app.token().await);
    let (status, _, error) = run(&app, &["audit", "verify", "--checkpoint", &access]).await;
    assert_eq!(status, 2);
    assert!(error.contains("is of another kind"), "{error}");

    // The key that signed it is gone, years later.
    let (status, _, _) = run(&app, &["keys", "signing", "rotate", "--now"]).await;
    assert_eq!(status, 0);
    app.turn_clock(std::time::Duration::from_secs(30)).await;
    app.database.execute("DELETE FROM signing_keys WHERE retired_at IS NOT NULL").await;
    let (status, _, error) = run(&app, &["audit", "verify", "--checkpoint", &points]).await;
    assert_eq!(status, 2);
    assert!(error.contains("is not in the key set"), "{error}");
    let kept = ["audit", "verify", "--checkpoint", &points, "--jwks", &jwks];
    assert_eq!(run(&app, &kept).await.0, 0);
}

#[tokio::test]
async fn strongroom_audit_lists_and_exports() {
    let app = TestApp::by_hand().await;
    let connection = app.linked_trail().await;
    let (status, text, _) = run(&app, &["audit", "list", "--user", "ada", "--limit", "3"]).await;
    assert_eq!((status, text.matches(") by ").count()), (0, 3), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("token.revealed") && text.contains(id(&connection)), "{text}");
    let export = ["audit", "export", "--action", "token.revealed", "--actor", "client"];
    let (status, text, _) = run(&app, &export).await;
    assert_eq!((status, text.lines().count()), (0, 5));
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["action"], "token.revealed");
        assert!(event["seq"].is_i64() && event["hash"].is_string(), "{event}");
    }
}

// ---- HTTP.

#[tokio::test]
async fn an_event_tells_who_from_where_what_and_why() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    let token = app.token_for("tokens:read").await;
    let path = format!("/v1/connections/{}/token", id(&connection));
    let revealed = app.api.post(&token, &path, &json!({ "reason": "payroll run 7" })).await;
    let [event] = app.events("action=token.revealed").await.try_into().unwrap();
    assert_eq!(event["actor"], "client");
    assert_eq!(event["clientID"], BOOTSTRAP_ID);
    assert_eq!(event["scope"], "tokens:read");
    assert_eq!(event["ip"], "127.0.0.1");
    assert_eq!(event["requestID"], revealed.header("x-request-id"));
    assert_eq!(event["connection"], connection["id"]);
    assert_eq!(event["outcome"], "ok");
    assert_eq!(event["reason"], "payroll run 7");
    assert!(event["id"].as_str().unwrap().starts_with("evt_"));
    assert!(event["user"].as_str().unwrap().starts_with("usr_"));
    assert_eq!((&event["seq"], &event["hash"]), (&Value::Null, &Value::Null));
    app.link().await;
    let [event] = app.events("action=token.revealed").await.try_into().unwrap();
    assert!(event["seq"].is_i64() && event["hash"].as_str().unwrap().len() == 64);
}

#[tokio::test]
async fn filters_let_through_what_they_say_linked_or_not() {
    let app = TestApp::by_hand().await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    let token = app.token().await;
    app.api.reveal(&token, id(&ada)).await;
    app.api.session(&token, "ada").await;
    for linked in [false, true] {
        if linked {
            app.link().await;
        }
        let of_ada = app.events("clientUserID=ada").await;
        assert_eq!(
            actions(&of_ada),
            ["session.created", "token.revealed", "connection.activated", "connection.received"]
        );
        let by_connection = app.events(&format!("connection={}", id(&ada))).await;
        assert_eq!(actions(&by_connection).len(), 3);
        let both = format!("connection={}&clientUserID=ada&actor=client", id(&ada));
        assert_eq!(actions(&app.events(&both).await), ["token.revealed", "connection.received"]);
        let mismatch = format!("connection={}&clientUserID=bob", id(&ada));
        assert!(app.events(&mismatch).await.is_empty());
        assert_eq!(app.events(&format!("connection={}", id(&bob))).await.len(), 2);
        assert!(app.events("clientUserID=nobody").await.is_empty());
        assert!(app.events("clientID=nobody").await.is_empty());
        let service = app.events("actor=service&action=connection.activated").await;
        assert_eq!(service.len(), 2);
    }
}

#[tokio::test]
async fn times_bound_what_is_told() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.turn_clock(std::time::Duration::from_secs(3600)).await;
    let connection = app.active("bob").await;
    let at = app
        .events(&format!("connection={}&action=connection.received", id(&connection)))
        .await[0]["at"]
        .as_str()
        .unwrap()
        .to_owned();
    let received = |query: String| {
        let app = &app;
        async move { app.events(&format!("action=connection.received&{query}")).await.len() }
    };
    assert_eq!(received(format!("after={at}")).await, 1);
    assert_eq!(received(format!("before={at}")).await, 1);
    assert_eq!(received(format!("before={at}&after={at}")).await, 0);
    assert_eq!(received("after=2020-01-01T00:00:00Z".to_owned()).await, 2);
    assert_eq!(received("before=1969-01-01T00:00:00Z".to_owned()).await, 0);
}

#[tokio::test]
async fn pages_follow_one_another_without_a_gap() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let all = app.events("limit=100").await;
    let (mut paged, mut query) = (Vec::new(), "limit=2".to_owned());
    let token = app.token().await;
    loop {
        let page = app.api.get(&token, &format!("{EVENTS}?{query}")).await.json;
        paged.extend(page["events"].as_array().unwrap().clone());
        match page["nextCursor"].as_str() {
            Some(cursor) => query = format!("limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
    let ids: Vec<_> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn a_query_that_means_nothing_is_refused() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    for query in [
        "limit=0",
        "limit=101",
        "cursor=x",
        "before=yesterday",
        "after=2026-11-21",
        "actor=nobody",
        "connection=x",
        "action=",
        "action=%00",
        "clientUserID=%00",
        "clientID=a%00",
    ] {
        let answer = app.api.get(&token, &format!("{EVENTS}?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn json_lines_hold_everything_in_pieces() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    app.database
        .execute(
            "INSERT INTO audit_events (app_id, action, outcome, actor, reason)
             SELECT id, 'test.many', 'ok', 'service', n::text
             FROM apps, generate_series(1, 1100) n WHERE name = 'default'",
        )
        .await;
    let token = app.token().await;
    let answer = app.lines(&token, "action=test.many").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut reasons: Vec<u32> =
        lines.iter().map(|event| event["reason"].as_str().unwrap().parse().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, (1..=1100).collect::<Vec<_>>());
    assert_eq!(app.lines(&token, "clientUserID=nobody").await.text, "");
    assert_eq!(app.lines(&token, "limit=x").await.problem(), (400, "invalid_request"));
}

#[tokio::test]
async fn an_app_sees_its_own_trail_alone() {
    let app = TestApp::by_hand().await;
    let connection = app.linked_trail().await;
    let stranger = app.token_of_another_app().await;
    app.link().await;
    for query in ["", "clientUserID=ada", &format!("connection={}", id(&connection))] {
        let page = app.api.get(&stranger, &format!("{EVENTS}?{query}")).await;
        let text = page.text + &app.lines(&stranger, query).await.text;
        assert!(!text.contains(id(&connection)) && !text.contains("token.revealed"), "{text}");
    }
    let theirs = app.api.get(&stranger, CHECKPOINT).await.json;
    let ours = app.api.get(&app.token().await, CHECKPOINT).await.json;
    assert_ne!(theirs["app"], ours["app"]);
    assert_ne!(theirs["hash"], ours["hash"]);
    let points = [payload(theirs["checkpoint"].as_str().unwrap())];
    let _: &[audit::Checkpoint] = &points;
    assert!(app.check_against(&points).await.broken.is_some(), "each chain has links of its own");
}

#[tokio::test]
async fn a_checkpoint_is_a_statement_of_the_issuer_and_no_access_token() {
    let app = TestApp::by_hand().await;
    app.linked_trail().await;
    let token = app.token().await;
    let answer = app.api.get(&token, CHECKPOINT).await;
    let jws = answer.json["checkpoint"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(jws).unwrap();
    assert_eq!(header.typ.as_deref(), Some("strongroom-audit-checkpoint+jwt"));
    let keys: Value = app.api.get(&token, "/.well-known/jwks.json").await.json;
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
    let key =
        jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(header.alg);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Value>(jws, &key, &rules).unwrap().claims;
    let metadata = app.api.get(&token, "/.well-known/oauth-authorization-server").await.json;
    assert_eq!(claims["iss"], metadata["issuer"]);
    assert_eq!((&claims["seq"], &claims["hash"]), (&answer.json["seq"], &answer.json["hash"]));
    assert_eq!(claims["hash"], app.check().await.hash);
    assert_eq!(app.api.get(jws, EVENTS).await.problem(), (401, "unauthorized"));
}

// ---- What is recorded.

#[tokio::test]
async fn a_revocation_that_ends_at_once_is_recorded_with_its_reason() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    let body = json!({ "reason": "a stolen phone", "revokeUpstream": false });
    let answer = app.api.invalidate(&app.token().await, id(&connection), &body).await;
    assert_eq!(answer.connection_status(), "invalidated");
    let [event] = app.events("action=connection.invalidated").await.try_into().unwrap();
    assert_eq!((&event["reason"], &event["actor"]), (&json!("a stolen phone"), &json!("client")));
}

#[tokio::test]
async fn a_superseded_connection_is_recorded_with_its_successor() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    app.active_from("ada", &result).await;
    let newer = app.active_from("ada", &app.connect_again(&result)).await;
    let [event] = app.events("action=connection.invalidated").await.try_into().unwrap();
    assert_eq!(event["reason"], format!("replaced by {}", id(&newer)));
}

#[tokio::test]
async fn what_an_operator_does_with_master_keys_is_in_every_trail() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let newer = "k2:Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";
    let both = format!("{newer},{}", crate::support::MASTER_KEY);
    for arguments in [vec!["keys", "rewrap"], vec!["keys", "retire", "k1"]] {
        let mut command = command(&app, &[("STRONGROOM_MASTER_KEYS", &both)]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success());
    }
    let [event] = app.events("action=data_keys.rewrapped").await.try_into().unwrap();
    assert_eq!(event["actor"], "operator");
    assert!(event["reason"].as_str().unwrap().ends_with("data keys with k2"), "{event}");
    let [event] = app.events("action=master_key.retired").await.try_into().unwrap();
    assert_eq!(event["reason"], "k1");
}

#[tokio::test]
async fn a_failed_reading_writes_nothing_down_as_read() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    let token = app.token().await;
    app.sandbox.set_fault(DapiFault::status(503)).unwrap();
    app.api.delink(&token, id(&connection)).await;
    assert_eq!(app.api.reveal(&token, id(&connection)).await.status, 409);
    assert!(app.events("action=token.revealed").await.is_empty());
}

// ---- Privileges.

/// `DATABASE_URL` for a role of one's own, and both roles made in the cluster of the test.
async fn two_roles(stage: &crate::support::Stage) -> (String, String, String) {
    let tag = stage.database.value("SELECT right(current_database(), 12)").await;
    let (owner, service) = (format!("owner_{tag}"), format!("Service-{tag}"));
    let sql = format!(
        "DROP SCHEMA public CASCADE;
         CREATE ROLE \"{owner}\" LOGIN; CREATE ROLE \"{service}\" LOGIN;
         CREATE SCHEMA public AUTHORIZATION \"{owner}\";"
    );
    stage.database.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    let of = |role: &str| stage.database.url().replace("user=postgres", &format!("user={role}"));
    (of(&owner), of(&service), service)
}

/// The service's role changes nothing of the trail, nor what keeps it from that, and reaches no part of it.
async fn assert_cannot_alter(service: &str) {
    let mut conn = PgConnection::connect(service).await.unwrap();
    for table in
        ["audit_events", "audit_links", "audit_events_before", "audit_links_rest", "audit_heads"]
    {
        for sql in [
            format!("UPDATE {table} SET app_id = app_id"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("DROP TABLE {table}"),
            format!("CREATE TRIGGER t AFTER INSERT ON {table} EXECUTE FUNCTION strongroom_now()"),
        ] {
            let error = conn.execute(AssertSqlSafe(sql.clone())).await.unwrap_err();
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "42501", "{sql}: {error}");
        }
    }
    for sql in [
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION audit_events_are_append_only() RETURNS trigger
         LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "DELETE FROM _sqlx_migrations",
        "SELECT FROM audit_events_before",
        "INSERT INTO audit_links_rest SELECT * FROM audit_links",
        "INSERT INTO audit_archives SELECT app_id, 'before', '', '' FROM audit_heads",
        "UPDATE audit_months SET dropped_at = now()",
        "UPDATE app_imports SET statement = ''",
        "DELETE FROM app_imports",
        "SELECT audit_add_months(0)",
        "SELECT audit_add_part('a', 'b')",
    ] {
        let error = conn.execute(sql).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{sql}");
    }
}

/// The service's role has the next months' parts made, and reaches none, though the owner gives it all new tables.
async fn assert_reaches_no_new_month(
    stage: &crate::support::Stage,
    owner: &str,
    service: &str,
    role: &str,
) {
    stage
        .database
        .execute("CREATE OR REPLACE FUNCTION strongroom_now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() + interval '400 days' $$")
        .await;
    let generous = format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO \"{role}\"");
    PgConnection::connect(owner).await.unwrap().execute(AssertSqlSafe(generous)).await.unwrap();
    let mut conn = PgConnection::connect(service).await.unwrap();
    conn.execute("SELECT audit_prepare_months()").await.unwrap();
    let reachable = "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a
                     WHERE c.relispartition AND a.grantee <> c.relowner";
    assert_eq!(stage.database.value(reachable).await, "0");
}

#[tokio::test]
async fn where_the_roles_differ_the_service_works_and_cannot_alter_the_trail() {
    let database = TestDatabase::new().await.past_the_pooler();
    let mut stage = TestApp::builder().on(database).stage().await;
    let (owner, service, role) = two_roles(&stage).await;
    assert_ne!(owner, stage.database.url(), "{owner}");
    stage.environment.set("DATABASE_URL", &service);
    stage.environment.set("STRONGROOM_MIGRATE_DATABASE_URL", &owner);

    let mut migrate = command(&stage, &[]);
    migrate.args(["migrate", "--output", "json"]);
    let output = migrate.output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["granted"], role);

    // A day's work as that role, without the owner's password at hand.
    let without_owner = [("STRONGROOM_MIGRATE", "false"), ("STRONGROOM_MIGRATE_DATABASE_URL", "")];
    let process = Process::serve(&stage, &without_owner).await;
    let (api, token) = (&process.api, process.token().await);
    let connection = api.hand_in(&token, "ada", &stage.connect()).await.json;
    assert_eq!(api.reveal(&token, id(&connection)).await.status, 200);
    assert_eq!(api.delink(&token, id(&connection)).await.status, 200);
    let linked = "SELECT count(*) FROM audit_links";
    while stage.database.value(linked).await == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let events = api.get(&token, EVENTS).await;
    assert_eq!(events.status, 200, "{}", events.text);
    // It reads the view of what is sealed.
    let mut status = command(&stage, &without_owner);
    assert!(status.args(["keys", "status"]).output().unwrap().status.success());

    assert_cannot_alter(&service).await;
    assert_reaches_no_new_month(&stage, &owner, &service, &role).await;
    // The owner's triggers stop the owner as well, until they are switched off.
    let mut conn = PgConnection::connect(&owner).await.unwrap();
    for table in ["audit_events", "audit_links", "audit_events_before", "audit_links_rest"] {
        let sql = format!("DELETE FROM {table}");
        let error = conn.execute(AssertSqlSafe(sql)).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    let mut again = command(&stage, &[]);
    let output = again.arg("migrate").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("The role `{role}` has what the service needs.")), "{text}");
}

#[tokio::test]
async fn with_one_role_nothing_is_granted() {
    let app = TestApp::by_hand().await;
    let (status, json, _) = run(&app, &["migrate", "--output", "json"]).await;
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, told), (0, json!({ "applied": 0, "granted": null })));
}
