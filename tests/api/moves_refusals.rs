//! What an import refuses: folders that were changed, rows of others, keys that were used.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::common::ids::{DataKeyId, ExportId, ImportKeyId, UserId};
use strongroom::moves::{Manifest, MoveError, TYP, import};
use strongroom::oauth::statements;
use strongroom::vault::KeyOwner;

use crate::moves::Move;
use crate::support::{Builder, TestApp, id, run_command};

#[tokio::test]
async fn a_folder_that_was_changed_is_refused_and_nothing_is_inserted() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    let manifest = it.manifest().await;
    for file in ["connections", "data_keys", "audit_events"] {
        let path = it.folder.path().join(format!("{file}.jsonl.zst"));
        let whole = std::fs::read(&path).unwrap();
        let lines = zstd::decode_all(whole.as_slice()).unwrap();
        let mut changed = lines.clone();
        let at = changed.iter().rposition(u8::is_ascii_digit).unwrap();
        changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
        let shorter = lines[..lines.len() - 1].iter().rposition(|byte| *byte == b'\n');
        let shorter = lines[..shorter.map_or(0, |at| at + 1)].to_vec();
        for forged in [changed, shorter] {
            std::fs::write(&path, zstd::encode_all(forged.as_slice(), 3).unwrap()).unwrap();
            let refused = it.import_as(&manifest, it.folder.path()).await;
            assert!(matches!(refused, Err(MoveError::Tampered(_))), "{file}: {refused:?}");
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let refused = it.import_as(&manifest, it.folder.path()).await;
        assert!(matches!(refused, Err(MoveError::Tampered(_))), "{file}: {refused:?}");
        std::fs::write(&path, whole).unwrap();
    }
    // The manifest itself, by the keys of another deployment.
    let mut conn = it.target.context.pool.acquire().await.unwrap();
    let others = statements::key_set(&mut conn, &it.target.context.vault).await.unwrap();
    drop(conn);
    let jws = import::read_manifest(it.folder.path()).unwrap();
    assert!(statements::open(&jws, TYP, &others).is_err());
    let mut older = manifest.clone();
    older.schema.push('0');
    let refused = it.import_as(&older, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherSchema)), "{refused:?}");
    let of_app = "SELECT count(*) FROM apps WHERE name = 'moved'";
    assert_eq!(it.target.database.value(of_app).await, "0");
    it.import().await;
}

/// The rows of a file.
fn rows(it: &Move, table: &str) -> Vec<Value> {
    let path = it.folder.path().join(format!("{table}.jsonl.zst"));
    let lines = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes other rows, as a source that signs them would.
fn forge(it: &Move, manifest: &mut Manifest, table: &str, rows: &[Value]) {
    let forged: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = it.folder.path().join(format!("{table}.jsonl.zst"));
    std::fs::write(path, zstd::encode_all(forged.as_bytes(), 3).unwrap()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, forged.as_bytes());
    let file = manifest.files.iter_mut().find(|file| file.name == table).unwrap();
    file.sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    file.rows = rows.len() as u64;
}

#[tokio::test]
async fn rows_of_another_app_are_refused_even_if_the_source_signs_them() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    let mut manifest = it.manifest().await;
    let stranger = it.target.database.value("SELECT id FROM apps WHERE name = 'default'").await;
    let mut client = rows(&it, "clients").remove(0);
    client["app_id"] = json!(stranger);
    forge(&it, &mut manifest, "clients", &[client]);
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherRows("clients"))), "{refused:?}");
}

