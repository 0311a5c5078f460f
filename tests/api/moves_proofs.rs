//! What proves that an app has moved, and whence: the receipt, the hand-over of the trail, and what is left at the source.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::moves::MoveError;
use strongroom::oauth::{Algorithm, signing_keys};

use crate::moves::Move;
use crate::support::{Builder, TestApp, id, run_command};
use crate::upstreams;

/// Lets the deployment sign with another key; the one before is gone, as it is some time after a rotation.
async fn forget_signing_key(app: &TestApp) {
    app.database.execute("DELETE FROM signing_keys").await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    signing_keys::ensure(&mut conn, &app.context.vault, Algorithm::Es256).await.unwrap();
}

async fn verified(app: &TestApp, more: &[&str]) -> (i32, Value) {
    let arguments = [&["audit", "verify", "--app", "moved"][..], more].concat();
    let (status, told, _) = run_command(app, &arguments, &[]).await;
    (status, told["apps"][0].clone())
}

#[tokio::test]
async fn a_hand_over_whose_key_is_gone_is_not_proved_until_the_kept_key_set_is_given() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    it.import().await;
    it.target.link().await;
    let request = it.target.api.request(reqwest::Method::GET, "/.well-known/jwks.json");
    let kept = it.desk.path().join("target.jwks.json");
    std::fs::write(&kept, it.target.api.send(request).await.text).unwrap();
    let (status, report) = verified(&it.target, &[]).await;
    assert_eq!((status, &report["unprovedHandovers"]), (0, &json!(0)), "{report}");
    forget_signing_key(&it.target).await;
    let (status, report) = verified(&it.target, &[]).await;
    assert_eq!((status, &report["unprovedHandovers"]), (1, &json!(1)), "{report}");
    let (status, report) = verified(&it.target, &["--jwks", kept.to_str().unwrap()]).await;
    assert_eq!((status, &report["checkpoints"]), (0, &json!(1)), "{report}");
}

#[tokio::test]
async fn an_import_of_which_the_trail_tells_and_nothing_else_is_not_proved() {
    let it = Move::new().await;
    it.export().await;
    it.import().await;
    it.target.link().await;
    for garble in
        ["UPDATE app_imports SET statement = 'eyJ' || statement", "DELETE FROM app_imports"]
    {
        it.target.database.execute(garble).await;
        let (status, report) = verified(&it.target, &[]).await;
        assert_eq!((status, &report["unprovedHandovers"]), (1, &json!(1)), "{garble}: {report}");
    }
}

#[tokio::test]
async fn a_receipt_is_of_one_export_and_follows_from_no_key() {
    let it = Move::new().await;
    it.export().await;
    let first = it.import().await.receipt;
    it.abort().await;
    let key = it.receive().await;
    it.export_within(&key, Duration::from_secs(30)).await.unwrap();
    assert!(matches!(it.end(&first).await, Err(MoveError::WrongReceipt(_))));
    // Not in the clear, wherever the database is read.
    let kept = "SELECT encode(receipt, 'escape') FROM app_fences";
    assert!(!it.source.database.value(kept).await.contains("receipt_"));
}

#[tokio::test]
async fn a_folder_that_is_written_again_has_the_same_receipt() {
    let it = Move::new().await;
    let key = it.export().await;
    let (folder, manifest) = (tempfile::tempdir().unwrap(), it.manifest().await);
    for file in std::fs::read_dir(it.folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    it.export_within(&key, Duration::from_secs(30)).await.unwrap();
    let imported = it.import_as(&manifest, folder.path()).await.unwrap();
    it.end(&imported.receipt).await.unwrap();
}

#[tokio::test]
async fn with_the_receipt_no_token_opens_at_the_source_any_more_and_other_apps_keep_theirs() {
    const KEYS: &str = "SELECT count(*) FROM data_keys k JOIN apps a ON a.id = k.app_id
                        WHERE a.name = 'default' AND k.purpose = 'user'";
    let it = Move::new().await;
    let ada = it.active("ada").await;
    it.active("bob").await;
    it.source.client_of_another_app().await;
    it.source
        .database
        .execute(
            "INSERT INTO users (id, app_id, client_user_id)
             SELECT gen_random_uuid(), id, 'stranger' FROM apps WHERE name = 'other';
             INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
             SELECT gen_random_uuid(), 'user', u.app_id, u.id, k.master_key_id, k.wrapped
             FROM users u, (SELECT * FROM data_keys WHERE purpose = 'user' LIMIT 1) k WHERE u.client_user_id = 'stranger'",
        )
        .await;
    it.export().await;
    let imported = it.import().await;
    assert!(it.end("receipt_00").await.is_err());
    assert_eq!(it.source.database.value(KEYS).await, "2");
    it.end(&imported.receipt).await.unwrap();
    assert_eq!(it.source.database.value(KEYS).await, "0");
    let all = "SELECT count(*) FROM data_keys WHERE purpose = 'user'";
    assert_eq!(it.source.database.value(all).await, "1", "the stranger's");
    // Once more, as after a run that was killed.
    it.end(&imported.receipt).await.unwrap();
    assert_eq!(it.reveal_at(&it.target, &ada).await.status, 200);
}

#[tokio::test]
async fn one_app_whose_hash_keys_do_not_open_keeps_no_other_from_being_served() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    it.export().await;
    it.import().await;
    let token = it.token_at(&it.target).await;
    it.target
        .database
        .execute(
            "UPDATE data_keys SET wrapped = substring(wrapped FROM 1 FOR 20)
             WHERE purpose = 'secret_hash' AND app_id IS NOT NULL",
        )
        .await;
    // A replica that starts now knows no better.
    let replica = it.target.replica().await;
    let others = replica.get(&it.target.token().await, "/v1/admin/clients").await;
    assert_eq!(others.status, 200, "{}", others.text);
    let refused = replica.reveal(&token, id(&ada)).await;
    assert_eq!(refused.problem(), (503, "app_moving"), "{}", refused.text);
}

#[tokio::test]
async fn an_upstream_arrives_and_the_trail_names_equal_paths_alike_before_and_after() {
    let open = |builder: Builder| builder.set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let it = Move::between(open(TestApp::builder().by_hand()).spawn().await, open).await;
    upstreams::add(&it.source, &upstreams::dana(&it.source)).await;
    let path = "/v1/upstreams/dana/proxy/contacts/7";
    it.source.api.get(&it.token_at(&it.source).await, path).await;
    it.export().await;
    it.import().await;
    let answer = it.target.api.get(&it.token_at(&it.target).await, path).await;
    assert_ne!(answer.status, 404, "{}", answer.text);
    let calls = "SELECT reason FROM audit_events WHERE action = 'upstream.called' ORDER BY id";
    let calls = it.target.database.values(calls).await;
    assert!(calls.len() == 2 && calls[0] == calls[1], "{calls:?}");
}
