//! Servers that others run for the same work, in the same run: `make bench-peers`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::machine::{self, Process, Stage};
use crate::product::SECRET;
use crate::{Measured, floors, load, product};

/// A server of Node's; `make bench-peers` has installed what it needs.
pub struct Peer {
    process: Process,
    address: SocketAddr,
    /// The number of the next code.
    next: Arc<AtomicU64>,
}

impl Peer {
    /// npm oidc-provider: JWT access tokens by client credentials, ES256 as here, everything in memory.
    pub fn oidc_provider() -> Self {
        Self::start("oidc_provider.mjs", &["bench", SECRET])
    }

    /// A backend of fastify with Dapi's SDK and `pg`, in the database of the floors.
    pub async fn fastify(stage: &Stage) -> Self {
        floors::prepare(stage).await;
        Self::start("fastify.mjs", &[&stage.upstream.to_string(), &stage.url("floor")])
    }

    fn start(script: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new("node")
            .arg(format!("{}/benches/peers/{script}", env!("CARGO_MANIFEST_DIR")))
            .args(arguments)
            .env("NODE_ENV", "production")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self {
            address: line.trim().parse().unwrap(),
            process: Process(child),
            next: Arc::default(),
        }
    }

    /// Tokens, one a request.
    pub async fn token(&self, connections: usize, seconds: Duration) -> Measured {
        let body = format!("grant_type=client_credentials&client_id=bench&client_secret={SECRET}");
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: \
             application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let requests: load::Requests = Arc::new(move |_| request.clone().into_bytes());
        self.measure(connections, seconds, 200, requests).await
    }

    /// Exchanges, with PostgreSQL's CPU.
    pub async fn exchange(&self, stage: &Stage, connections: usize, seconds: Duration) -> Measured {
        let requests = product::exchanges("", Arc::clone(&self.next));
        let before = stage.postgres_cpu();
        let measured = self.measure(connections, seconds, 201, requests).await;
        let took = stage.postgres_cpu().saturating_sub(before);
        let count = measured.per_second * seconds.as_secs_f64();
        Measured { postgres_cpu: took.as_secs_f64() * 1e6 / count, ..measured }
    }

    async fn measure(
        &self,
        connections: usize,
        seconds: Duration,
        status: u16,
        requests: load::Requests,
    ) -> Measured {
        let before = machine::cpu(self.process.0.id());
        let measured = load::run(self.address, connections, seconds, status, requests).await;
        let took = machine::cpu(self.process.0.id()).saturating_sub(before);
        let count = measured.per_second * seconds.as_secs_f64();
        Measured { service_cpu: took.as_secs_f64() * 1e6 / count, ..measured }
    }
}