#[tokio::test]
async fn an_import_key_serves_one_import_of_one_export() {
    let it = Move::new().await;
    let other = it.receive().await;
    it.export().await;
    let manifest = it.manifest().await;
    // The data keys were sealed to another key.
    let wrong = Manifest { import_key: other.id, ..manifest.clone() };
    assert!(it.import_as(&wrong, it.folder.path()).await.is_err());
    let unknown = Manifest { import_key: ImportKeyId::new(), ..manifest.clone() };
    let refused = it.import_as(&unknown, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::UnknownKey(_))), "{refused:?}");
    // Another app has the name.
    let taken = it.target.database.execute("UPDATE apps SET name = 'moved' WHERE name = 'default'");
    taken.await;
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::NameTaken(_))), "{refused:?}");
    it.target.database.execute("UPDATE apps SET name = 'default' WHERE name = 'moved'").await;

    let imported = it.import().await;
    let again = it.import_as(&manifest, it.folder.path()).await;
    let Err(MoveError::Imported { receipt, .. }) = again else { panic!("{again:?}") };
    assert_eq!(receipt, imported.receipt);
    let gone = "SELECT count(*) FROM import_keys WHERE private_key IS NOT NULL";
    assert_eq!(it.target.database.value(gone).await, "1", "the other one's alone");
    // Another export for the same key.
    let other = Manifest { export: ExportId::new(), ..manifest };
    let refused = it.import_as(&other, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::AppIsHere(_))), "{refused:?}");
}

#[tokio::test]
async fn an_import_key_ends_after_a_week() {
    let it = Move::new().await;
    it.export().await;
    let manifest = it.manifest().await;
    it.target.turn_clock(Duration::from_hours(24 * 7)).await;
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::KeyExpired(_))), "{refused:?}");
}

#[tokio::test]
async fn rows_about_another_apps_connections_are_refused_even_if_the_source_signs_them() {
    let it = Move::new().await;
    it.active("ada").await;
    let victim = it.target.active_from("eve", &it.source.connect()).await;
    it.export().await;
    let mut manifest = it.manifest().await;
    let connection = "SELECT id FROM connections";
    let connection = it.target.database.value(connection).await;
    let app = it.app().await.id.uuid().to_string();
    let rotation = json!({ "connection_id": connection, "app_id": app, "due_at": "2026-12-01T00:00:00Z",
                           "attempts": 0, "doubted": true, "lost": false, "since": "2026-12-01T00:00:00Z",
                           "revealed_at": "2026-12-01T00:00:00Z" });
    forge(&it, &mut manifest, "token_rotations", &[rotation]);
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherRows("token_rotations"))), "{refused:?}");
    forge(&it, &mut manifest, "token_rotations", &[]);
    let proxy = json!({ "connection_id": connection, "app_id": app, "hash": "\\x00" });
    forge(&it, &mut manifest, "proxy_tokens", &[proxy]);
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherRows("proxy_tokens"))), "{refused:?}");
    assert_eq!(it.target.api.reveal(&it.target.token().await, id(&victim)).await.status, 200);
}

#[tokio::test]
async fn a_folder_without_the_key_of_a_value_is_refused_and_nothing_is_inserted() {
    let it = Move::new().await;
    it.active("ada").await;
    it.active("bob").await;
    it.export().await;
    let mut manifest = it.manifest().await;
    let mut keys = rows(&it, "data_keys");
    let of_a_user = keys.iter().position(|key| key["userID"].is_string()).unwrap();
    let lost = keys.remove(of_a_user);
    forge(&it, &mut manifest, "data_keys", &keys);
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::NoKeyOfValue)), "{refused:?}");
    let of_app = "SELECT count(*) FROM apps WHERE name = 'moved'";
    assert_eq!(it.target.database.value(of_app).await, "0");
    keys.insert(of_a_user, lost);
    forge(&it, &mut manifest, "data_keys", &keys);
    it.import_as(&manifest, it.folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_apps_user_is_refused_even_if_the_source_seals_it() {
    let it = Move::new().await;
    it.active("ada").await;
    let key = it.export().await;
    let mut manifest = it.manifest().await;
    it.target.active_from("eve", &it.source.connect()).await;
    let stranger = it.target.database.value("SELECT id FROM users").await;
    // Sealed for the stranger, as only a source can.
    let (app, source) = (it.app().await.id, &it.source.context.vault);
    let mut conn = it.source.context.pool.acquire().await.unwrap();
    let own = strongroom::vault::keys_of_users(&mut conn, app, "", 1).await.unwrap().keys.remove(0);
    let user = UserId::from(stranger.parse::<uuid::Uuid>().unwrap());
    let (new, owner) = (DataKeyId::new(), KeyOwner::User { app, user });
    let public = key.public().unwrap();
    let sealed =
        source.seal_for_transfer(&own, (new, owner), &public, &manifest.transfer()).await.unwrap();
    let mut keys = rows(&it, "data_keys");
    keys.push(
        json!({ "id": new, "purpose": "user", "userID": user, "sealed": STANDARD.encode(sealed) }),
    );
    forge(&it, &mut manifest, "data_keys", &keys);
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::OtherRows("data_keys"))), "{refused:?}");
}

