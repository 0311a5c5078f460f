//! The settings about listeners and their callers.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::Reader;
use crate::common::secret::SecretText;

/// Listeners and their surroundings.
#[derive(Debug)]
pub struct HttpConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where Prometheus scrapes the metrics.
    pub metrics_listen: SocketAddr,
    /// The URL by which callers know this service: issuer and audience of its tokens.
    pub public_url: PublicUrl,
    /// Origins whose pages may submit Connect's results.
    pub cors_origins: Vec<String>,
    /// Networks of proxies that are trusted to report the caller's address.
    pub trusted_proxies: Vec<IpNet>,
    /// The number of threads that serve requests.
    pub workers: u32,
    /// How long a shutdown waits for calls to Dapi that are in flight.
    pub shutdown_grace: Duration,
    /// The client that the pages at `/docs/` offer, with its secret. `dev` alone sets it, on a loopback address.
    pub docs_client: Option<DocsClient>,
}

/// A client of this service, for the pages that render its document.
#[derive(Clone, Debug)]
pub struct DocsClient {
    /// The `client_id`.
    pub id: String,
    /// The client secret.
    pub secret: SecretText,
}

impl HttpConfig {
    /// Reads the settings about listeners.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let listen = read_listen(reader);
        let metrics = SocketAddr::from(([127, 0, 0, 1], 9090));
        let metrics_listen = reader.or("STRONGROOM_METRICS_LISTEN", metrics, address);
        if metrics_listen == listen && listen.port() != 0 {
            reader.mistake("STRONGROOM_METRICS_LISTEN", "must differ from STRONGROOM_LISTEN");
        }
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let workers = u32::try_from(cores).unwrap_or(8).min(8);
        Self {
            listen,
            metrics_listen,
            public_url: reader.or(
                "STRONGROOM_PUBLIC_URL",
                PublicUrl::of_listener(listen),
                PublicUrl::parse,
            ),
            cors_origins: reader.list("STRONGROOM_CORS_ORIGINS", origin),
            trusted_proxies: reader.list("STRONGROOM_TRUSTED_PROXIES", network),
            workers: reader.number("STRONGROOM_WORKERS", workers, 1..=256),
            docs_client: None,
            shutdown_grace: reader.seconds("STRONGROOM_SHUTDOWN_GRACE", 140, 1..=3600),
        }
    }
}

/// Reads `STRONGROOM_LISTEN`: where the API listens.
pub fn read_listen(reader: &mut Reader<'_>) -> SocketAddr {
    reader.or("STRONGROOM_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080)), address)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 0.0.0.0:8080")
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let alone = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
    let network = text.parse().ok().or_else(alone);
    network.ok_or("must be a network such as 10.0.0.0/8, or an address")
}

/// Parses an origin as browsers write it (RFC 6454 §6.2): scheme, host, port, no path. Apps in a web view
/// have schemes of their own, such as `capacitor://localhost`.
fn origin(text: &str) -> Result<String, &'static str> {
    if text.contains('*') {
        return Err("must list each origin in full; there are no wildcards");
    }
    let url = Url::parse(text).map_err(|_| NO_ORIGIN)?;
    let exact = match url.scheme() {
        "http" | "https" => url.origin().ascii_serialization(),
        scheme => match (url.host_str().filter(|host| !host.is_empty()), url.port()) {
            (Some(host), Some(port)) => format!("{scheme}://{host}:{port}"),
            (Some(host), None) => format!("{scheme}://{host}"),
            (None, _) => return Err(NO_ORIGIN),
        },
    };
    (exact == text).then_some(exact).ok_or(NO_ORIGIN)
}

const NO_ORIGIN: &str =
    "must be an exact origin such as https://app.example.com, without a path or slash";

/// The URL by which callers know this service, such as `https://bank.example.com`: scheme, host and
/// port without a path, so that issuer, metadata and endpoints all follow from it (RFC 8414 §2, §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Reads a URL of scheme, host and port.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // Scheme and host are case-insensitive (RFC 3986 §6.2.2.1), and the port may be the scheme's default.
        let bare = url.filter(|url| {
            let plain = url.username().is_empty() && url.password().is_none();
            plain && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
        });
        bare.map(|url| Self(url.origin().ascii_serialization()))
            .ok_or("must be http(s)://host[:port], without path, query or fragment")
    }

    /// Derives the URL from the listener if none is configured.
    #[must_use]
    pub fn of_listener(listen: SocketAddr) -> Self {
        Self(format!("http://{listen}"))
    }

    /// Returns the URL of a service without TLS on this host.
    #[must_use]
    pub fn of_host(host: &str, port: u16) -> Self {
        Self(format!("http://{host}:{port}"))
    }

    /// Returns the URL without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the URL promises TLS, or is unreachable from other machines anyway.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let local = ["http://127.", "http://localhost", "http://[::1]"];
        self.0.starts_with("https://") || local.iter().any(|prefix| self.0.starts_with(prefix))
    }
}
