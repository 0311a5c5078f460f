//! The environment, turned into checked types once, at the start.
//!
//! Every concern reads its own variables, all mistakes are told together, and no message shows a
//! value. `.env.example` lists every variable with what it is for; a test holds the two against each
//! other.
//!
//! Knows: base and the vault's master keys.

mod reader;

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use url::Url;

pub use reader::{ConfigError, Environment, Reader};

use crate::base::secret::SecretText;
use crate::vault::MasterKeys;

/// Every variable that Strongroom reads, without the `_FILE` forms of the secret ones.
pub const VARIABLES: &[&str] = &[
    "DATABASE_URL",
    "STRONGROOM_DATABASE_CONNECTIONS",
    "STRONGROOM_MIGRATE",
    "STRONGROOM_MIGRATE_DATABASE_URL",
    "STRONGROOM_MASTER_KEYS",
    "STRONGROOM_LISTEN",
    "STRONGROOM_METRICS_LISTEN",
    "STRONGROOM_PUBLIC_URL",
    "STRONGROOM_CORS_ORIGINS",
    "STRONGROOM_TRUSTED_PROXIES",
    "STRONGROOM_WORKERS",
    "STRONGROOM_SHUTDOWN_GRACE",
    "STRONGROOM_BOOTSTRAP_CLIENT_ID",
    "STRONGROOM_BOOTSTRAP_CLIENT_SECRET",
    "STRONGROOM_ANSWER_WITHIN",
    "STRONGROOM_CODE_EXP_CAP",
    "STRONGROOM_SWEEP_INTERVAL",
    "STRONGROOM_REVOCATION_GIVE_UP_AFTER",
    "STRONGROOM_LOG",
    "STRONGROOM_LOG_FORMAT",
    "DAPI_BASE_URL",
    "DAPI_DELINK_PATH",
    "DAPI_APP_KEY",
    "DAPI_APP_SECRET",
    "DAPI_EXCHANGE_TIMEOUT",
    "DAPI_EXCHANGE_PROBE",
    "DAPI_CALL_TIMEOUT",
    "DAPI_MAX_CONCURRENT_CALLS",
    "DAPI_GONE_TYPES",
];

/// Everything that `strongroom serve` needs.
#[derive(Debug)]
pub struct Config {
    /// Where PostgreSQL is.
    pub database: DatabaseConfig,
    /// The master keys.
    pub master_keys: MasterKeys,
    /// Listeners and what surrounds them.
    pub http: HttpConfig,
    /// Dapi's side.
    pub dapi: DapiConfig,
    /// The app named `default`, where the environment holds one.
    pub default_app: Option<DefaultApp>,
    /// The bootstrap client, where the environment holds one.
    pub bootstrap: Option<BootstrapClient>,
    /// How long things wait and how often they are looked at.
    pub pace: Pace,
    /// How logs look.
    pub log: LogConfig,
    /// Names that look like Strongroom's and that it does not know: mistyped, probably.
    pub unknown: Vec<String>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let master_keys = read_master_keys(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let dapi = DapiConfig::read(&mut reader);
        let default_app = DefaultApp::read(&mut reader);
        let bootstrap = BootstrapClient::read(&mut reader);
        let pace = Pace::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let unknown = unknown_names(environment);
        let config = (|| {
            Some(Self {
                database: database?,
                master_keys: master_keys?,
                http,
                dapi: dapi?,
                default_app,
                bootstrap,
                pace,
                log,
                unknown,
            })
        })();
        reader.finish(config)
    }
}

fn unknown_names(environment: &Environment) -> Vec<String> {
    let known = |name: &str| VARIABLES.contains(&name.strip_suffix("_FILE").unwrap_or(name));
    let names = environment.names("STRONGROOM_").chain(environment.names("DAPI_"));
    names.filter(|name| !known(name)).map(str::to_owned).collect()
}

/// Reads `STRONGROOM_MASTER_KEYS`.
pub fn read_master_keys(reader: &mut Reader<'_>) -> Option<MasterKeys> {
    const NAME: &str = "STRONGROOM_MASTER_KEYS";
    let text = reader.required_secret(NAME, "`strongroom keys generate` makes one")?;
    MasterKeys::parse(text.expose()).map_err(|mistake| reader.mistake(NAME, mistake)).ok()
}

/// Where PostgreSQL is and how it is used.
#[derive(Debug)]
pub struct DatabaseConfig {
    /// The service's own connection.
    pub service: DatabaseUrl,
    /// How many connections one replica holds at most.
    pub connections: u32,
    /// Whether `serve` applies pending migrations.
    pub migrate: bool,
    /// The owner's connection, where migrations are not the service's own role's business.
    pub owner: Option<DatabaseUrl>,
}

