//! The environment, parsed once at the start into checked types.
//!
//! Each concern reads its own variables. All mistakes are reported together, and no message shows a value.
//! `.env.example` documents every variable; a test compares the two.
//!
//! May import: common and the vault's master keys.

mod console;
mod database;
mod database_url;
mod four_eyes;
mod http;
mod keys;
mod oauth;
mod oidc;
mod providers;
mod reader;
mod traces;

use std::time::Duration;

pub use console::ConsoleConfig;
pub use database::DatabaseConfig;
pub use database_url::{DatabaseUrl, SessionAttrs};
pub use four_eyes::FourEyes;
pub use http::{DocsClient, HttpConfig, PublicUrl, read_listen};
pub use keys::{read_master_key_file, read_master_keys};
pub use oauth::OauthConfig;
pub use oidc::{OidcConfig, RoleOfClaim};
pub use providers::{EnvironmentApp, ProviderConfig, ProvidersConfig};
pub use reader::{ConfigError, Environment, Reader};
pub use traces::{TraceSampler, Traces, TracesConfig};

use crate::common::secret::SecretText;
use crate::common::text;
use crate::vault::MasterKeys;

/// Every variable that Strongroom reads, without the `_FILE` forms of the secret ones.
pub const VARIABLES: &[&str] = &[
    "DATABASE_URL",
    "STRONGROOM_DATABASE_CONNECTIONS",
    "STRONGROOM_DATABASE_TIMEOUT",
    "STRONGROOM_MIGRATE",
    "STRONGROOM_MIGRATE_DATABASE_URL",
    "STRONGROOM_MASTER_KEYS",
    "STRONGROOM_DATA_KEY_CACHE_SECONDS",
    "STRONGROOM_TRANSIT_ADDR",
    "STRONGROOM_TRANSIT_CA",
    "STRONGROOM_TRANSIT_TOKEN",
    "STRONGROOM_TRANSIT_ROLE_ID",
    "STRONGROOM_TRANSIT_SECRET_ID",
    "STRONGROOM_TRANSIT_KUBERNETES_ROLE",
    "STRONGROOM_TRANSIT_KUBERNETES_TOKEN_PATH",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "STRONGROOM_LISTEN",
    "STRONGROOM_METRICS_LISTEN",
    "STRONGROOM_PUBLIC_URL",
    "STRONGROOM_CONSOLE_LISTEN",
    "STRONGROOM_CONSOLE_URL",
    "STRONGROOM_FOUR_EYES",
    "STRONGROOM_OIDC_ISSUER",
    "STRONGROOM_OIDC_CLIENT_ID",
    "STRONGROOM_OIDC_CLIENT_SECRET",
    "STRONGROOM_OIDC_ROLES",
    "STRONGROOM_CORS_ORIGINS",
    "STRONGROOM_TRUSTED_PROXIES",
    "STRONGROOM_WORKERS",
    "STRONGROOM_SHUTDOWN_GRACE",
    "STRONGROOM_BOOTSTRAP_CLIENT_ID",
    "STRONGROOM_BOOTSTRAP_CLIENT_SECRET",
    "STRONGROOM_ALLOW_PRIVATE_ADDRESSES",
    "STRONGROOM_SIGNING_ALGORITHM",
    "STRONGROOM_SIGNING_KEY_LIFETIME",
    "STRONGROOM_REVEALS_PER_MINUTE",
    "STRONGROOM_ANSWER_WITHIN",
    "STRONGROOM_CODE_EXP_CAP",
    "STRONGROOM_SWEEP_INTERVAL",
    "STRONGROOM_REVOCATION_GIVE_UP_AFTER",
    "STRONGROOM_EVENT_RETENTION_DAYS",
    "STRONGROOM_AUDIT_RETENTION_MONTHS",
    "STRONGROOM_HISTORY_RETENTION_DAYS",
    "STRONGROOM_LOG",
    "STRONGROOM_LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_TRACES_EXPORTER",
    "OTEL_SDK_DISABLED",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "DAPI_BASE_URL",
    "DAPI_DELINK_PATH",
    "DAPI_APP_KEY",
    "DAPI_APP_SECRET",
    "DAPI_EXCHANGE_TIMEOUT",
    "DAPI_EXCHANGE_PROBE",
    "DAPI_CALL_TIMEOUT",
    "DAPI_MAX_CONCURRENT_CALLS",
    "DAPI_GONE_TYPES",
    "DAPI_ATTENTION_TYPES",
    "DAPI_DEAD_TYPES",
    "PLAID_BASE_URL",
    "PLAID_CLIENT_ID",
    "PLAID_SECRET",
    "PLAID_EXCHANGE_TIMEOUT",
    "PLAID_EXCHANGE_PROBE",
    "PLAID_CALL_TIMEOUT",
];

