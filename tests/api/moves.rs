//! Apps that move between two deployments: what arrives, what is refused, and that never two deployments act for one.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::apps::{self, App};
use strongroom::audit::{self, Known};
use strongroom::common::actor::Actor;
use strongroom::moves::keys::ImportKey;
use strongroom::moves::{Manifest, MoveError, TYP, export, fence, import, keys, tables};
use strongroom::oauth::statements;
use strongroom_dev::sandbox::Fault;
use tempfile::TempDir;

use crate::support::{Answer, Builder, TestApp, id, run_command, until};

/// The target's, which the source does not know.
const OTHER_MASTER: &str = "k2:Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";
/// The app's name at the target, which has a `default` of its own.
const NAME: &str = "moved";

/// Two deployments at one bank, and a client of the app that moves.
pub struct Move {
    pub source: TestApp,
    pub target: TestApp,
    pub folder: TempDir,
    /// Where the files are that people carry.
    pub desk: TempDir,
    client: (String, String),
    /// The app's name at the source.
    name: &'static str,
}

impl Move {
    pub async fn new() -> Self {
        Self::of(TestApp::by_hand().await).await
    }

    /// A deployment with another master key, at the source's bank.
    async fn target_of(source: &TestApp) -> TestApp {
        Self::target_with(source, |builder| builder).await
    }

    async fn target_with(source: &TestApp, otherwise: impl FnOnce(Builder) -> Builder) -> TestApp {
        let builder = otherwise(source.bank.builder().by_hand());
        builder
            .set("STRONGROOM_MASTER_KEYS", OTHER_MASTER)
            .set("DAPI_BASE_URL", format!("{}/v2", source.sandbox_url))
            .set("PLAID_BASE_URL", format!("{}/plaid", source.sandbox_url))
            .spawn()
            .await
    }

    pub async fn of(source: TestApp) -> Self {
        Self::between(source, |builder| builder).await
    }

