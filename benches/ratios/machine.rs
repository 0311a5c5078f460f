//! The stage: PostgreSQL on disk with fsync, an upstream, a bare server, and the system's accounting.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use sqlx::{Connection as _, Executor as _, PgConnection};
use strongroom_dev::postgres::{Durability, LocalPostgres, Settings};

/// A child process that ends with this one.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Stage {
    pub postgres: LocalPostgres,
    pub folder: PathBuf,
    pub upstream: SocketAddr,
    /// The same, with a tenth of a second before each answer.
    pub slow_upstream: SocketAddr,
    pub bare: SocketAddr,
    pub proxy: SocketAddr,
    processes: [Process; 4],
}

impl Stage {
    pub async fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings {
            folder: folder.join("postgres"),
            durability: Durability::Durable,
            programs: std::env::var_os("PG_BIN").filter(|path| !path.is_empty()).map(Into::into),
            path: std::env::var_os("PATH"),
        };
        // The floors take a connection for each client, on top of the service's.
        let postgres = LocalPostgres::start(settings.clone()).await.unwrap();
        let mut conn = PgConnection::connect_with(&postgres.connect_options()).await.unwrap();
        conn.execute("ALTER SYSTEM SET max_connections = 250").await.unwrap();
        conn.close().await.unwrap();
        postgres.stop().await.unwrap();
        let postgres = LocalPostgres::start(settings).await.unwrap();
        let (upstream, upstream_process) = role("--upstream", None);
        let (slow_upstream, slow_process) = role("--upstream", Some("100"));
        let (bare, bare_process) = role("--bare", None);
        let (proxy, proxy_process) = role("--proxy", Some(&upstream.to_string()));
        let processes = [upstream_process, bare_process, proxy_process, slow_process];
        Self { postgres, folder, upstream, slow_upstream, bare, proxy, processes }
    }

    /// A URL of the database of this name.
    pub fn url(&self, database: &str) -> String {
        self.postgres.url().replace("///postgres?", &format!("///{database}?"))
    }

    /// CPU that the bare reverse proxy has taken so far.
    pub fn proxy_cpu(&self) -> Duration {
        cpu(self.processes[2].0.id())
    }

    /// CPU that PostgreSQL has taken so far.
    pub fn postgres_cpu(&self) -> Duration {
        let pid_file = self.postgres.data_folder().join("data/postmaster.pid");
        let text = std::fs::read_to_string(pid_file).unwrap();
        let postmaster: u32 = text.lines().next().unwrap().parse().unwrap();
        let mut total = cpu_with_children(postmaster);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if parent(pid) == Some(postmaster) {
                total += cpu(pid);
            }
        }
        total
    }
}

/// Starts this program in another role, with its argument; its first line is its address.
fn role(role: &str, argument: Option<&str>) -> (SocketAddr, Process) {
    let mut process = play(role, argument);
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (line.trim().parse().unwrap(), process)
}

/// Starts this program in another role.
pub fn play(role: &str, argument: Option<&str>) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    Process(command.arg(role).args(argument).stdout(Stdio::piped()).spawn().unwrap())
}

fn serve(route: impl Fn() -> actix_web::Route + Clone + Send + 'static) {
    actix_web::rt::System::new().block_on(async move {
        let server = HttpServer::new(move || App::new().default_service(route()))
            .workers(2)
            .bind(("127.0.0.1", 0))
            .unwrap();
        println!("{}", server.addrs()[0]);
        server.run().await.unwrap();
    });
}

/// Dapi at its quickest: a token for every code, after `pause` milliseconds.
pub fn upstream(pause: Option<&str>) {
    const ANSWER: &str = r#"{"success":true,"status":"done","accessToken":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhcHBLZXkiOiIxMjM0NTY3ODkwIiwidG9rZW5JRCI6ImFiY2RlZiIsInN1YiI6IjEyMzQ1Njc4OTAiLCJpYXQiOjE1MTYyMzkwMjJ9.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c","tokenID":"abcdef","userID":"user"}"#;
    let pause = Duration::from_millis(pause.map_or(0, |millis| millis.parse().unwrap()));
    // Reads the body: actix closes a connection whose request it has not read.
    serve(move || {
        web::to(move |_: web::Bytes| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            HttpResponse::Ok().content_type("application/json").body(ANSWER)
        })
    });
}

/// The least that an actix server can do: an answer in JSON.
pub fn bare() {
    serve(|| {
        web::to(|| async { HttpResponse::Ok().json(serde_json::json!({ "status": "alive" })) })
    });
}

/// The least that a reverse proxy can do: the request's body to the upstream, the answer's back.
pub fn proxy(upstream: &str) {
    let url = format!("http://{upstream}/");
    serve(move || {
        let (client, url) = (reqwest::Client::new(), url.clone());
        web::to(move |body: web::Bytes| {
            let call = client.post(&url).body(body);
            async move {
                let answer = call.send().await.unwrap().bytes().await.unwrap();
                HttpResponse::Ok().content_type("application/json").body(answer)
            }
        })
    });
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

fn ticks(stat: &[String], fields: &[usize]) -> Duration {
    let sum: u64 = fields.iter().filter_map(|index| stat.get(*index)?.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(sum * 10)
}

/// CPU that a process has taken so far, user and system.
pub fn cpu(pid: u32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| ticks(&stat, &[11, 12]))
}

fn cpu_with_children(pid: u32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| ticks(&stat, &[11, 12, 13, 14]))
}

/// A line of `/proc/PID/status` in MiB, such as `VmRSS`.
pub fn mebibytes(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Counts the system calls of a process for so long, by `perf` where it is installed and allowed; zero elsewhere.
pub async fn system_calls(pid: u32, seconds: Duration) -> f64 {
    let mut perf = Command::new("perf");
    perf.args([
        "stat",
        "-x,",
        "-e",
        "raw_syscalls:sys_enter",
        "-p",
        &pid.to_string(),
        "--",
        "sleep",
    ])
    .arg(seconds.as_secs_f64().to_string())
    .stdout(Stdio::null());
    let output = tokio::task::spawn_blocking(move || perf.output()).await.unwrap();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let count = text.ok().and_then(|text| text.split(',').next()?.trim().parse().ok());
    count.unwrap_or_default()
}

/// Connections that a process has opened from this machine to `address`, of those that are still open.
pub fn open_connections(address: SocketAddr) -> usize {
    let wanted = format!(":{:04X}", address.port());
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // Remote address and state; 01 is established.
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|it| it.len() > 3 && it[2].ends_with(&wanted) && it[3] == "01").count()
}
