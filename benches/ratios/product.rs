//! The product: the release binary, whole, with its authorization, audit and sealing.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::net::TcpStream;

use crate::machine::{self, Process, Stage};
use crate::{Measured, load};

pub const SECRET: &str = "bench0123456789bench0123456789bench";
const USERS: u64 = 1000;

pub struct Product<'a> {
    stage: &'a Stage,
    build: Build,
    settings: Vec<(String, String)>,
    process: Process,
    address: SocketAddr,
    /// Where operators sign in, if that is on.
    pub console: Option<String>,
    token: String,
    /// Connections to be read.
    active: Arc<Vec<String>>,
    next: Arc<AtomicU64>,
}

/// What an order to revoke a hundred thousand connections took.
pub struct Revocation {
    pub acknowledged: Duration,
    /// Before and after.
    pub memory: (f64, f64),
}

/// A binary of the service, and the database that it works on.
#[derive(Clone, Debug)]
pub struct Build {
    pub binary: String,
    pub database: &'static str,
}

impl Build {
    /// The binary of this tree, or that of `BENCH_BINARY`.
    pub fn this() -> Self {
        let binary = std::env::var("BENCH_BINARY");
        let binary = binary.unwrap_or(env!("CARGO_BIN_EXE_strongroom").to_owned());
        Self { binary, database: "product" }
    }

    /// Another binary, to be compared.
    pub fn other(binary: String) -> Self {
        Self { binary, database: "other" }
    }
}

/// The binary with the environment of the service.
fn strongroom(stage: &Stage, build: &Build) -> Command {
    let mut command = Command::new(&build.binary);
    command
        .env_clear()
        .env("DATABASE_URL", stage.url(build.database))
        .env("STRONGROOM_MASTER_KEYS", "k1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=")
        .env("STRONGROOM_LISTEN", "127.0.0.1:0")
        .env("STRONGROOM_METRICS_LISTEN", "127.0.0.1:0")
        .env("STRONGROOM_PUBLIC_URL", "http://127.0.0.1")
        .env("STRONGROOM_BOOTSTRAP_CLIENT_ID", "bench")
        .env("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", SECRET)
        .env("STRONGROOM_DATABASE_CONNECTIONS", "40")
        // The load reads tokens as no client should.
        .env("STRONGROOM_REVEALS_PER_MINUTE", "1000000")
        .env("DAPI_BASE_URL", format!("http://{}/v2", stage.upstream))
        .env("DAPI_APP_KEY", "key")
        .env("DAPI_APP_SECRET", "secret")
        // Where the endpoints of the events are.
        .env("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")
        // A line for each request is what an operator has; where it goes costs nothing here.
        .env("STRONGROOM_LOG", "info");
    command
}

/// A service that serves.
struct Serving {
    process: Process,
    address: SocketAddr,
    console: Option<String>,
}

/// Starts the service with these settings; returns when it says that it serves.
fn serve(stage: &Stage, build: &Build, settings: &[(String, String)]) -> Serving {
    let mut command = strongroom(stage, build);
    command.envs(settings.iter().cloned());
    let mut child = command.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let event = lines.by_ref().map_while(Result::ok).find_map(|line| {
        serde_json::from_str(&line).ok().filter(|event: &Value| event["message"] == "serving")
    });
    std::thread::spawn(move || lines.for_each(drop));
    let event = event.unwrap();
    Serving {
        process: Process(child),
        address: event["address"].as_str().unwrap().parse().unwrap(),
        console: event["console"].as_str().map(str::to_owned),
    }
}