    /// To a deployment that is otherwise than usual.
    pub async fn between(source: TestApp, otherwise: impl FnOnce(Builder) -> Builder) -> Self {
        let target = Self::target_with(&source, otherwise).await;
        let scopes = "sessions:create connections:write connections:read connections:revoke tokens:read \
                      dapi:call users:erase upstreams:use admin";
        let scopes: Vec<_> = scopes.split_whitespace().collect();
        let body = json!({ "name": "payroll", "scopes": scopes });
        let made = source.api.post(&source.token().await, "/v1/admin/clients", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let text = |name: &str| made.json[name].as_str().unwrap().to_owned();
        let client = (text("clientID"), text("clientSecret"));
        let (folder, desk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = source.bank.app();
        Self { source, target, folder, desk, client, name }
    }

    /// An access token of the app's client.
    pub async fn token_at(&self, app: &TestApp) -> String {
        app.api.token(&self.client.0, &self.client.1, None).await
    }

    pub async fn app(&self) -> App {
        let mut conn = self.source.context.pool.acquire().await.unwrap();
        apps::find(&mut conn, self.name).await.unwrap().unwrap()
    }

    pub async fn receive(&self) -> ImportKey {
        let mut conn = self.target.context.pool.acquire().await.unwrap();
        keys::create(&mut conn, &self.target.context.vault).await.unwrap()
    }

    pub async fn export_within(
        &self,
        key: &ImportKey,
        patience: Duration,
    ) -> Result<export::Exported, MoveError> {
        let (app, actor) = (self.app().await, Actor::operator());
        let vault = &self.source.context.vault;
        let mut conn = self.source.context.pool.acquire().await.unwrap();
        let signer =
            statements::signer_of_now(&mut conn, vault, "http://source.test").await.unwrap();
        let keys = statements::key_set(&mut conn, vault).await.unwrap();
        let folder = self.folder.path();
        let job = export::Job { folder, key, signer: &signer, keys, actor: &actor, patience };
        export::run(&mut conn, vault, &app, &job).await
    }

    pub async fn export(&self) -> ImportKey {
        let key = self.receive().await;
        self.export_within(&key, Duration::from_secs(30)).await.unwrap();
        self.source.refresh_directories().await;
        key
    }

    pub async fn manifest(&self) -> Manifest {
        let mut conn = self.source.context.pool.acquire().await.unwrap();
        let keys = statements::key_set(&mut conn, &self.source.context.vault).await.unwrap();
        let jws = import::read_manifest(self.folder.path()).unwrap();
        serde_json::from_value(statements::open(&jws, TYP, &keys).unwrap()).unwrap()
    }

    pub async fn import_as(
        &self,
        manifest: &Manifest,
        folder: &Path,
    ) -> Result<import::Imported, MoveError> {
        let (vault, actor) = (&self.target.context.vault, Actor::operator());
        let mut conn = self.target.context.pool.acquire().await.unwrap();
        let signer =
            statements::signer_of_now(&mut conn, vault, "http://target.test").await.unwrap();
        let job = import::Job {
            folder,
            name: Some(NAME),
            signer: &signer,
            actor: &actor,
            settle: Duration::ZERO,
        };
        let imported = import::run(&mut conn, vault, manifest, &job).await;
        drop(conn);
        self.target.refresh_directories().await;
        imported
    }

    pub async fn import(&self) -> import::Imported {
        self.import_as(&self.manifest().await, self.folder.path()).await.unwrap()
    }

    pub async fn end(&self, receipt: &str) -> Result<(), MoveError> {
        let app = self.app().await.id;
        let mut conn = self.source.context.pool.acquire().await.unwrap();
        let ended = fence::end(&mut conn, &self.source.context.vault, app, receipt).await;
        drop(conn);
        self.source.refresh_directories().await;
        ended
    }

    pub async fn abort(&self) {
        let app = self.app().await.id;
        let mut conn = self.source.context.pool.acquire().await.unwrap();
        fence::abort(&mut conn, &Actor::operator(), app).await.unwrap();
        drop(conn);
        self.source.refresh_directories().await;
    }

    pub async fn active(&self, user: &str) -> Value {
        self.active_from(user, &self.source.connect()).await
    }

    pub async fn active_from(&self, user: &str, result: &Value) -> Value {
        let token = self.token_at(&self.source).await;
        let answer = self.source.api.hand_in(&token, user, result).await;
        self.source.settled(id(&answer.json)).await
    }

    /// Hands in a code at the source, whose exchange the bank link holds up.
    pub async fn code_in_flight(&self) -> Answer {
        let app = &self.source;
        app.sandbox.set_fault(app.exchange_is_slow().times(1)).unwrap();
        let token = self.token_at(app).await;
        let pending = app.api.hand_in(&token, "ada", &app.connect()).await;
        app.sandbox.calls_reached(app.bank.exchange(), 1).await;
        pending
    }

    pub async fn reveal_at(&self, app: &TestApp, connection: &Value) -> Answer {
        app.api.reveal(&self.token_at(app).await, id(connection)).await
    }
}

#[tokio::test]
async fn an_app_arrives_with_its_tokens_its_clients_and_its_used_codes() {
    let it = Move::new().await;
    let result = it.source.connect();
    let ada = it.active_from("ada", &result).await;
    let revealed = it.reveal_at(&it.source, &ada).await;
    assert_eq!(revealed.status, 200, "{}", revealed.text);
    it.export().await;
    let imported = it.import().await;
    assert_eq!(imported.app, NAME);
    // The client's secret, the token under another master key, and the code, which stays used.
    let token = it.token_at(&it.target).await;
    assert_eq!(it.reveal_at(&it.target, &ada).await.json, revealed.json);
    let exchanges = it.source.exchanges();
    let again = it.target.api.hand_in(&token, "ada", &result).await;
    assert_eq!((again.status, id(&again.json)), (200, id(&ada)), "{}", again.text);
    assert_eq!(it.source.exchanges(), exchanges);
    // The app goes on: a new code, a new client secret, a call with the old token.
    let bob = it.target.api.hand_in(&token, "bob", &it.source.connect()).await;
    assert_eq!(it.target.api.connection(&token, id(&bob.json)).await["clientUserID"], "bob");
    let path = format!("/v1/admin/clients/{}/secrets", it.client.0);
    let secret = it.target.api.post(&token, &path, &json!({})).await;
    assert_eq!(secret.status, 201, "{}", secret.text);
    it.target.refresh_directories().await;
    it.target.api.token(&it.client.0, secret.json["clientSecret"].as_str().unwrap(), None).await;
}

#[tokio::test]
async fn the_source_refuses_callers_while_the_app_moves_and_after() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    let token = it.token_at(&it.source).await;
    let session = it.source.api.session(&token, "ada").await;
    let other = it.source.token_of_another_app().await;
    it.export().await;
    for caller in [&token, &session] {
        let refused = it.source.api.get(caller, &format!("/v1/connections/{}", id(&ada))).await;
        assert_eq!(refused.problem(), (503, "app_moving"));
        assert_eq!(refused.header("retry-after"), "10");
    }
    let imported = it.import().await;
    assert!(matches!(it.end("receipt_00").await, Err(MoveError::WrongReceipt(_))));
    assert_eq!(it.reveal_at(&it.source, &ada).await.problem(), (503, "app_moving"));
    it.end(&imported.receipt).await.unwrap();
    assert_eq!(it.reveal_at(&it.source, &ada).await.problem(), (410, "app_moved"));
    // Nobody else notices anything.
    let of_another = it.source.api.hand_in(&other, "eve", &it.source.connect()).await;
    assert!([201, 202].contains(&of_another.status), "{}", of_another.text);
}

#[tokio::test]
async fn the_fence_holds_commands_and_replicas_that_know_nothing_of_it() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    let token = it.token_at(&it.source).await;
    it.source.sandbox.set_fault(it.source.revocation_fails()).unwrap();
    let bob = it.active("bob").await;
    it.source.api.delink(&token, id(&bob)).await;
    let key = it.receive().await;
    // The directories of the replicas are not refreshed: only the database refuses.
    it.export_within(&key, Duration::from_secs(30)).await.unwrap();
    it.source.sandbox.clear_faults();
    for database in [
        it.source.api.reveal(&token, id(&ada)).await,
        it.source.api.delink(&token, id(&ada)).await,
        it.source.api.hand_in(&token, "eve", &it.source.connect()).await,
        it.source.api.post(&token, "/v1/connect-sessions", &json!({ "clientUserID": "ada" })).await,
    ] {
        assert_eq!(database.problem(), (503, "app_moving"), "{}", database.text);
    }
    let revocations = it.source.revocations();
    it.source.turn_clock(Duration::from_secs(3600)).await;
    it.source.tick().await;
    assert_eq!(it.source.revocations(), revocations, "no background work acts for the app");
    let create = ["clients", "create", "backend", "--scope", "admin"];
    let (status, _, errors) = run_command(&it.source, &create, &[]).await;
    assert_eq!(status, 1);
    assert!(errors.contains("the app is being moved"), "{errors}");
}