/// Everything that `strongroom serve` needs.
#[derive(Debug)]
pub struct Config {
    /// The connections to PostgreSQL.
    pub database: DatabaseConfig,
    /// The keys that wrap all data keys.
    pub master_keys: MasterKeys,
    /// Listeners and their surroundings.
    pub http: HttpConfig,
    /// The operators' console, if it is on.
    pub console: Option<ConsoleConfig>,
    /// What needs a second person.
    pub four_eyes: FourEyes,
    /// The connections to the bank links.
    pub providers: ProvidersConfig,
    /// The app named `default`, if the environment describes it.
    pub default_app: Option<EnvironmentApp>,
    /// The app named `plaid`, if the environment describes it.
    pub plaid_app: Option<EnvironmentApp>,
    /// The bootstrap client, if the environment describes it.
    pub bootstrap: Option<BootstrapClient>,
    /// Whether URLs that come in by API may lead to loopback, link-local or private addresses.
    pub allow_private_addresses: bool,
    /// How tokens are signed and how many secrets a client may reveal.
    pub oauth: OauthConfig,
    /// Intervals and deadlines of the background work.
    pub pace: Pace,
    /// How logs are written.
    pub log: LogConfig,
    /// Whether traces are exported, and where to.
    pub traces: Traces,
    /// Set variables that begin like Strongroom's but are unknown: probably misspelt.
    pub unknown: Vec<UnknownVariable>,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Returns all mistakes at once.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let mut database = DatabaseConfig::read(&mut reader);
        let master_keys = read_master_keys(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let console = ConsoleConfig::read(&mut reader);
        if let Some(database) = database.as_mut().filter(|_| console.is_some()) {
            database.console = ConsoleConfig::DATABASE_CONNECTIONS;
        }
        let four_eyes = FourEyes::read(&mut reader);
        let providers = ProvidersConfig::read(&mut reader);
        let default_app =
            EnvironmentApp::read(&mut reader, "DAPI_APP_KEY", "DAPI_APP_SECRET", text::check_line);
        let plaid_app = EnvironmentApp::read(
            &mut reader,
            "PLAID_CLIENT_ID",
            "PLAID_SECRET",
            text::check_bearer,
        );
        let bootstrap = BootstrapClient::read(&mut reader);
        let allow_private_addresses = read_allow_private_addresses(&mut reader);
        let oauth = OauthConfig::read(&mut reader);
        let pace = Pace::read(&mut reader);
        let log = LogConfig::read(&mut reader);
        let traces = Traces::read(environment, &mut reader);
        let unknown = unknown_variables(environment);
        let config = (|| {
            Some(Self {
                database: database?,
                master_keys: master_keys?,
                http,
                console,
                four_eyes,
                providers: providers?,
                default_app,
                plaid_app,
                bootstrap,
                allow_private_addresses,
                oauth,
                pace,
                log,
                traces,
                unknown,
            })
        })();
        reader.finish(config)
    }
}

/// A variable that is set and unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The known name that it is probably meant to be.
    pub nearest: Option<&'static str>,
}

impl UnknownVariable {
    fn new(name: &str) -> Self {
        let distance = |known: &&&str| strsim::osa_distance(name, known);
        let nearest = VARIABLES.iter().min_by_key(distance).copied();
        // A third of its letters, after the prefix that all names begin with, may be wrong.
        let differing = name.split_once('_').map_or(0, |(_, rest)| rest.chars().count());
        let nearest = nearest.filter(|known| distance(&known) * 3 <= differing);
        Self { name: name.to_owned(), nearest }
    }
}

