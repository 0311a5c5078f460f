//! The variables about PostgreSQL.

use sqlx::postgres::PgConnectOptions;

use super::Reader;
use crate::base::secret::SecretText;

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
