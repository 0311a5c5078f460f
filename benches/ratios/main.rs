//! Ratios against physical floors, all in one run: `make bench`.
//!
//! Absolute figures of one machine tell little; the ratio of the whole product to pgbench doing the
//! same commits, or to a bare actix server, travels. Floor and product take turns, several rounds,
//! and the medians are told, with CPU per request from the system's own accounting.
//!
//! Everything runs on this machine: a PostgreSQL with fsync on disk, an upstream that answers every
//! exchange at once, the release binary, and a load generator of plain sockets in a closed loop.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark stops where it is surprised, prints, and divides"
)]

mod chart;
mod console;
mod events;
mod floors;
mod growth;
mod load;
mod machine;
mod peers;
mod product;
mod report;

use std::time::Duration;

use machine::Stage;
use product::{Build, Product};
use report::Report;

/// What one measurement took.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Requests a second.
    pub per_second: f64,
    /// Half of all requests took no longer.
    pub p50: Duration,
    /// Ninety-nine in a hundred took no longer.
    pub p99: Duration,
    /// Microseconds of the service's CPU a request.
    pub service_cpu: f64,
    /// Microseconds of PostgreSQL's.
    pub postgres_cpu: f64,
    /// The service's system calls a request; zero where they cannot be counted.
    pub system_calls: f64,
}

struct Settings {
    rounds: usize,
    seconds: u64,
    /// The arms to be measured; all of them if empty.
    only: Vec<String>,
}

/// What the product is asked for, and the floor beside it.
const ARMS: [(&str, &str); 5] = [
    ("exchange", "pair"),
    ("reveal", "audited"),
    ("read", "select"),
    ("token", "bare"),
    ("relay", "proxy"),
];
/// How many callers ask at once.
const CALLERS: [usize; 3] = [1, 32, 128];
/// How many exchanges are in flight before an upstream that takes a tenth of a second.
const IN_FLIGHT: usize = 1000;

fn settings() -> Settings {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    Settings {
        rounds: number("BENCH_ROUNDS", 3),
        seconds: number("BENCH_SECONDS", 3) as u64,
        only: only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}

impl Settings {
    fn has(&self, arm: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == arm)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        // The roles that this program plays as a process of its own.
        Some("--upstream") => return machine::upstream(arguments.next().as_deref()),
        Some("--bare") => return machine::bare(),
        Some("--proxy") => return machine::proxy(&arguments.next().unwrap()),
        Some("--poster") => return events::post(&arguments.next().unwrap()),
        _ => {}
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    if std::env::args().any(|argument| argument == "--peers") {
        return runtime.unwrap().block_on(beside_peers(&settings()));
    }
    if std::env::args().any(|argument| argument == "--growth") {
        return runtime.unwrap().block_on(grow(&settings()));
    }
    if std::env::args().any(|argument| argument == "--events") {
        return runtime.unwrap().block_on(send_events(&settings()));
    }
    runtime.unwrap().block_on(run(&settings()));
}

/// Events to endpoints, of which one hangs.
async fn send_events(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let service = Product::start(&stage, Build::this()).await;
    events::run(&stage, &service, settings.seconds.max(10)).await;
}

/// The costs at each size of the database.
async fn grow(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let settings_of_console = [("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0")];
    let mut service = Product::start_with(&stage, Build::this(), &settings_of_console).await;
    growth::run(&stage, &mut service, Duration::from_secs(settings.seconds)).await;
}

/// Tokens and exchanges beside what others run for them, in turns.
async fn beside_peers(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let mut report = Report::new(&stage);
    let seconds = Duration::from_secs(settings.seconds);
    let service = Product::start(&stage, Build::this()).await;
    let oidc = peers::Peer::oidc_provider();
    let fastify = peers::Peer::fastify(&stage).await;
    // Node compiles what it has run for a while.
    oidc.token(32, seconds).await;
    fastify.exchange(&stage, 32, seconds).await;
    for round in 1..=settings.rounds {
        for connections in [32, 128] {
            println!("round {round}: tokens and exchanges at {connections} …");
            report.add("oidc", connections, oidc.token(connections, seconds).await);
            report.add("token", connections, service.token(connections, seconds).await);
            report.add(
                "fastify",
                connections,
                fastify.exchange(&stage, connections, seconds).await,
            );
            report.add("exchange", connections, service.exchange(connections, seconds).await);
        }
    }
    report.print_peers("token", "oidc");
    report.print_peers("exchange", "fastify");
}

/// Floors and product in turns; with `--compare BINARY`, another build of it too.
async fn run(settings: &Settings) {
    let stage = Stage::start().await;
    let mut report = Report::new(&stage);
    if settings.has("cold-start") {
        println!("cold start …");
        report.cold_start(product::cold_starts(&stage, settings.rounds).await);
    }
    let service = Product::start(&stage, Build::this()).await;
    report.idle(service.memory().0);
    let other = match other_binary() {
        Some(binary) => Some(Product::start(&stage, Build::other(binary)).await),
        None => None,
    };
    for round in 1..=settings.rounds {
        for (arm, floor) in ARMS.into_iter().filter(|(arm, _)| settings.has(arm)) {
            for callers in CALLERS {
                println!("round {round}: {arm} at {callers} …");
                let seconds = Duration::from_secs(settings.seconds);
                report.add(floor, callers, floors::measure(&stage, floor, callers, seconds).await);
                report.add(arm, callers, service.arm(arm, callers, seconds).await);
                if let Some(other) = &other {
                    report.add(
                        &format!("{arm}, other"),
                        callers,
                        other.arm(arm, callers, seconds).await,
                    );
                }
            }
        }
    }
    report.memory(service.memory());
    report.upstream_connections(machine::open_connections(stage.upstream));
    if settings.has("revocation") {
        println!("revocation of 100,000 …");
        report.revocation(service.revocation().await);
    }
    drop((service, other));
    if settings.has("in-flight") {
        println!("{IN_FLIGHT} exchanges in flight …");
        report.in_flight(in_flight(&stage, settings).await);
    }
    report.print();
}

fn other_binary() -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--compare");
    arguments.nth(1)
}

/// A thousand callers whose codes wait for an upstream that takes a tenth of a second; with the memory at its highest.
async fn in_flight(stage: &Stage, settings: &Settings) -> (Measured, f64) {
    let base = format!("http://{}/v2", stage.slow_upstream);
    let more = [("DAPI_BASE_URL", base.as_str()), ("DAPI_MAX_CONCURRENT_CALLS", "2000")];
    let service = Product::start_with(stage, Build::this(), &more).await;
    service.exchange(IN_FLIGHT, Duration::from_secs(1)).await;
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        rounds.push(service.exchange(IN_FLIGHT, Duration::from_secs(settings.seconds)).await);
    }
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    (rounds.swap_remove(rounds.len() / 2), service.memory().1)
}