/// Finds variables that begin like Strongroom's and are unknown.
fn unknown_variables(environment: &Environment) -> Vec<UnknownVariable> {
    let known = |name: &str| VARIABLES.contains(&name.strip_suffix("_FILE").unwrap_or(name));
    let prefixes = ["STRONGROOM_", "DAPI_", "PLAID_"];
    let names = prefixes.into_iter().flat_map(|prefix| environment.names(prefix));
    let unknown = names.filter(|name| !known(name) && !is_of_kubernetes(name));
    unknown.map(UnknownVariable::new).collect()
}

/// Returns whether Kubernetes sets this variable in every pod beside a service named `strongroom`:
/// `STRONGROOM_SERVICE_HOST`, `STRONGROOM_SERVICE_PORT_HTTP`, `STRONGROOM_PORT_8080_TCP_ADDR`, and so on; with
/// `strongroom-metrics`, `STRONGROOM_METRICS_PORT`.
fn is_of_kubernetes(name: &str) -> bool {
    let is_port = |rest: &str| {
        rest.is_empty()
            || rest.strip_prefix('_').is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name
            .match_indices("_PORT")
            .any(|(at, port)| name.get(at + port.len()..).is_some_and(is_port))
}

/// Reads `STRONGROOM_ALLOW_PRIVATE_ADDRESSES`.
pub fn read_allow_private_addresses(reader: &mut Reader<'_>) -> bool {
    reader.switch("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", false)
}

/// The client that exists as long as the environment names it.
#[derive(Debug)]
pub struct BootstrapClient {
    /// The `client_id`.
    pub id: String,
    /// The client's secret, which follows the environment at every start.
    pub secret: SecretText,
}

impl BootstrapClient {
    /// The minimum length of the secret, in characters.
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

/// Intervals and deadlines of the background work.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How long `POST /v1/connections` and a revocation wait for Dapi before they answer 202.
    pub answer_within: Duration,
    /// Whether the `exp` of a code that is a JWT shortens its window.
    pub code_exp_cap: bool,
    /// How often the background work runs when nothing wakes it.
    pub sweep_interval: Duration,
    /// After how long a revocation that Dapi never confirmed is given up.
    pub give_up_after: Duration,
    /// How long events are kept.
    pub event_retention: Duration,
    /// How long connections, bulk revocations and erasures are kept after they ended; `None`: for ever.
    pub history_retention: Option<Duration>,
}

impl Pace {
    fn read(reader: &mut Reader<'_>) -> Self {
        const WEEK: u32 = 7 * 24 * 3600;
        let days: u32 = reader.number("STRONGROOM_EVENT_RETENTION_DAYS", 30, 7..=3650);
        Self {
            event_retention: Duration::from_hours(24) * days,
            history_retention: Self::read_history_retention(reader),
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

    /// A code is good for half an hour and a token's last answer comes within hours: nothing that is thirty days old is
    /// still on its way.
    fn read_history_retention(reader: &mut Reader<'_>) -> Option<Duration> {
        const NAME: &str = "STRONGROOM_HISTORY_RETENTION_DAYS";
        let days = reader.number(NAME, 0, 0..=36_500);
        if (1..30).contains(&days) {
            reader.mistake(NAME, "must be 0, for ever, or at least 30");
        }
        (days > 0).then(|| Duration::from_hours(24) * days)
    }
}

/// Reads how many whole months of the audit trail stay after a month's end; `None`: all of them, for ever.
#[must_use]
pub fn read_audit_retention(reader: &mut Reader<'_>) -> Option<u32> {
    let months = reader.number("STRONGROOM_AUDIT_RETENTION_MONTHS", 0, 0..=1200);
    (months > 0).then_some(months)
}

/// How logs are written.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Which events are logged, in the syntax of `tracing`'s `Targets`.
    pub filter: String,
    /// The format of a line.
    pub format: LogFormat,
}

/// How a log event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Plain text, for people.
    Text,
}

impl LogConfig {
    /// Reads the settings about logs.
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
