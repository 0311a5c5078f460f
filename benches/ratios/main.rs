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

mod events;
mod floors;
mod growth;
mod load;
mod machine;
mod peers;
mod product;
mod report;

use std::time::Duration;

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
}

struct Settings {
    rounds: usize,
    seconds: u64,
}

fn settings() -> Settings {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    Settings { rounds: number("BENCH_ROUNDS", 3), seconds: number("BENCH_SECONDS", 3) as u64 }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        // The roles that this program plays as a process of its own.
        Some("--upstream") => return machine::upstream(),
        Some("--bare") => return machine::bare(),
        Some("--proxy") => return machine::proxy(&arguments.next().unwrap()),
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
    let service = product::Product::start(&stage).await;
    events::run(&stage, &service, settings.seconds.max(10)).await;
}

/// The costs at each size of the database.
async fn grow(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let mut service = product::Product::start(&stage).await;
    growth::run(&stage, &mut service, Duration::from_secs(settings.seconds)).await;
}

/// Tokens beside another server's, in turns.
async fn beside_peers(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let mut report = Report::new(&stage);
    let seconds = Duration::from_secs(settings.seconds);
    let service = product::Product::start(&stage).await;
    let peer = peers::OidcProvider::start();
    // Node compiles what it has run for a while.
    peer.token(32, seconds).await;
    for round in 1..=settings.rounds {
        for connections in [32, 128] {
            println!("round {round}: tokens at {connections} …");
            report.add("oidc", connections, peer.token(connections, seconds).await);
            report.add("token", connections, service.token(connections, seconds).await);
        }
    }
    report.print_peers("token", "oidc");
}

async fn run(settings: &Settings) {
    let stage = machine::Stage::start().await;
    let mut report = Report::new(&stage);
    let seconds = Duration::from_secs(settings.seconds);
    println!("cold start …");
    report.cold_start(product::cold_starts(&stage, settings.rounds).await);
    let service = product::Product::start(&stage).await;
    for round in 1..=settings.rounds {
        for connections in [1, 32, 128] {
            println!("round {round}: exchange at {connections} …");
            report.add("pair", connections, floors::pair(&stage, connections, seconds).await);
            report.add("exchange", connections, service.exchange(connections, seconds).await);
        }
        for connections in [32, 128] {
            println!("round {round}: reading at {connections} …");
            report.add("select", connections, floors::select(&stage, connections, seconds).await);
            report.add("read", connections, service.read(connections, seconds).await);
            report.add("audited", connections, floors::audited(&stage, connections, seconds).await);
            report.add("reveal", connections, service.reveal(connections, seconds).await);
            report.add("bare", connections, floors::bare(&stage, connections, seconds).await);
            report.add("token", connections, service.token(connections, seconds).await);
            report.add("proxy", connections, floors::proxy(&stage, connections, seconds).await);
            report.add("relay", connections, service.relay(connections, seconds).await);
        }
    }
    report.memory(service.memory());
    println!("revocation of 100,000 …");
    report.revocation(service.revocation().await);
    report.print();
}
