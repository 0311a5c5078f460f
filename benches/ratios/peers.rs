//! Servers that others run for the same work, in the same run: `make bench-peers`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::machine::{self, Process};
use crate::product::SECRET;
use crate::{Measured, load};

/// npm oidc-provider: JWT access tokens by client credentials, ES256 as here, everything in memory.
pub struct OidcProvider {
    process: Process,
    address: SocketAddr,
}

impl OidcProvider {
    /// Starts it; `make bench-peers` has installed it.
    pub fn start() -> Self {
        let script =
            concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/oidc_provider.mjs").to_owned();
        let mut child = Command::new("node")
            .args([script.as_str(), "bench", SECRET])
            .env("NODE_ENV", "production")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().unwrap(), process: Process(child) }
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
        let before = machine::cpu(self.process.0.id());
        let measured = load::run(self.address, connections, seconds, 200, requests).await;
        let took = machine::cpu(self.process.0.id()).checked_sub(before).unwrap_or_default();
        let count = measured.per_second * seconds.as_secs_f64();
        Measured { service_cpu: took.as_secs_f64() * 1e6 / count, ..measured }
    }
}
