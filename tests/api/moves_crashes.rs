//! Moves that are killed at every step: the next run finishes them, and never do two deployments act for the app.

use serde_json::Value;

use crate::moves::Move;
use crate::support::{id, run_command};

/// Every point of an export, and of an import.
const EXPORT: [&str; 5] =
    ["export::draining", "export::closed", "export::parked", "export::written", "export::signed"];
const IMPORT: [&str; 2] = ["import::inserted", "import::committed"];

/// Puts the import key and the source's key set where the commands read them.
async fn prepared(it: &Move) -> (String, String) {
    let folder = it.desk.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (status, key, errors) = run_command(&it.target, &["apps", "receive"], &[]).await;
    assert_eq!(status, 0, "{errors}");
    std::fs::write(path("key.json"), key.to_string()).unwrap();
    let request = it.source.api.request(reqwest::Method::GET, "/.well-known/jwks.json");
    std::fs::write(path("source.json"), it.source.api.send(request).await.text).unwrap();
    (path("key.json"), path("source.json"))
}

#[tokio::test]
async fn a_move_that_is_killed_at_any_step_is_finished_by_the_next_run() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    let (key, source) = prepared(&it).await;
    let folder = it.folder.path().to_str().unwrap().to_owned();
    let export = ["apps", "export", "default", &folder, "--for", &key];
    for point in EXPORT {
        let fault = format!("{point}=panic");
        let (status, ..) = run_command(&it.source, &export, &[("FAILPOINTS", &fault)]).await;
        assert_ne!(status, 0, "{point} is not on the way");
        let fences = "SELECT count(*) FROM app_fences";
        assert_eq!(it.source.database.value(fences).await, "1", "{point}");
        let begun = it
            .source
            .database
            .value("SELECT count(*) FROM audit_events WHERE action = 'app.exported'");
        assert!(["0", "1"].contains(&begun.await.as_str()), "{point}");
    }
    let (status, told, errors) = run_command(&it.source, &export, &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    let import = ["apps", "import", &folder, "--name", "moved", "--source-keys", &source];
    for point in IMPORT {
        let fault = format!("{point}=panic");
        let (status, ..) = run_command(&it.target, &import, &[("FAILPOINTS", &fault)]).await;
        assert_ne!(status, 0, "{point} is not on the way");
        it.target.refresh_directories().await;
        let apps = "SELECT count(*) FROM apps WHERE name = 'moved'";
        let arrived = it.target.database.value(apps).await == "1";
        assert_eq!(arrived, point == "import::committed", "{point}");
        if arrived {
            let refused = it.reveal_at(&it.target, &ada).await;
            assert_eq!(refused.problem(), (503, "app_moving"), "{point}");
        }
    }
    let (status, told, errors) = run_command(&it.target, &import, &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    assert!(told["receipt"].is_string());
    it.target.refresh_directories().await;
    assert_eq!(it.reveal_at(&it.target, &ada).await.status, 200);
    assert_moved_once(&it, &ada).await;
}

async fn assert_moved_once(it: &Move, connection: &Value) {
    let refused = it.reveal_at(&it.source, connection).await;
    assert_eq!(refused.problem(), (503, "app_moving"), "{}", id(connection));
    let (status, told, errors) =
        run_command(&it.target, &["audit", "verify", "--app", "moved"], &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    let exported = "SELECT count(*) FROM audit_events WHERE action = 'app.exported'";
    assert_eq!(it.target.database.value(exported).await, "1");
}

#[tokio::test]
async fn an_end_that_is_killed_before_the_keys_are_destroyed_is_finished_by_the_next_run() {
    const KEYS: &str = "SELECT count(*) FROM data_keys WHERE purpose = 'user'";
    let it = Move::new().await;
    let ada = it.active("ada").await;
    it.export().await;
    let receipt = it.import().await.receipt;
    let end = ["apps", "export", "default", "--receipt", &receipt];
    let (status, ..) =
        run_command(&it.source, &end, &[("FAILPOINTS", "export::moved=panic")]).await;
    assert_ne!(status, 0);
    it.source.refresh_directories().await;
    assert_eq!(it.reveal_at(&it.source, &ada).await.problem(), (410, "app_moved"));
    assert_eq!(it.source.database.value(KEYS).await, "1");
    let (status, _, errors) = run_command(&it.source, &end, &[]).await;
    assert_eq!(status, 0, "{errors}");
    assert_eq!(it.source.database.value(KEYS).await, "0");
}