#[tokio::test]
async fn a_trail_with_months_that_the_target_has_archived_is_refused_and_leaves_nothing_in_the_rest()
 {
    let target = |builder: Builder| builder.set("STRONGROOM_AUDIT_RETENTION_MONTHS", "1");
    let it = Move::between(TestApp::by_hand().await, target).await;
    it.active("ada").await;
    it.source.link().await;
    for app in [&it.source, &it.target] {
        app.turn_clock(Duration::from_hours(24 * 130)).await;
        app.prepare_months().await;
    }
    let archive = tempfile::tempdir().unwrap();
    let archive = ["audit", "archive", archive.path().to_str().unwrap()];
    it.target.link().await;
    let (status, _, errors) = run_command(&it.target, &archive, &[]).await;
    assert_eq!(status, 0, "{errors}");
    it.export().await;
    let refused = it.import_as(&it.manifest().await, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::NoMonth)), "{refused:?}");
    let rest = "SELECT count(*) FROM audit_events_rest";
    assert_eq!(it.target.database.value(rest).await, "0");
}

#[tokio::test]
async fn a_file_that_unpacks_to_more_than_a_row_can_be_is_refused_before_it_is_read() {
    let it = Move::new().await;
    it.export().await;
    let manifest = it.manifest().await;
    let path = it.folder.path().join("users.jsonl.zst");
    let mut bomb = zstd::Encoder::new(std::fs::File::create(path).unwrap(), 3).unwrap();
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..80 {
        std::io::Write::write_all(&mut bomb, &zeros).unwrap();
    }
    bomb.finish().unwrap();
    let refused = it.import_as(&manifest, it.folder.path()).await;
    assert!(matches!(refused, Err(MoveError::Tampered(_))), "{refused:?}");
}

#[tokio::test]
async fn an_app_is_not_fenced_for_an_import_key_that_ends_before_its_import() {
    let it = Move::new().await;
    let mut key = serde_json::to_value(it.receive().await).unwrap();
    key["expiresAt"] = json!("2000-01-01T00:00:00Z");
    let path = it.desk.path().join("key.json");
    std::fs::write(&path, key.to_string()).unwrap();
    let folder = it.folder.path().to_str().unwrap();
    let export = ["apps", "export", "default", folder, "--for", path.to_str().unwrap()];
    let (status, _, errors) = run_command(&it.source, &export, &[]).await;
    assert_eq!(status, 2, "{errors}");
    assert_eq!(it.source.database.value("SELECT count(*) FROM app_fences").await, "0");
}

/// At the commit they would hold up whoever changes clients, of whatever app.
#[tokio::test]
async fn the_deferred_triggers_of_connections_have_run_before_the_import_touches_a_client() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    it.target
        .database
        .execute(
            "CREATE FUNCTION in_time() RETURNS trigger LANGUAGE plpgsql AS '
             BEGIN
                 IF EXISTS (SELECT FROM clients c WHERE c.app_id = NEW.app_id) THEN
                     RAISE EXCEPTION ''late'';
                 END IF;
                 RETURN NULL;
             END';
             CREATE CONSTRAINT TRIGGER in_time AFTER INSERT ON connections DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION in_time()",
        )
        .await;
    it.import().await;
}