impl DatabaseConfig {
    /// Reads the variables about the database.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const OWNER: &str = "STRONGROOM_MIGRATE_DATABASE_URL";
        let hint = "a PostgreSQL URL such as postgres://user:password@host/database \
                    (`strongroom dev` brings a database of its own)";
        let url = reader.required_secret("DATABASE_URL", hint);
        let service = url.and_then(|url| DatabaseUrl::read(reader, "DATABASE_URL", &url));
        let connections = reader.number("STRONGROOM_DATABASE_CONNECTIONS", 32, 4..=10_000);
        let migrate = reader.switch("STRONGROOM_MIGRATE", true);
        let owner = reader.secret(OWNER);
        let owner = owner.and_then(|url| DatabaseUrl::read(reader, OWNER, &url));
        Some(Self { service: service?, connections, migrate, owner })
    }
}

/// A PostgreSQL URL, which holds a password as a rule.
#[derive(Clone)]
pub struct DatabaseUrl(PgConnectOptions);

impl DatabaseUrl {
    /// The message of the parser may repeat the URL with its password, so it is not shown.
    fn read(reader: &mut Reader<'_>, name: &str, url: &SecretText) -> Option<Self> {
        let parsed = Self::parse(url.expose());
        if parsed.is_none() {
            reader.mistake(name, "is not a URL of the form postgres://user:password@host/database");
        }
        parsed
    }

    /// A URL of PostgreSQL's, with the options that sqlx knows.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let options = url.parse::<PgConnectOptions>().ok().filter(|_| is_postgres)?;
        Some(Self(options.application_name("strongroom")))
    }

    /// How sqlx is told to connect.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.0.clone()
    }
}

/// `PgConnectOptions` would print its password.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatabaseUrl({}:{})", self.0.get_host(), self.0.get_port())
    }
}

/// Listeners and what surrounds them.
#[derive(Debug)]
pub struct HttpConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where Prometheus finds the metrics.
    pub metrics_listen: SocketAddr,
    /// The URL by which callers know this service: issuer and audience of its tokens.
    pub public_url: PublicUrl,
    /// Origins whose pages may hand in Connect's results.
    pub cors_origins: Vec<String>,
    /// Networks of proxies whose word about the caller's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads that serve requests.
    pub workers: u32,
    /// How long a shutdown waits for calls to Dapi that are under way.
    pub shutdown_grace: Duration,
}

impl HttpConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let listen =
            reader.or("STRONGROOM_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080)), address);
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
            shutdown_grace: reader.seconds("STRONGROOM_SHUTDOWN_GRACE", 140, 1..=3600),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 0.0.0.0:8080")
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let alone = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
    let network = text.parse().ok().or_else(alone);
    network.ok_or("must be a network such as 10.0.0.0/8, or an address")
}

/// An origin as browsers write it (RFC 6454 §6.2): scheme, host, port, nothing behind.
fn origin(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let exact = url.map(|url| url.origin().ascii_serialization()).filter(|origin| origin == text);
    exact.ok_or("must be an exact origin such as https://app.example.com, without a path or slash")
}

/// The URL by which callers know this service, such as `https://bank.example.com`: scheme, host and
/// port without a path, so that issuer, metadata and endpoints all follow from it (RFC 8414 §2, §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    fn parse(text: &str) -> Result<Self, &'static str> {
        origin(text.strip_suffix('/').unwrap_or(text))
            .map(Self)
            .map_err(|_| "must be http(s)://host[:port], without path, query or fragment")
    }

    /// What fits a service that nobody told its public URL.
    #[must_use]
    pub fn of_listener(listen: SocketAddr) -> Self {
        Self(format!("http://{listen}"))
    }

    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it promises TLS, or cannot be reached from another machine anyway.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let local = ["http://127.", "http://localhost", "http://[::1]"];
        self.0.starts_with("https://") || local.iter().any(|prefix| self.0.starts_with(prefix))
    }
}

/// How Dapi is reached.
#[derive(Debug, Clone)]
pub struct DapiConfig {
    /// The base of all paths, without a slash at its end.
    pub base_url: Url,
    /// The path of the delinking call, which Dapi's own SDKs disagree about.
    pub delink_path: String,
    /// Time limit of an exchange.
    pub exchange_timeout: Duration,
    /// Time limit of any other call.
    pub call_timeout: Duration,
    /// Calls under way at once from this replica.
    pub max_concurrent_calls: u32,
    /// Whether an exchange that went out and stayed unanswered is tried again.
    pub exchange_probe: bool,
    /// Answers to a delinking that mean that there is nothing left to delink.
    pub gone_types: Vec<String>,
}

impl DapiConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let default = Url::parse("https://api.dapi.com/v2").ok();
        let base_url = reader.or("DAPI_BASE_URL", default, |text| base_url(text).map(Some));
        let delink_path = "/users/DelinkUser".to_owned();
        let mut gone_types = reader.list("DAPI_GONE_TYPES", upper_snake);
        if gone_types.is_empty() {
            gone_types = vec!["USER_DELINKED".to_owned(), "INVALID_CONNECTION".to_owned()];
        }
        Some(Self {
            base_url: base_url?,
            delink_path: reader.or("DAPI_DELINK_PATH", delink_path, path),
            exchange_timeout: reader.seconds("DAPI_EXCHANGE_TIMEOUT", 120, 1..=600),
            call_timeout: reader.seconds("DAPI_CALL_TIMEOUT", 120, 1..=600),
            max_concurrent_calls: reader.number("DAPI_MAX_CONCURRENT_CALLS", 1024, 1..=100_000),
            exchange_probe: reader.switch("DAPI_EXCHANGE_PROBE", true),
            gone_types,
        })
    }
}