async fn make_database(stage: &Stage, build: &Build) {
    let mut conn = PgConnection::connect(&stage.url("postgres")).await.unwrap();
    for statement in ["DROP DATABASE IF EXISTS {} WITH (FORCE)", "CREATE DATABASE {}"] {
        let statement = statement.replace("{}", build.database);
        conn.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    conn.close().await.unwrap();
}

/// From the start of the process to its first answer, migrations done: in milliseconds.
pub async fn cold_starts(stage: &Stage, rounds: usize) -> Vec<f64> {
    let build = Build::this();
    make_database(stage, &build).await;
    drop(serve(stage, &build, &[]));
    let mut times = Vec::new();
    for _ in 0..rounds.max(5) {
        let started = Instant::now();
        let serving = serve(stage, &build, &[]);
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        let request = load::request("GET", "/healthz", "", "");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
        assert_eq!(load::answer(&mut stream, &mut Vec::new()).await, 200);
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times
}

impl<'a> Product<'a> {
    pub async fn start(stage: &'a Stage, build: Build) -> Self {
        Self::start_with(stage, build, &[]).await
    }

    /// Starts with further settings.
    pub async fn start_with(stage: &'a Stage, build: Build, settings: &[(&str, &str)]) -> Self {
        make_database(stage, &build).await;
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let Serving { process, address, console } = serve(stage, &build, &settings);
        let body = json!({ "grant_type": "client_credentials", "client_id": "bench", "client_secret": SECRET });
        let answer: Value = call(address, "POST", "/oauth2/token", "", &body.to_string()).await;
        let mut product = Self {
            stage,
            build,
            settings,
            process,
            address,
            console,
            token: answer["access_token"].as_str().unwrap().to_owned(),
            active: Arc::default(),
            next: Arc::default(),
        };
        product.warm_up().await;
        product
    }

    /// Every user exists, and there are connections to be read.
    async fn warm_up(&mut self) {
        let mut active = Vec::new();
        for _ in 0..USERS {
            let body = result(self.next.fetch_add(1, Ordering::Relaxed));
            let made = call(self.address, "POST", "/v1/connections", &self.token, &body).await;
            assert_eq!(made["status"], "active", "{made}");
            active.push(made["id"].as_str().unwrap().to_owned());
        }
        self.active = Arc::new(active);
        // What autovacuum does within a minute: statements that were prepared on empty tables get
        // plans that fit.
        let mut conn = PgConnection::connect(&self.stage.url(self.build.database)).await.unwrap();
        conn.execute("ANALYZE").await.unwrap();
        conn.close().await.unwrap();
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// CPU that the service has taken so far.
    pub fn cpu(&self) -> Duration {
        machine::cpu(self.pid())
    }

    /// The id of a connection that the product made.
    pub fn some_connection(&self) -> &str {
        &self.active[0]
    }

    /// Runs a command of the binary beside the service; returns what it prints.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let mut command = strongroom(self.stage, &self.build);
        command.envs(self.settings.iter().cloned()).args(arguments).stderr(Stdio::inherit());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        call(self.address, "POST", path, &self.token, &body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        call(self.address, "GET", path, &self.token, "").await
    }

    /// One caller who asks for the same over and over.
    pub async fn ask(&self, path: &str, seconds: Duration) -> Measured {
        let request = load::request("GET", path, &self.token, "");
        let requests: load::Requests = Arc::new(move |_| request.clone());
        self.measure(1, seconds, 200, requests).await
    }

    /// Resident memory in MiB: now, and at its highest.
    pub fn memory(&self) -> (f64, f64) {
        (machine::mebibytes(self.pid(), "VmRSS"), machine::mebibytes(self.pid(), "VmHWM"))
    }

    /// A hundred thousand connections revoked by one order: from the request to its answer, since when
    /// none is usable, and the service's resident memory in MiB before and after.
    pub async fn revocation(&self) -> Revocation {
        const MANY: &str = "INSERT INTO connections (
                id, app_id, user_id, status, login_id, created_at, activated_at, lease_epoch,
                code_hash, code_expires_at, access_token, user_secret)
            SELECT new_uuid_v7(), app_id, user_id, 'active', 'many-' || n, created_at, activated_at, 1,
                   sha256(('many-' || n)::bytea), code_expires_at, access_token, user_secret
            FROM (SELECT * FROM connections WHERE status = 'active' LIMIT 1) c, generate_series(1, 100000) n";
        let mut conn = PgConnection::connect(&self.stage.url(self.build.database)).await.unwrap();
        conn.execute("UPDATE connections SET created_at = created_at - interval '1 day'")
            .await
            .unwrap();
        conn.execute(MANY).await.unwrap();
        conn.execute("ANALYZE connections").await.unwrap();
        let (before, began) = (self.memory().0, Instant::now());
        let body = json!({
            "kind": "invalidate", "reason": "a benchmark", "perSecond": 1, "filter": { "all": true },
        });
        let path = "/v1/admin/revocations";
        let order = call(self.address, "POST", path, &self.token, &body.to_string()).await;
        let acknowledged = began.elapsed();
        let path = format!("{path}/{}", order["id"].as_str().unwrap());
        let mut counted = order;
        while counted["matched"].is_null() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            counted = call(self.address, "GET", &path, &self.token, "").await;
        }
        assert!(counted["matched"].as_i64().unwrap() >= 100_000, "{counted}");
        let usable: i64 =
            sqlx::query_scalar("SELECT count(*) FROM connections WHERE status = 'active'")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert_eq!(usable, 0);
        Revocation { acknowledged, memory: (before, self.memory().0) }
    }

    async fn measure(
        &self,
        connections: usize,
        seconds: Duration,
        expected: u16,
        requests: load::Requests,
    ) -> Measured {
        self.measure_at(self.address, connections, seconds, expected, requests).await
    }

    /// Measures requests to one of the service's listeners.
    pub async fn measure_at(
        &self,
        address: SocketAddr,
        connections: usize,
        seconds: Duration,
        expected: u16,
        requests: load::Requests,
    ) -> Measured {
        let (service, postgres) = (machine::cpu(self.pid()), self.stage.postgres_cpu());
        let calls = machine::system_calls(self.pid(), seconds);
        let load = load::run(address, connections, seconds, expected, requests);
        let (measured, calls) = tokio::join!(load, calls);
        let count = measured.per_second * seconds.as_secs_f64();
        let micros = |after: Duration, before: Duration| {
            after.checked_sub(before).unwrap_or_default().as_secs_f64() * 1e6 / count
        };
        Measured {
            system_calls: calls / count,
            service_cpu: micros(machine::cpu(self.pid()), service),
            postgres_cpu: micros(self.stage.postgres_cpu(), postgres),
            ..measured
        }
    }

    /// Asks for what this arm of the benchmark does.
    pub async fn arm(&self, name: &str, connections: usize, seconds: Duration) -> Measured {
        match name {
            "exchange" => self.exchange(connections, seconds).await,
            "reveal" => self.reveal(connections, seconds).await,
            "read" => self.read(connections, seconds).await,
            "token" => self.token(connections, seconds).await,
            "relay" => self.relay(connections, seconds).await,
            other => panic!("no arm {other}"),
        }
    }

    pub async fn exchange(&self, connections: usize, seconds: Duration) -> Measured {
        let requests = exchanges(&self.token, Arc::clone(&self.next));
        self.measure(connections, seconds, 201, requests).await
    }

    pub async fn read(&self, connections: usize, seconds: Duration) -> Measured {
        let (token, active) = (self.token.clone(), Arc::clone(&self.active));
        let requests: load::Requests = Arc::new(move |number| {
            let id = &active[spread(number, active.len())];
            load::request("GET", &format!("/v1/connections/{id}"), &token, "")
        });
        self.measure(connections, seconds, 200, requests).await
    }

    pub async fn reveal(&self, connections: usize, seconds: Duration) -> Measured {
        let (token, active) = (self.token.clone(), Arc::clone(&self.active));
        let requests: load::Requests = Arc::new(move |number| {
            let id = &active[spread(number, active.len())];
            let path = format!("/v1/connections/{id}/token");
            load::request("POST", &path, &token, r#"{"reason":"benchmark"}"#)
        });
        self.measure(connections, seconds, 200, requests).await
    }

    /// Calls with tokens that are in nobody else's hands at the moment: each has one call at a time.
    pub async fn relay(&self, connections: usize, seconds: Duration) -> Measured {
        let (token, active) = (self.token.clone(), Arc::clone(&self.active));
        let next = Arc::new(AtomicU64::new(0));
        let requests: load::Requests = Arc::new(move |_| {
            let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let path =
                format!("/v1/connections/{}/dapi/data/accounts/get", active[turn % active.len()]);
            load::request("POST", &path, &token, "{}")
        });
        self.measure(connections, seconds, 200, requests).await
    }

    /// Adds a webhook for one type of events.
    pub async fn add_webhook(&self, url: &str, kind: &str) {
        let body = json!({ "url": url, "events": [kind] }).to_string();
        let made = call(self.address, "POST", "/v1/admin/webhooks", &self.token, &body).await;
        assert!(made["id"].is_string(), "{made}");
    }

    pub async fn token(&self, connections: usize, seconds: Duration) -> Measured {
        let body = json!({ "grant_type": "client_credentials", "client_id": "bench", "client_secret": SECRET });
        let body = body.to_string();
        let request = format!(
            "POST /oauth2/token HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let requests: load::Requests = Arc::new(move |_| request.clone().into_bytes());
        self.measure(connections, seconds, 200, requests).await
    }
}

/// Neighbouring numbers hit distant rows.
fn spread(number: u64, length: usize) -> usize {
    usize::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).unwrap() % length
}

/// A result of Connect's, with secrets as long as Dapi's.
/// Requests with a new code each.
pub fn exchanges(token: &str, next: Arc<AtomicU64>) -> load::Requests {
    let token = token.to_owned();
    Arc::new(move |_| {
        let body = result(next.fetch_add(1, Ordering::Relaxed));
        load::request("POST", "/v1/connections", &token, &body)
    })
}

fn result(number: u64) -> String {
    let code = format!("bench-{number}-{}", "c".repeat(300));
    json!({
        "success": true,
        "clientUserID": format!("user-{}", number % USERS),
        "accessCode": code,
        "connectionID": format!("{number:040x}"),
        "userSecret": "s".repeat(684),
        "userID": "u".repeat(88),
        "tokenID": "t".repeat(36),
    })
    .to_string()
}

async fn call(address: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = load::request(method, path, token, body);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
    let mut buffer = Vec::new();
    load::answer(&mut stream, &mut buffer).await;
    let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    serde_json::from_slice(&buffer[head + 4..]).unwrap()
}
