//! A service of one's own for each test: a fresh database, a sandbox, clients, and hands on all of
//! their clocks.

mod authenticator;
mod aws_kms;
mod bank;
mod browser;
mod client;
mod collector;
mod database;
mod issuer;
mod key_engine;
mod keypair;
mod line;
mod oauth;
mod openid;
mod plaid;
mod process;
mod proofs;
mod proxy;
mod receiver;
mod transit;
mod trouble;

pub use authenticator::Authenticator;
pub use aws_kms::{AwsKms, Source};
pub use bank::Bank;
pub use browser::{
    Browser, FORM, add as add_operator, assert_shows, encoded, link as operator_link,
};
pub use client::{Answer, Api};
pub use collector::{Collector, Span, Takes};
pub use database::TestDatabase;
pub use issuer::{Issuer, Mood};
pub use key_engine::Elsewhere;
pub use keypair::{Keypair, base64};
pub use line::Line;
pub use oauth::OauthClient;
pub use openid::{CLIENT, OpenId, SECRET};
pub use process::{Process, command, run_command};
pub use proofs::{JWT_BEARER, PUBLIC_URL, ath, refusal, with_assertion};
pub use proxy::{Cut, Proxy};
pub use receiver::{Received, Receiver, Reply};
pub use transit::{Transit, service_account_token};
pub use trouble::Trouble;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::common::clock::Clock;
use strongroom::common::scope::Scopes;
use strongroom::config::{Config, Environment};
use strongroom::connections::{Context, reconcile};
use strongroom::oauth::Directory;
use strongroom::service::Service;
use strongroom_dev::sandbox::{self, Sandbox};
use tokio_util::sync::CancellationToken;

pub const BOOTSTRAP_ID: &str = "bootstrap";
pub const BOOTSTRAP_SECRET: &str = "bootstrap0123456789bootstrap012345";
pub const MASTER_KEY: &str = "k1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

