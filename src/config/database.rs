//! The settings about PostgreSQL.

use std::time::Duration;

use super::Reader;
use super::database_url::{DatabaseUrl, UrlMistake};

/// Where PostgreSQL is and how it is used.
#[derive(Debug)]
pub struct DatabaseConfig {
    /// Where the service connects, with its own role.
    pub service: DatabaseUrl,
    /// The most connections that one replica opens, over all pools.
    pub connections: u32,
    /// How many of them are the console's; 0 if it is off.
    pub console: u32,
    /// How long an ordinary statement may take before its connection is closed.
    pub timeout: Duration,
    /// Whether `serve` applies pending migrations.
    pub migrate: bool,
    /// The schema owner's connection, for migrations that the service's role may not apply.
    pub owner: Option<DatabaseUrl>,
}

impl DatabaseConfig {
    /// Reads the settings about the database.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const OWNER: &str = "STRONGROOM_MIGRATE_DATABASE_URL";
        let hint = "a PostgreSQL URL such as postgres://user:password@host/database \
                    (`strongroom dev` brings a database of its own)";
        let url = reader.required_secret("DATABASE_URL", hint);
        let service = url.and_then(|url| url_of(reader, "DATABASE_URL", url.expose()));
        let connections = reader.number("STRONGROOM_DATABASE_CONNECTIONS", 32, 4..=10_000);
        let timeout = reader.seconds("STRONGROOM_DATABASE_TIMEOUT", 5, 1..=60);
        let migrate = reader.switch("STRONGROOM_MIGRATE", true);
        let owner = reader.secret(OWNER);
        let owner = owner.and_then(|url| url_of(reader, OWNER, url.expose()));
        Some(Self { service: service?, connections, console: 0, timeout, migrate, owner })
    }
}

fn url_of(reader: &mut Reader<'_>, name: &str, url: &str) -> Option<DatabaseUrl> {
    let parsed = DatabaseUrl::parse(url);
    parsed.map_err(|mistake: UrlMistake| reader.mistake(name, mistake)).ok()
}
