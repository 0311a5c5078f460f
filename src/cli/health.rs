//! `strongroom health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::output::Output;
use crate::config::{ConfigError, Environment, PublicUrl, Reader, read_listen};

/// The pause between two attempts of `--wait`.
const PAUSE: Duration = Duration::from_millis(200);
/// The most of an answer that is read, in bytes. The service's own are far below it.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Ask a running service whether it is ready.
///
/// For images without curl: the health check of a container, a probe of systemd. It asks /readyz at the address that
/// `STRONGROOM_LISTEN` names, through loopback if that is every address of the machine, prints one line and ends with 0
/// if the service is ready, with 1 if it is not or does not answer in time. It needs no database and no keys.
///
/// A container is to be restarted if it is not alive, and to get no requests if it is not ready: for the first, ask with
/// --live.
///
/// Examples: strongroom health, strongroom health --live, strongroom health --wait 60
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Ask the service at this URL, `http(s)://host[:port]`, instead.
    #[arg(long, value_parser = PublicUrl::parse)]
    url: Option<PublicUrl>,
    /// Ask whether the process is alive (/healthz), which it is without its database too.
    #[arg(long)]
    live: bool,
    /// How long to wait for the answer, in seconds. /readyz waits up to two for the database.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Ask again for this many seconds until the answer is yes, such as after a start.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
}

/// What was asked, and what came back.
#[derive(Serialize)]
struct Healthy {
    url: String,
    status: String,
    #[serde(rename = "keysUnavailable", skip_serializing_if = "Vec::is_empty")]
    keys_unavailable: Vec<String>,
}

/// What an answer of `/healthz` or `/readyz` may have: the fields of `Health`, or those of a problem.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    detail: Option<String>,
    #[serde(rename = "keysUnavailable")]
    keys_unavailable: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

impl Health {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let service = self.service(environment)?;
        let until = Instant::now() + Duration::from_secs(self.wait);
        loop {
            match self.ask(&service).await {
                Ok(healthy) => {
                    output.result(&healthy, || healthy.text());
                    return Ok(());
                }
                Err(why) if Instant::now() >= until => return Err(Failure::Other(why)),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Asks once. Returns why the answer is no.
    async fn ask(&self, service: &Service) -> Result<Healthy, String> {
        let (path, status) = if self.live { ("/healthz", "alive") } else { ("/readyz", "ready") };
        let url = format!("{}{path}", service.base.as_str());
        let limit = Duration::from_secs(self.timeout);
        let asked = tokio::time::timeout(limit, service.get(&url)).await;
        let (code, body) = asked
            .map_err(|_| format!("no answer from {url} within {} s", self.timeout))?
            .map_err(|error| format!("no answer from {url}: {}", innermost(&error)))?;
        if code != StatusCode::OK {
            let detail = body.detail.map(|it| format!(": {}", line(&it))).unwrap_or_default();
            return Err(format!("not {status}: {url} answers {}{detail}", code.as_u16()));
        }
        let keys_unavailable = body.keys_unavailable.iter().map(|it| line(&it.key)).collect();
        Ok(Healthy { url, status: status.to_owned(), keys_unavailable })
    }

    /// Finds the service.
    fn service(&self, environment: &Environment) -> Result<Service, ConfigError> {
        if let Some(url) = &self.url {
            return Ok(Service { base: url.clone(), localhost: Vec::new() });
        }
        let mut reader = Reader::new(environment);
        let listen = read_listen(&mut reader);
        if listen.port() == 0 {
            reader.mistake(
                "STRONGROOM_LISTEN",
                "has port 0, any free one: name the service by --url",
            );
        }
        Ok(Service::on_this_machine(reader.finish(Some(listen))?))
    }
}

impl Healthy {
    fn text(&self) -> String {
        let keys = match self.keys_unavailable.as_slice() {
            [] => String::new(),
            keys => format!("; master keys that cannot be used: {}", keys.join(", ")),
        };
        format!("{}: {} answers 200{keys}", self.status, self.url)
    }
}

/// Where the service is.
struct Service {
    base: PublicUrl,
    /// The addresses of the host `localhost`, if that is what the URL has.
    localhost: Vec<SocketAddr>,
}

impl Service {
    /// Returns where a listener of this machine is reached. One that listens on every address is asked through loopback:
    /// one on `[::]` through both families, since it takes IPv4 too and the machine may have no `::1`.
    fn on_this_machine(listen: SocketAddr) -> Self {
        let at = |ip: IpAddr| SocketAddr::new(ip, listen.port());
        let (v4, v6) = (at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into()));
        match listen.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => Self {
                base: PublicUrl::of_host("localhost", listen.port()),
                localhost: vec![v6, v4],
            },
            ip if ip.is_unspecified() => {
                Self { base: PublicUrl::of_listener(v4), localhost: Vec::new() }
            }
            _ => Self { base: PublicUrl::of_listener(listen), localhost: Vec::new() },
        }
    }

    /// Returns the status of the answer, and what its body says if it is the service's.
    async fn get(&self, url: &str) -> reqwest::Result<(StatusCode, Body)> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the command is a client of the service itself"
        )]
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("strongroom-health/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy();
        if !self.localhost.is_empty() {
            client = client.resolve_to_addrs("localhost", &self.localhost);
        }
        if !self.base.as_str().starts_with("https:") {
            // Reading the machine's root certificates costs more than the whole request.
            client = client.tls_certs_only([]);
        }
        let mut answer = client.build()?.get(url).send().await?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_LIMIT {
                return Ok((status, Body::default()));
            }
        }
        Ok((status, serde_json::from_slice(&text).unwrap_or_default()))
    }
}

/// Returns the innermost cause: the outer ones repeat the URL.
fn innermost<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}

/// Returns the text on one line, for a terminal: an answer may be anyone's.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
