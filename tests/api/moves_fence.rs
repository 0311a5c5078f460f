//! The fence of an app that moves: what it lets through, what it holds, and that a command stops if it is no longer its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use strongroom::moves::MoveError;

use crate::key_rotation::rotate_by_command;
use crate::moves::Move;
use crate::support::{TestApp, id, until};

const PARKED: &str =
    "SELECT count(*) FROM connections WHERE due_at > strongroom_now() + interval '1 year'";

#[tokio::test]
async fn an_export_whose_fence_is_lifted_beside_it_stops_and_leaves_no_folder() {
    let it = Move::new().await;
    let pending = it.code_in_flight().await;
    let key = it.receive().await;
    let aborting = async {
        let fences = "SELECT count(*) FROM app_fences";
        until("the app is fenced", async || it.source.database.value(fences).await == "1").await;
        it.abort().await;
        it.source.sandbox.clear_faults();
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), aborting);
    assert!(matches!(exported, Err(MoveError::FenceLost)), "{exported:?}");
    assert_eq!(it.source.settled(id(&pending.json)).await["status"], "active");
    assert_eq!(it.source.database.value(PARKED).await, "0");
    assert!(!it.folder.path().join("app-export.jws").exists());
}

#[tokio::test]
async fn two_exports_at_once_put_off_what_is_due_once() {
    let it = Move::new().await;
    it.source.sandbox.set_fault(it.source.revocation_fails()).unwrap();
    let bob = it.active("bob").await;
    it.source.api.delink(&it.token_at(&it.source).await, id(&bob)).await;
    let due = "SELECT string_agg(coalesce(due_at::text, '-'), ',' ORDER BY id) FROM connections";
    let before = it.source.database.value(due).await;
    let key = it.receive().await;
    let patience = Duration::from_secs(30);
    let (one, two) =
        tokio::join!(it.export_within(&key, patience), it.export_within(&key, patience));
    assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
    it.abort().await;
    assert_eq!(it.source.database.value(due).await, before);
}

/// The actions that are recorded in the trail of every app, as the sources have them, and those of approvals.
fn recorded_everywhere() -> BTreeSet<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let calls = text.split("record_everywhere(").skip(1);
            let call = |rest: &str| {
                rest.split(';').next().and_then(|call| call.split('"').nth(1).map(str::to_owned))
            };
            found.extend(calls.filter_map(call).filter(|action| action.contains('.')));
            let quoted = text.split(['"', '\'']);
            let words = quoted.filter(|word| {
                ["approval.", "data_key."].iter().any(|of| word.starts_with(of))
                    && !word.ends_with('.')
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
            });
            found.extend(words.map(str::to_owned));
        }
    }
    found
}

#[tokio::test]
async fn what_concerns_every_app_is_recorded_while_one_is_fenced() {
    let it = Move::new().await;
    it.source.client_of_another_app().await;
    it.export().await;
    let actions = recorded_everywhere();
    for known in ["operator.added", "signing_key.rotated", "approval.expired", "data_key.rotated"] {
        assert!(actions.contains(known), "{known}: {actions:?}");
    }
    let mut conn = it.source.context.pool.acquire().await.unwrap();
    for action in actions {
        let recorded = sqlx::query(
            "SELECT record_audit(id, ROW('service', NULL, NULL, NULL, NULL, NULL)::audit_actor, $1, 'ok', NULL, NULL, NULL)
             FROM apps",
        )
        .bind(&action)
        .execute(&mut conn)
        .await;
        assert!(recorded.is_ok(), "{action}: {recorded:?}");
    }
}

/// A request of another app that needs a second person and a request of the deployment run out.
#[tokio::test]
async fn approvals_of_others_run_out_while_an_app_is_fenced() {
    let it = Move::new().await;
    it.export().await;
    it.source
        .database
        .execute(
            "INSERT INTO approvals (id, app_id, kind, request, described, digest, requested_by, created_at, expires_at)
             SELECT gen_random_uuid(), a.id, k.kind, '{}', '{}'::jsonb, sha256(k.kind::bytea || uuid_send(coalesce(a.id, gen_random_uuid()))),
                    'operator', t.now - interval '2 hours', t.now - interval '1 hour'
             FROM (SELECT strongroom_now() AS now) t, (SELECT id FROM apps UNION ALL SELECT NULL) a (id),
                  (VALUES ('operator'), ('erasure')) AS k (kind)
             WHERE (a.id IS NULL) = (k.kind = 'operator')",
        )
        .await;
    let mut conn = it.source.context.pool.acquire().await.unwrap();
    strongroom::approvals::expire(&mut conn).await.unwrap();
    let pending = "SELECT count(*) FROM approvals WHERE status = 'pending'";
    assert_eq!(it.source.database.value(pending).await, "0");
}

