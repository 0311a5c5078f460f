//! What came out: medians of the rounds, ratios, a table and JSON beside it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Measured;
use crate::machine::Stage;
use crate::product::Revocation;

/// Which product arm is held against which floor, and the goal of the ratio.
const PAIRS: [(&str, &str); 5] = [
    ("exchange", "pair"),
    ("read", "select"),
    ("reveal", "audited"),
    ("token", "bare"),
    ("relay", "proxy"),
];

pub struct Report {
    file: std::path::PathBuf,
    postgres: u32,
    arms: BTreeMap<(String, usize), Vec<Measured>>,
    cold_start: Vec<f64>,
    memory: (f64, f64),
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
        json!({
            "arm": arm,
            "connections": connections,
            "perSecond": of(|m| m.per_second).round(),
            "p50Millis": of(|m| m.p50.as_secs_f64() * 1000.0),
            "p99Millis": of(|m| m.p99.as_secs_f64() * 1000.0),
            "serviceCPUMicros": of(|m| m.service_cpu).round(),
            "postgresCPUMicros": of(|m| m.postgres_cpu).round(),
            "floor": floor,
            "floorPerSecond": floor_rate.round(),
            "floorServiceCPUMicros": self.median(floor, connections, |m| m.service_cpu).round(),
            "ratio": of(|m| m.per_second) / floor_rate,
        })
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for (arm, floor) in PAIRS {
            for connections in [1, 32, 128] {
                if self.arms.contains_key(&(arm.to_owned(), connections)) {
                    rows.push(self.row(arm, floor, connections));
                }
            }
        }
        rows
    }

    /// Tokens per second of the servers' own CPU, ours beside another's.
    pub fn print_peers(&self, ours: &str, theirs: &str) {
        println!("\n{:>5} {:>16} {:>16} {:>6}", "conn", "ours / CPU s", "theirs / CPU s", "ratio");
        for connections in [32, 128] {
            let a_cpu_second =
                |arm| 1e6 / self.median(arm, connections, |m| m.service_cpu + m.postgres_cpu);
            let (ours, theirs) = (a_cpu_second(ours), a_cpu_second(theirs));
            println!("{connections:>5} {ours:>16.0} {theirs:>16.0} {:>6.1}", ours / theirs);
        }
    }

    pub fn print(&self) {
        let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default();
        println!(
            "\n{:<9} {:>5} {:>8} {:>8} {:>8} {:>12} {:>12} {:>9} {:>9} {:>6}",
            "arm",
            "conn",
            "req/s",
            "p50 ms",
            "p99 ms",
            "service µs",
            "postgres µs",
            "floor",
            "floor/s",
            "ratio"
        );
        let rows = self.rows();
        for row in &rows {
            println!(
                "{:<9} {:>5} {:>8.0} {:>8.2} {:>8.2} {:>12.0} {:>12.0} {:>9} {:>9.0} {:>6.2}",
                row["arm"].as_str().unwrap_or_default(),
                number(row, "connections"),
                number(row, "perSecond"),
                number(row, "p50Millis"),
                number(row, "p99Millis"),
                number(row, "serviceCPUMicros"),
                number(row, "postgresCPUMicros"),
                row["floor"].as_str().unwrap_or_default(),
                number(row, "floorPerSecond"),
                number(row, "ratio"),
            );
        }
        for connections in [32, 128] {
            let cpu = |arm| self.median(arm, connections, |m| m.service_cpu);
            let (relay, proxy) = (cpu("relay"), cpu("proxy"));
            println!(
                "a relayed call at {connections}: {relay:.0} µs of the service's CPU, a bare proxy's {proxy:.0} µs, {:.1} times",
                relay / proxy
            );
        }
        let cold_start = median(self.cold_start.clone());
        println!(
            "\ncold start {cold_start:.0} ms; resident memory after the load {:.0} MiB, at its highest {:.0} MiB; PostgreSQL {}",
            self.memory.0, self.memory.1, self.postgres
        );
        let revocation = self.revocation.as_ref().map(|it| {
            let (millis, (before, after)) = (it.acknowledged.as_millis(), it.memory);
            println!("100,000 revoked: acknowledged after {millis} ms; resident memory before {before:.0} MiB, after {after:.0} MiB");
            json!({ "acknowledgedMillis": millis, "residentMiBBefore": before, "residentMiBAfter": after })
        });
        let json = json!({
            "rows": rows,
            "revocationOf100000": revocation,
            "coldStartMillis": cold_start,
            "residentMiB": self.memory.0,
            "highestResidentMiB": self.memory.1,
            "postgres": self.postgres,
        });
        std::fs::write(&self.file, format!("{json:#}\n")).unwrap();
        println!("{}", self.file.display());
    }
}