#[tokio::test]
async fn a_revocation_that_waits_for_the_bank_goes_on_at_the_target() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    it.source.sandbox.set_fault(it.source.revocation_fails()).unwrap();
    let token = it.token_at(&it.source).await;
    it.source.api.delink(&token, id(&ada)).await;
    it.source.tick().await;
    let live = it.source.live_tokens();
    it.export().await;
    it.import().await;
    it.source.sandbox.clear_faults();
    let token = it.token_at(&it.target).await;
    assert_eq!(it.target.api.connection(&token, id(&ada)).await["status"], "revoking");
    it.target.turn_clock(Duration::from_secs(3600)).await;
    let token = it.token_at(&it.target).await;
    it.target.tick().await;
    assert_eq!(it.target.api.connection(&token, id(&ada)).await["status"], "delinked");
    assert_eq!(it.source.live_tokens(), live - 1);
}

#[tokio::test]
async fn a_code_that_waits_for_its_exchange_is_exchanged_by_the_target_alone() {
    let it = Move::new().await;
    let failing = Fault::status(503).on(it.source.bank.exchange());
    it.source.sandbox.set_fault(failing).unwrap();
    let token = it.token_at(&it.source).await;
    let pending = it.source.api.hand_in(&token, "ada", &it.source.connect()).await;
    assert_eq!(it.source.settled(id(&pending.json)).await["status"], "pending");
    it.export().await;
    it.import().await;
    it.source.sandbox.clear_faults();
    it.source.turn_clock(Duration::from_secs(10)).await;
    it.source.tick().await;
    let exchanges = it.source.exchanges();
    it.target.turn_clock(Duration::from_secs(10)).await;
    it.target.tick().await;
    assert_eq!(it.source.exchanges(), exchanges + 1);
    let token = it.token_at(&it.target).await;
    let status = it.target.api.connection(&token, id(&pending.json)).await["status"].clone();
    assert_eq!(status, "active");
}