#[tokio::test]
async fn an_app_with_a_request_that_waits_for_a_second_person_is_not_fenced() {
    let source = TestApp::builder().by_hand().set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0");
    let it = Move::of(source.set("STRONGROOM_FOUR_EYES", "0").spawn().await).await;
    it.active("ada").await;
    let body = json!({ "kind": "invalidate", "reason": "incident 7", "filter": { "all": true } });
    let token = it.source.token().await;
    let asked = it.source.api.post(&token, "/v1/admin/revocations", &body).await;
    assert_eq!(
        (asked.status, &asked.json["approval"]["status"]),
        (202, &json!("pending")),
        "{}",
        asked.text
    );
    let key = it.receive().await;
    let busy = it.export_within(&key, Duration::from_secs(60)).await;
    assert!(
        matches!(&busy, Err(error @ MoveError::Busy(_)) if error.to_string().contains("second person")),
        "{busy:?}"
    );
    assert_eq!(it.source.database.value("SELECT count(*) FROM app_fences").await, "0");
}

#[tokio::test]
async fn nothing_moves_from_or_to_a_deployment_with_a_replica_of_another_release() {
    let it = Move::new().await;
    let key = it.receive().await;
    let ready = it.source.api.send(it.source.api.request(reqwest::Method::GET, "/readyz")).await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    // The release before writes its row so.
    let earlier = "INSERT INTO replicas (id) VALUES (gen_random_uuid())";
    it.source.database.execute(earlier).await;
    let refused = it.export_within(&key, Duration::from_secs(30)).await;
    assert!(matches!(refused, Err(MoveError::OtherRelease { .. })), "{refused:?}");
    assert_eq!(it.source.database.value("SELECT count(*) FROM app_fences").await, "0");
    it.source.database.turn_clock(Duration::from_secs(61)).await;
    it.export_within(&key, Duration::from_secs(30)).await.unwrap();
    it.target.database.execute(earlier).await;
    let refused = it.import_as(&it.manifest().await, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherRelease { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_delivery_that_is_queued_while_the_fence_is_lifted_is_due() {
    let it = Move::new().await;
    let token = it.source.token().await;
    let webhook = json!({ "url": "https://hooks.example.com/x" });
    let made = it.source.api.post(&token, "/v1/admin/webhooks", &webhook).await;
    assert_eq!(made.status, 201, "{}", made.text);
    it.active("ada").await;
    it.source.dispatch().await;
    it.export().await;
    // A dispatcher at its work, which has found the fence.
    let mut other = PgConnection::connect(it.source.database.url()).await.unwrap();
    let mut dispatching = other.begin().await.unwrap();
    dispatching.execute("SELECT FROM event_heads FOR UPDATE").await.unwrap();
    dispatching
        .execute(
            "INSERT INTO events (app_id, position, id, type, at, data)
             SELECT app_id, position + 1, gen_random_uuid(), 'connection.active', strongroom_now(), '{}' FROM event_heads",
        )
        .await
        .unwrap();
    let committing = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        until("the fence waits", async || it.source.database.value(waits).await != "0").await;
        dispatching.commit().await.unwrap();
    };
    tokio::join!(it.abort(), committing);
    let put_off = "SELECT count(*) FROM webhook_deliveries WHERE due_at > strongroom_now() + interval '1 year'";
    assert_eq!(it.source.database.value(put_off).await, "0");
    let queued = "SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL";
    assert_ne!(it.source.database.value(queued).await, "0");
}

#[tokio::test]
async fn a_fenced_apps_data_keys_do_not_rotate_and_its_rotations_of_tokens_may_end() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    it.source
        .database
        .execute(
            "UPDATE data_keys SET other_id = gen_random_uuid(), other_wrapped = wrapped, rotation = 'published',
                 rotation_at = strongroom_now() WHERE app_id IS NOT NULL",
        )
        .await;
    let rotating = "SELECT count(*) FROM data_keys WHERE rotation IS NOT NULL";
    assert_eq!(it.source.database.value(rotating).await, "0");
    // The outcome of a rotation raises the epoch.
    let outcome = "UPDATE connections SET rotation_epoch = rotation_epoch + 1";
    it.source.database.execute(outcome).await;
    let epoch = "SELECT min(rotation_epoch) FROM connections";
    assert_eq!(it.source.database.value(epoch).await, "1");
}

#[tokio::test]
async fn a_fenced_app_keeps_no_other_apps_data_keys_from_being_rotated() {
    const OTHERS: &str = "SELECT string_agg(k.id::text, ' ') FROM data_keys k JOIN apps a ON a.id = k.app_id WHERE a.name = 'other'";
    let it = Move::new().await;
    it.active("ada").await;
    it.source.client_of_another_app().await;
    it.export().await;
    let before = it.source.database.value(OTHERS).await;
    let told = rotate_by_command(&it.source, &["--all"]).await;
    assert_eq!(told["rotated"], json!(1));
    assert_ne!(it.source.database.value(OTHERS).await, before);
}

#[tokio::test]
async fn an_export_whose_connection_breaks_says_that_the_fence_stays_and_can_be_taken_back() {
    const BREAK: &str =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%app_in_flight%' AND query NOT LIKE '%pg_stat_activity%'";
    let it = Move::new().await;
    let pending = it.code_in_flight().await;
    let key = it.receive().await;
    let breaking = async {
        until("it broke", async || it.source.database.value(BREAK).await != "0").await;
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), breaking);
    assert!(matches!(exported, Err(MoveError::FenceStays { .. })), "{exported:?}");
    it.abort().await;
    it.source.sandbox.clear_faults();
    assert_eq!(it.source.settled(id(&pending.json)).await["status"], "active");
    assert_eq!(it.reveal_at(&it.source, &pending.json).await.status, 200);
}