/// Waits until something holds, or fails with what was waited for.
pub async fn until(what: &str, look: impl AsyncFn() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !look().await {
        assert!(tokio::time::Instant::now() < patience, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything around a service: a database, a bank link, an environment.
pub struct Stage {
    pub bank: Bank,
    /// The items and the codes' ids of Plaid's results, which the results themselves do not tell.
    items: Mutex<HashMap<String, (String, uuid::Uuid)>>,
    pub sandbox: Sandbox,
    pub sandbox_url: String,
    pub database: TestDatabase,
    pub clock: Clock,
    pub environment: Environment,
}

/// A service that runs, with everything around it.
pub struct TestApp {
    stage: Stage,
    pub api: Api,
    pub context: Context,
    pub events: strongroom::events::Context,
    pub metrics_url: String,
    pub console_url: Option<String>,
    directories: Mutex<Vec<Directory>>,
    background: bool,
    stop: CancellationToken,
}

impl std::ops::Deref for TestApp {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

/// What a test wants otherwise than usual.
pub struct Builder {
    bank: Bank,
    environment: Environment,
    background: bool,
    database: Option<TestDatabase>,
}

impl Builder {
    /// Sets a variable of the service's environment.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.set(name, value);
        self
    }

    /// On this database.
    pub fn on(mut self, database: TestDatabase) -> Self {
        self.database = Some(database);
        self
    }

    /// Without the background work: the test drives it by [`TestApp::tick`], and requests do not wait
    /// for it.
    pub fn by_hand(mut self) -> Self {
        self.background = false;
        self.set("STRONGROOM_ANSWER_WITHIN", "0")
    }

    /// Everything around a service, and no service.
    pub async fn stage(mut self) -> Stage {
        let database = match self.database {
            Some(database) => database,
            None => TestDatabase::new().await,
        };
        let clock = Clock::system();
        let sandbox = Sandbox::with_clock(
            sandbox::Settings { workers: 1, ..sandbox::Settings::default() },
            clock.clone(),
        );
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let sandbox_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(sandbox::server(&sandbox, listener).unwrap());
        if self.environment.get("DAPI_BASE_URL").is_none() {
            self.environment.set("DAPI_BASE_URL", format!("{sandbox_url}/v2"));
        }
        if self.environment.get("PLAID_BASE_URL").is_none() {
            self.environment.set("PLAID_BASE_URL", format!("{sandbox_url}/plaid"));
        }
        if self.environment.get("DATABASE_URL").is_none() {
            self.environment.set("DATABASE_URL", database.url());
        }
        if let Some(url) = database.owner_url() {
            self.environment.set("STRONGROOM_MIGRATE_DATABASE_URL", url);
        }
        let (bank, environment, items) = (self.bank, self.environment, Mutex::default());
        Stage { bank, items, sandbox, sandbox_url, database, clock, environment }
    }

    pub async fn spawn(self) -> TestApp {
        let background = self.background;
        let stage = self.stage().await;
        let stop = CancellationToken::new();
        let run = run(&stage.environment, &stage.clock, background, &stop).await;
        TestApp {
            stage,
            api: Api::new(run.address),
            context: run.context,
            events: run.events,
            console_url: run.console_url,
            directories: Mutex::new(vec![run.directory]),
            metrics_url: format!("http://{}/metrics", run.metrics_address),
            background,
            stop,
        }
    }
}

struct Run {
    address: SocketAddr,
    metrics_address: SocketAddr,
    context: Context,
    events: strongroom::events::Context,
    directory: Directory,
    console_url: Option<String>,
}

async fn run(
    environment: &Environment,
    clock: &Clock,
    background: bool,
    stop: &CancellationToken,
) -> Run {
    let config = Config::from_environment(environment).unwrap();
    let service = Service::build(config, clock.clone()).await.unwrap();
    let run = Run {
        address: service.address(),
        metrics_address: service.metrics_address(),
        context: service.context().clone(),
        events: service.events().clone(),
        directory: service.directory().clone(),
        console_url: service.console_url().map(|url| url.as_str().to_owned()),
    };
    let stopped = stop.clone().cancelled_owned();
    if background {
        tokio::spawn(service.run(stopped));
    } else {
        tokio::spawn(service.run_without_background(CancellationToken::new(), stopped));
    }
    run
}

impl TestApp {
    /// A service whose app is at Dapi.
    pub fn builder() -> Builder {
        Self::builder_at(Bank::Dapi)
    }

    /// A service whose app is at this bank link.
    fn builder_at(bank: Bank) -> Builder {
        let environment = [
            ("STRONGROOM_MASTER_KEYS", MASTER_KEY),
            ("STRONGROOM_LISTEN", "127.0.0.1:0"),
            ("STRONGROOM_METRICS_LISTEN", "127.0.0.1:0"),
            // The same for every replica, whose ports differ.
            ("STRONGROOM_PUBLIC_URL", "http://strongroom.test"),
            ("STRONGROOM_WORKERS", "1"),
            ("STRONGROOM_DATABASE_CONNECTIONS", "16"),
            // A machine that is busy with something else is no outage; tests of outages set their own.
            ("STRONGROOM_DATABASE_TIMEOUT", "30"),
            ("STRONGROOM_SHUTDOWN_GRACE", "5"),
            ("STRONGROOM_BOOTSTRAP_CLIENT_ID", BOOTSTRAP_ID),
            ("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", BOOTSTRAP_SECRET),
        ];
        let environment = environment.into_iter().chain(bank.environment()).collect();
        Builder { bank, environment, background: true, database: None }
    }

    /// A service with the console.
    pub async fn with_console() -> Self {
        Self::builder().set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0").spawn().await
    }

    /// A service with everything as usual.
    pub async fn spawn() -> Self {
        Self::builder().spawn().await
    }

    /// A service whose background work waits for [`tick`](Self::tick).
    pub async fn by_hand() -> Self {
        Self::builder().by_hand().spawn().await
    }

    /// Another replica on the same database, the same Dapi and the same clocks.
    pub async fn replica(&self) -> Api {
        self.replica_with(&[]).await
    }

    /// Another replica whose environment differs in these variables.
    pub async fn replica_with(&self, variables: &[(&str, &str)]) -> Api {
        let mut environment = self.environment.clone();
        for (name, value) in variables {
            environment.set(name, *value);
        }
        let run = run(&environment, &self.clock, self.background, &self.stop).await;
        self.directories.lock().unwrap().push(run.directory);
        Api::new(run.address)
    }

    /// One round of the background work, with all the calls that it makes.
    pub async fn tick(&self) -> reconcile::Round {
        reconcile::round(&self.context).await.unwrap().finish().await
    }

    /// One round of the audit trail's chainer; returns how many rows it linked.
    pub async fn link(&self) -> usize {
        strongroom::audit::chain::round(&self.context.pool).await.unwrap()
    }

    /// One round of the dispatcher; returns how many events it gave positions.
    pub async fn dispatch(&self) -> usize {
        let (dispatched, failed) = strongroom::events::dispatch::round(&self.events).await.unwrap();
        assert_eq!(failed, 0);
        dispatched
    }

    /// Dispatches, and delivers what is due until nothing is; returns how many attempts were made.
    pub async fn deliver_events(&self) -> usize {
        self.dispatch().await;
        let mut attempts = 0;
        loop {
            let begun = strongroom::events::delivery::round(&self.events).await.unwrap();
            if begun.is_empty() {
                return attempts;
            }
            attempts += begun.len();
            futures_util::future::join_all(begun).await.into_iter().for_each(Result::unwrap);
        }
    }

    /// Moves every clock forward. The directories are refreshed, as they would have been many times
    /// over meanwhile.
    pub async fn turn_clock(&self, by: Duration) {
        self.clock.advance(by);
        self.database.turn_clock(by).await;
        // What failed is left alone for a while by the process's own clock.
        self.context.deferred.forget();
        self.refresh_directories().await;
    }

    /// What every replica does each second.
    pub async fn refresh_directories(&self) {
        let directories = self.directories.lock().unwrap().clone();
        let mut conn = self.context.pool.acquire().await.unwrap();
        for directory in directories {
            directory.refresh(&mut conn, &self.context.vault).await.unwrap();
        }
    }

    /// What every replica does a few times a minute.
    pub async fn write_uses(&self) {
        let directories = self.directories.lock().unwrap().clone();
        let mut conn = self.context.pool.acquire().await.unwrap();
        for directory in directories {
            directory.note_uses(&mut conn).await.unwrap();
        }
    }

    /// An access token of the bootstrap client with every scope.
    pub async fn token(&self) -> String {
        self.api.token(BOOTSTRAP_ID, BOOTSTRAP_SECRET, None).await
    }
}

impl TestApp {
    /// An access token with these scopes only.
    pub async fn token_for(&self, scope: &str) -> String {
        self.api.token(BOOTSTRAP_ID, BOOTSTRAP_SECRET, Some(scope)).await
    }

    /// An access token of a client of another app, with every scope.
    pub async fn token_of_another_app(&self) -> String {
        let client = self.client_of_another_app().await;
        let (id, secret) = client.split_once('.').unwrap();
        let token = self.api.token(id, secret, None).await;
        self.refresh_directories().await;
        token
    }

    /// A client of another app with every scope, as `id.secret`.
    pub async fn client_of_another_app(&self) -> String {
        let mut conn = self.context.pool.acquire().await.unwrap();
        let actor = strongroom::common::actor::Actor::operator();
        let secret = strongroom::common::secret::SecretText::new("other-secret".to_owned());
        let vault = &self.context.vault;
        let found = strongroom::apps::find(&mut conn, "other").await.unwrap();
        let app = if let Some(app) = found {
            app
        } else {
            let new = strongroom::apps::NewApp {
                name: "other",
                provider: self.bank.provider(),
                app_key: "other-key",
                app_secret: &secret,
            };
            strongroom::apps::add(&mut conn, vault, &actor, &new).await.unwrap()
        };
        let new = strongroom::oauth::clients::NewClient {
            app: app.id,
            name: "stranger",
            scopes: Scopes::all(),
            token_lifetime: Duration::from_secs(3600),
        };
        let made =
            strongroom::oauth::clients::create(&mut conn, vault, &actor, &new).await.unwrap();
        format!("{}.{}", made.id, made.secret.expose())
    }

    /// Hands in a result for a user as a backend does.
    pub async fn hand_in(&self, user: &str, result: &Value) -> Answer {
        let token = self.token().await;
        self.api.hand_in(&token, user, result).await
    }

    /// An active connection of this user.
    pub async fn active(&self, user: &str) -> Value {
        self.active_from(user, &self.connect()).await
    }

    pub async fn active_from(&self, user: &str, result: &Value) -> Value {
        let answer = self.hand_in(user, result).await;
        if ![201, 202].contains(&answer.status) {
            let ready = self.api.send(self.api.request(reqwest::Method::GET, "/readyz")).await;
            panic!("{} {}; {}", answer.status, answer.json, ready.json);
        }
        let connection = self.api.connection(&self.token().await, id(&answer.json)).await;
        if connection["status"] == "pending" {
            self.settled(id(&answer.json)).await;
        }
        self.details_asked(id(&answer.json)).await;
        let connection = self.api.connection(&self.token().await, id(&answer.json)).await;
        assert_eq!(connection["status"], "active", "{connection}");
        connection
    }

    /// Waits for the exchange that is under way, if one is, by asking the row, not the time.
    pub async fn settled(&self, id: &str) -> Value {
        let token = self.token().await;
        for _ in 0..2000 {
            if !self.database.is_leased(id).await {
                return self.api.connection(&token, id).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the exchange of {id} does not end");
    }

    /// Waits until Plaid was asked for an active connection's institution and accounts.
    pub async fn details_asked(&self, id: &str) {
        for _ in 0..2000 {
            if !self.database.awaits_details(id).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the details of {id} are not asked for");
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(&self.metrics_url).await.unwrap().text().await.unwrap()
    }

    /// The value of a metric without labels, or with exactly these.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics().await;
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The id of a connection.
pub fn id(connection: &Value) -> &str {
    connection["id"].as_str().unwrap_or_else(|| panic!("no id in {connection}"))
}

/// The result with these members changed; `null` takes one away.
pub fn with(result: &Value, changes: Value) -> Value {
    let mut changed = result.clone();
    let object = changed.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    changed
}

pub fn for_user(result: &Value, user: &str) -> Value {
    with(result, json!({ "clientUserID": user }))
}