#[tokio::test]
async fn what_was_acknowledged_under_load_arrives_and_what_was_refused_was_not_received() {
    let it = Move::new().await;
    let token = it.token_at(&it.source).await;
    let key = it.receive().await;
    let results: Vec<_> = (0..200).map(|_| it.source.connect()).collect();
    let hand_in = async |n: usize, result: &Value| {
        it.source.api.hand_in(&token, &format!("user{n}"), result).await
    };
    let load = async {
        let mut answers = Vec::new();
        for (n, chunk) in results.chunks(5).enumerate() {
            let calls = chunk.iter().enumerate().map(|(m, result)| hand_in(5 * n + m, result));
            answers.extend(futures_util::future::join_all(calls).await);
        }
        answers
    };
    let moving = async {
        let received = "SELECT count(*) >= 20 FROM connections";
        until("some were received", async || it.source.database.value(received).await == "true")
            .await;
        it.export_within(&key, Duration::from_secs(60)).await.unwrap();
    };
    let (answers, ()) = tokio::join!(load, moving);
    let exchanges = it.source.exchanges();
    it.import().await;
    let kept: BTreeSet<_> = it
        .target
        .database
        .values("SELECT 'conn_' || id FROM connections")
        .await
        .into_iter()
        .collect();
    let (mut received, mut refused) = (BTreeSet::new(), 0);
    for answer in &answers {
        if [201, 202].contains(&answer.status) {
            received.insert(id(&answer.json).to_owned());
        } else {
            assert_eq!(answer.problem(), (503, "app_moving"), "{}", answer.text);
            refused += 1;
        }
    }
    assert!(refused > 0 && !received.is_empty(), "{refused} refused, {} received", received.len());
    assert_eq!(received, kept);
    let ended =
        it.target.database.value("SELECT count(*) FROM connections WHERE status <> 'active'");
    assert_eq!(ended.await, "0");
    assert_eq!(exchanges, received.len() as u64, "each code was exchanged once");
}

#[tokio::test]
async fn an_export_waits_for_what_is_in_flight_and_gives_way_if_that_takes_too_long() {
    let it = Move::new().await;
    let pending = it.code_in_flight().await;
    let key = it.receive().await;
    let busy = it.export_within(&key, Duration::ZERO).await;
    assert!(
        matches!(&busy, Err(error @ MoveError::Busy(_)) if error.to_string().contains("exchanges")),
        "{busy:?}"
    );
    it.source.refresh_directories().await;
    // The app serves as before, and the answer that was awaited is recorded.
    it.source.sandbox.clear_faults();
    assert_eq!(it.source.settled(id(&pending.json)).await["status"], "active");
    assert_eq!(it.reveal_at(&it.source, &pending.json).await.status, 200);
    it.export_within(&key, Duration::from_secs(30)).await.unwrap();
    it.import().await;
    assert_eq!(it.reveal_at(&it.target, &pending.json).await.status, 200);
}

