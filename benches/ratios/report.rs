//! What came out: medians of the rounds, ratios, a table and JSON beside it.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::chart;
use crate::machine::Stage;
use crate::product::Revocation;
use crate::{ARMS, CALLERS, IN_FLIGHT, Measured};

pub struct Report {
    file: std::path::PathBuf,
    postgres: u32,
    arms: BTreeMap<(String, usize), Vec<Measured>>,
    cold_start: Vec<f64>,
    memory: (f64, f64),
    idle: f64,
    upstream_connections: usize,
    in_flight: Option<(Measured, f64)>,
    revocation: Option<Revocation>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Report {
    pub fn new(stage: &Stage) -> Self {
        Self {
            file: stage.folder.join("ratios.json"),
            postgres: stage.postgres.version(),
            arms: BTreeMap::new(),
            cold_start: Vec::new(),
            memory: (0.0, 0.0),
            idle: 0.0,
            upstream_connections: 0,
            in_flight: None,
            revocation: None,
        }
    }

    pub fn add(&mut self, arm: &str, connections: usize, measured: Measured) {
        self.arms.entry((arm.to_owned(), connections)).or_default().push(measured);
    }

    pub fn cold_start(&mut self, times: Vec<f64>) {
        self.cold_start = times;
    }

    pub fn memory(&mut self, memory: (f64, f64)) {
        self.memory = memory;
    }

    /// Resident memory in MiB before the load.
    pub fn idle(&mut self, memory: f64) {
        self.idle = memory;
    }

    /// Connections to the upstream that are open after the load.
    pub fn upstream_connections(&mut self, count: usize) {
        self.upstream_connections = count;
    }

    /// A thousand exchanges in flight, and the memory in MiB at its highest.
    pub fn in_flight(&mut self, measured: (Measured, f64)) {
        self.in_flight = Some(measured);
    }

    pub fn revocation(&mut self, revocation: Revocation) {
        self.revocation = Some(revocation);
    }

    fn median(&self, arm: &str, connections: usize, of: impl Fn(&Measured) -> f64) -> f64 {
        let rounds = self.arms.get(&(arm.to_owned(), connections));
        median(rounds.into_iter().flatten().map(of).collect())
    }

    fn row(&self, arm: &str, floor: &str, connections: usize) -> Value {
        let of = |value: fn(&Measured) -> f64| self.median(arm, connections, value);
        let floor_rate = self.median(floor, connections, |m| m.per_second);
        let floors = self.arms.get(&(floor.to_owned(), connections));
        let floors = || floors.into_iter().flatten().map(|m| m.per_second);
        let spread = floors().fold(0.0, f64::max) / floors().fold(f64::INFINITY, f64::min) - 1.0;
        json!({
            "arm": arm,
            "connections": connections,
            "perSecond": of(|m| m.per_second).round(),
            "p50Millis": of(|m| m.p50.as_secs_f64() * 1000.0),
            "p99Millis": of(|m| m.p99.as_secs_f64() * 1000.0),
            "serviceCPUMicros": of(|m| m.service_cpu).round(),
            "postgresCPUMicros": of(|m| m.postgres_cpu).round(),
            "systemCalls": of(|m| m.system_calls),
            "floor": floor,
            "floorSpread": spread,
            "floorPerSecond": floor_rate.round(),
            "floorServiceCPUMicros": self.median(floor, connections, |m| m.service_cpu).round(),
            "ratio": of(|m| m.per_second) / floor_rate,
        })
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for (arm, floor) in ARMS {
            for connections in CALLERS {
                for arm in [arm.to_owned(), format!("{arm}, other")] {
                    if self.arms.contains_key(&(arm.clone(), connections)) {
                        rows.push(self.row(&arm, floor, connections));
                    }
                }
            }
        }
        rows
    }

    /// Requests per second of the servers' own CPU and PostgreSQL's, ours beside another's.
    pub fn print_peers(&self, ours: &str, theirs: &str) {
        println!("\n{:>5} {ours:>16} {theirs:>16} {:>6}", "conn", "ratio");
        for connections in [32, 128] {
            let a_cpu_second =
                |arm| 1e6 / self.median(arm, connections, |m| m.service_cpu + m.postgres_cpu);
            let (ours, theirs) = (a_cpu_second(ours), a_cpu_second(theirs));
            println!("{connections:>5} {ours:>16.0} {theirs:>16.0} {:>6.1}", ours / theirs);
        }
    }

    pub fn print(&self) {
        let rows = self.rows();
        print_rows(&rows);
        self.print_relay();
        println!(
            "{} connections to the upstream are open after the load",
            self.upstream_connections
        );
        let in_flight = self.in_flight.as_ref().map(print_in_flight);
        let cold_start = median(self.cold_start.clone());
        println!(
            "\ncold start {cold_start:.0} ms; resident memory idle {:.0} MiB, after the load {:.0} MiB, at its highest {:.0} MiB; PostgreSQL {}",
            self.idle, self.memory.0, self.memory.1, self.postgres
        );
        let revocation = self.revocation.as_ref().map(|it| {
            let (millis, (before, after)) = (it.acknowledged.as_millis(), it.memory);
            println!("100,000 revoked: acknowledged after {millis} ms; resident memory before {before:.0} MiB, after {after:.0} MiB");
            json!({ "acknowledgedMillis": millis, "residentMiBBefore": before, "residentMiBAfter": after })
        });
        self.write(&json!({
            "rows": &rows,
            "inFlight": in_flight,
            "upstreamConnections": self.upstream_connections,
            "idleResidentMiB": self.idle,
            "revocationOf100000": revocation,
            "coldStartMillis": cold_start,
            "residentMiB": self.memory.0,
            "highestResidentMiB": self.memory.1,
            "postgres": self.postgres,
        }));
    }

    /// The service's CPU of a relayed call beside a bare proxy's.
    fn print_relay(&self) {
        for connections in CALLERS {
            let cpu = |arm| self.median(arm, connections, |m| m.service_cpu);
            let (relay, proxy) = (cpu("relay"), cpu("proxy"));
            if proxy > 0.0 {
                println!(
                    "a relayed call at {connections}: {relay:.0} µs of the service's CPU, a bare proxy's {proxy:.0} µs, {:.1} times",
                    relay / proxy
                );
            }
        }
    }

    /// Writes the figures; if they are to be kept, into the history and the chart too.
    fn write(&self, figures: &Value) {
        std::fs::write(&self.file, format!("{figures:#}\n")).unwrap();
        println!("{}", self.file.display());
        if let Some(folder) = std::env::var_os("BENCH_RECORD").map(std::path::PathBuf::from) {
            record(&folder.join("benches/history.jsonl"), figures);
            let chart = chart::draw(figures["rows"].as_array().unwrap());
            std::fs::write(folder.join("docs/images/benchmarks.svg"), chart).unwrap();
        }
    }
}

fn print_rows(rows: &[Value]) {
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default();
    println!(
        "\n{:<15} {:>5} {:>7} {:>8} {:>8} {:>10} {:>11} {:>6} {:>8} {:>8} {:>7} {:>6}",
        "arm",
        "conn",
        "req/s",
        "p50 ms",
        "p99 ms",
        "service µs",
        "postgres µs",
        "calls",
        "floor",
        "floor/s",
        "spread",
        "ratio"
    );
    for row in rows {
        println!(
            "{:<15} {:>5} {:>7.0} {:>8.2} {:>8.2} {:>10.0} {:>11.0} {:>6.1} {:>8} {:>8.0} {:>6.0}% {:>6.2}",
            row["arm"].as_str().unwrap_or_default(),
            number(row, "connections"),
            number(row, "perSecond"),
            number(row, "p50Millis"),
            number(row, "p99Millis"),
            number(row, "serviceCPUMicros"),
            number(row, "postgresCPUMicros"),
            number(row, "systemCalls"),
            row["floor"].as_str().unwrap_or_default(),
            number(row, "floorPerSecond"),
            number(row, "floorSpread") * 100.0,
            number(row, "ratio"),
        );
    }
}

fn print_in_flight((measured, memory): &(Measured, f64)) -> Value {
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    let (p50, p99) = (millis(measured.p50), millis(measured.p99));
    println!(
        "{IN_FLIGHT} in flight, the upstream takes 100 ms: {:.0}/s, p50 {p50:.0} ms, p99 {p99:.0} ms, {:.0} µs of the service's CPU, {memory:.0} MiB at the highest",
        measured.per_second, measured.service_cpu
    );
    json!({ "perSecond": measured.per_second.round(), "p50Millis": p50, "p99Millis": p99,
        "serviceCPUMicros": measured.service_cpu.round(), "highestResidentMiB": memory })
}

/// Appends a line with the commit, the machine and all figures.
fn record(file: &std::path::Path, figures: &Value) {
    let output = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let line = json!({
        "commit": output("git", &["describe", "--always", "--dirty"]),
        "date": output("date", &["-u", "+%F"]),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "processor": processor,
        "figures": figures,
    });
    let mut history = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    writeln!(history, "{line}").unwrap();
}