fn base_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim_end_matches('/')).ok();
    let sound = url.filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    sound.ok_or("must be an http(s) URL without credentials, query or fragment")
}

fn path(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let sound = text.starts_with('/') && text.len() > 1 && text.chars().all(plain);
    sound.then(|| text.to_owned()).ok_or("must be a path such as /users/DelinkUser")
}

fn upper_snake(text: &str) -> Result<String, &'static str> {
    let sound = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    sound.then(|| text.to_owned()).ok_or("must be a type of Dapi's such as USER_DELINKED")
}

/// The app named `default`.
#[derive(Debug)]
pub struct DefaultApp {
    /// Dapi's application key.
    pub app_key: String,
    /// Dapi's application secret.
    pub app_secret: SecretText,
}

impl DefaultApp {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let key_is_set = reader.is_set("DAPI_APP_KEY");
        let secret_is_set = reader.is_set("DAPI_APP_SECRET");
        let app_key = reader.optional("DAPI_APP_KEY", |text| {
            crate::base::text::check(text, 1024).map(|()| text.to_owned())
        });
        let app_secret = reader.secret("DAPI_APP_SECRET");
        if key_is_set && !secret_is_set {
            reader.mistake("DAPI_APP_SECRET", "is missing while DAPI_APP_KEY is set");
        }
        if secret_is_set && !key_is_set {
            reader.mistake("DAPI_APP_KEY", "is missing while DAPI_APP_SECRET is set");
        }
        Some(Self { app_key: app_key?, app_secret: app_secret? })
    }
}

/// The client that exists as long as the environment names it.
#[derive(Debug)]
pub struct BootstrapClient {
    /// Its id.
    pub id: String,
    /// Its secret, which follows the environment at every start.
    pub secret: SecretText,
}

impl BootstrapClient {
    /// The least length of its secret, in characters.
    pub const LEAST_SECRET: usize = 32;

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const ID: &str = "STRONGROOM_BOOTSTRAP_CLIENT_ID";
        const SECRET: &str = "STRONGROOM_BOOTSTRAP_CLIENT_SECRET";
        let (id_is_set, secret_is_set) = (reader.is_set(ID), reader.is_set(SECRET));
        let id = reader.optional(ID, |text| {
            let sound = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric());
            sound.then(|| text.to_owned()).ok_or("must be at most 64 letters and digits")
        });
        let secret = reader.secret(SECRET);
        if let Some(secret) = &secret {
            let text = secret.expose();
            if text.len() < Self::LEAST_SECRET || !text.chars().all(|c| c.is_ascii_alphanumeric()) {
                reader.mistake(SECRET, "must be at least 32 letters and digits");
            }
        }
        if id_is_set && !secret_is_set {
            reader.mistake(SECRET, format_args!("is missing while {ID} is set"));
        }
        if secret_is_set && !id_is_set {
            reader.mistake(ID, format_args!("is missing while {SECRET} is set"));
        }
        Some(Self { id: id?, secret: secret? })
    }
}

/// How long things wait and how often they are looked at.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long `POST /v1/connections` and a revocation wait for Dapi before they answer 202.
    pub answer_within: Duration,
    /// Whether the `exp` of a code that is a JWT shortens its window.
    pub code_exp_cap: bool,
    /// How often the background work wakes when nothing calls it.
    pub sweep_interval: Duration,
    /// When a revocation that Dapi never confirmed is given up.
    pub give_up_after: Duration,
}

impl Pace {
    fn read(reader: &mut Reader<'_>) -> Self {
        const WEEK: u32 = 7 * 24 * 3600;
        Self {
            answer_within: reader.seconds("STRONGROOM_ANSWER_WITHIN", 10, 0..=600),
            code_exp_cap: reader.switch("STRONGROOM_CODE_EXP_CAP", true),
            sweep_interval: reader.seconds("STRONGROOM_SWEEP_INTERVAL", 5, 1..=3600),
            give_up_after: reader.seconds(
                "STRONGROOM_REVOCATION_GIVE_UP_AFTER",
                WEEK,
                1..=52 * WEEK,
            ),
        }
    }
}

/// How logs look.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Which events are written, in `tracing`'s filter syntax.
    pub filter: String,
    /// How they are written.
    pub format: LogFormat,
}

/// How a log event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// A line for people.
    Text,
}

impl LogConfig {
    /// Reads the variables about logs.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let format = reader.or("STRONGROOM_LOG_FORMAT", LogFormat::Json, |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text"),
        });
        let filter = reader.or("STRONGROOM_LOG", "info".to_owned(), |text| {
            let parsed = text.parse::<tracing_subscriber::filter::Targets>();
            parsed
                .map(|_| text.to_owned())
                .map_err(|_| "must be a filter such as info or strongroom=debug")
        });
        Self { filter, format }
    }
}

#[cfg(test)]
mod tests;