#[tokio::test]
async fn the_trail_goes_on_where_it_was_handed_over_and_verifies_as_a_whole() {
    let it = Move::new().await;
    it.active("ada").await;
    it.export().await;
    let imported = it.import().await;
    it.target.link().await;
    let (status, told, errors) =
        run_command(&it.target, &["audit", "verify", "--app", NAME], &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    let report = &told["apps"][0];
    assert_eq!(report["linked"], json!(imported.head.seq + 1), "{report}");
    assert_eq!(report["checkpoints"], 1, "the head that the source signed");
    let trail = it.target.database.audit().await;
    let moved = trail
        .iter()
        .filter(|row| row.starts_with("app.exported") || row.starts_with("app.imported"));
    assert_eq!(moved.collect::<Vec<_>>(), ["app.exported ok", "app.imported ok"]);
    // A chain that was written anew before the hand-over shows.
    let mut conn = it.target.context.pool.acquire().await.unwrap();
    let app = apps::find(&mut conn, NAME).await.unwrap().unwrap().id;
    let statements = audit::handover::handovers(&mut conn, app).await.unwrap();
    let mut handover = audit::handover::Handover::peek(&statements[0]).unwrap();
    handover.head.seq -= 1;
    let known = Known { checkpoints: vec![handover.checkpoint()], archives: Vec::new() };
    let report = audit::verify(&mut conn, app, &known, |_, _| {}).await.unwrap();
    assert!(report.broken.is_some());
}

#[tokio::test]
async fn an_export_that_is_taken_back_leaves_the_app_as_it_was() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    it.source.sandbox.set_fault(it.source.revocation_fails()).unwrap();
    let bob = it.active("bob").await;
    it.source.api.delink(&it.token_at(&it.source).await, id(&bob)).await;
    let due = "SELECT string_agg(coalesce(due_at::text, '-'), ',' ORDER BY id) FROM connections";
    let before = it.source.database.value(due).await;
    it.export().await;
    assert_ne!(it.source.database.value(due).await, before);
    it.abort().await;
    assert_eq!(it.source.database.value(due).await, before);
    it.source.sandbox.clear_faults();
    assert_eq!(it.reveal_at(&it.source, &ada).await.status, 200);
    it.source.turn_clock(Duration::from_secs(3600)).await;
    it.source.tick().await;
    let token = it.token_at(&it.source).await;
    assert_eq!(it.source.api.connection(&token, id(&bob)).await["status"], "delinked");
    let trail = it.source.database.audit().await;
    assert!(trail.contains(&"app.export_aborted ok".to_owned()), "{trail:?}");
    // Once more, and for good.
    it.export().await;
    it.import().await;
    assert_eq!(it.reveal_at(&it.target, &ada).await.status, 200);
}

#[tokio::test]
async fn an_app_that_was_moved_moves_on_with_its_secrets_and_its_used_codes() {
    let it = Move::new().await;
    let result = it.source.connect();
    let ada = it.active_from("ada", &result).await;
    let revealed = it.reveal_at(&it.source, &ada).await.json;
    it.export().await;
    it.import().await;
    let third = Move::target_of(&it.source).await;
    let folder = tempfile::tempdir().unwrap();
    let Move { source: bank, target: source, desk, client, .. } = it;
    let on = Move { source, target: third, folder, desk, client, name: NAME };
    on.export().await;
    on.import().await;
    assert_eq!(on.reveal_at(&on.target, &ada).await.json, revealed);
    let exchanges = bank.exchanges();
    let token = on.token_at(&on.target).await;
    let again = on.target.api.hand_in(&token, "ada", &result).await;
    assert_eq!((again.status, id(&again.json)), (200, id(&ada)), "{}", again.text);
    assert_eq!(bank.exchanges(), exchanges);
    on.target.link().await;
    let (status, told, errors) =
        run_command(&on.target, &["audit", "verify", "--app", NAME], &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
}

#[tokio::test]
async fn a_trail_whose_first_months_are_archived_is_followed_across_the_move() {
    let source = TestApp::builder().set("STRONGROOM_AUDIT_RETENTION_MONTHS", "1").by_hand();
    let it = Move::of(source.spawn().await).await;
    it.active("ada").await;
    it.source.link().await;
    for app in [&it.source, &it.target] {
        app.turn_clock(Duration::from_hours(24 * 130)).await;
        app.prepare_months().await;
    }
    let archive = tempfile::tempdir().unwrap();
    let archive = ["audit", "archive", archive.path().to_str().unwrap()];
    let (status, told, errors) = run_command(&it.source, &archive, &[]).await;
    assert_eq!(status, 0, "{errors}");
    let archived = told["archived"][0]["links"].clone();
    it.active("bob").await;
    it.export().await;
    it.import().await;
    it.target.link().await;
    let (status, told, errors) =
        run_command(&it.target, &["audit", "verify", "--app", NAME], &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    assert_eq!(told["apps"][0]["archived"], archived, "{told}");
    assert_eq!(told["apps"][0]["unproved"], 0);
}

#[tokio::test]
async fn every_table_moves_or_stays_by_decision() {
    let app = TestApp::by_hand().await;
    let there = app
        .database
        .values(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
             AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'test_clock' ORDER BY 1",
        )
        .await;
    let moving = tables::MOVING.iter().map(|table| table.name).chain([tables::DATA_KEYS]);
    let mut decided: Vec<_> = moving.chain(tables::STAYING.iter().map(|(name, _)| *name)).collect();
    decided.sort_unstable();
    assert_eq!(decided, there);
}

#[tokio::test]
async fn the_commands_move_an_app() {
    let it = Move::new().await;
    let ada = it.active("ada").await;
    let folder = it.folder.path().to_str().unwrap();
    let path = |name: &str| it.desk.path().join(name).to_str().unwrap().to_owned();
    let (status, key, errors) = run_command(&it.target, &["apps", "receive"], &[]).await;
    assert_eq!(status, 0, "{errors}");
    std::fs::write(path("key.json"), key.to_string()).unwrap();
    let jwks =
        it.source.api.send(it.source.api.request(Method::GET, "/.well-known/jwks.json")).await;
    std::fs::write(path("source.json"), jwks.text).unwrap();
    let key = path("key.json");
    let export = ["apps", "export", "default", folder, "--for", &key];
    let (status, told, errors) = run_command(&it.source, &export, &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    let (_, apps, _) = run_command(&it.source, &["apps", "list"], &[]).await;
    assert_eq!(apps[0]["state"], "moving");
    // Not by its own keys, which are not the source's.
    let jwks =
        it.target.api.send(it.target.api.request(Method::GET, "/.well-known/jwks.json")).await;
    std::fs::write(path("target.json"), jwks.text).unwrap();
    let (own, source) = (path("target.json"), path("source.json"));
    let import = |keys| ["apps", "import", folder, "--name", NAME, "--source-keys", keys];
    let (status, _, errors) = run_command(&it.target, &import(&own), &[]).await;
    assert_eq!(status, 2, "{errors}");
    let (status, told, errors) = run_command(&it.target, &import(&source), &[]).await;
    assert_eq!(status, 0, "{errors} {told}");
    it.target.refresh_directories().await;
    assert_eq!(it.reveal_at(&it.target, &ada).await.status, 200);
    let receipt = told["receipt"].as_str().unwrap();
    let end = ["apps", "export", "default", "--receipt", receipt];
    let (status, _, errors) = run_command(&it.source, &end, &[]).await;
    assert_eq!(status, 0, "{errors}");
    let abort = ["apps", "export", "default", "--abort"];
    assert_eq!(
        run_command(&it.source, &abort, &[]).await.0,
        2,
        "it has to be said that nothing was imported"
    );
    let abort = ["apps", "export", "default", "--abort", "--nothing-was-imported"];
    assert_eq!(run_command(&it.source, &abort, &[]).await.0, 1, "never after the receipt");
    let (_, apps, _) = run_command(&it.source, &["apps", "list"], &[]).await;
    assert_eq!(apps[0]["state"], "moved");
}
