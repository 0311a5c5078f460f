//! The database of a command: a connection and the open vault.

use std::sync::Arc;

use super::{Failure, identity};
use crate::config::{DatabaseConfig, Environment, FourEyes, Reader, read_master_keys};
use crate::database::Conn;
use crate::service::{Database, migrate};
use crate::vault::{Prepared, Vault};

/// A connection to a migrated database, and its vault.
pub(super) struct Session {
    pub(super) conn: Conn,
    pub(super) vault: Vault,
    /// What needs a second person.
    pub(super) four_eyes: FourEyes,
}

impl Session {
    /// Opens both, from `DATABASE_URL` and `STRONGROOM_MASTER_KEYS`, and reads `STRONGROOM_FOUR_EYES`.
    pub(super) async fn open(environment: &Environment) -> Result<Self, Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let masters = read_master_keys(&mut reader);
        let four_eyes = FourEyes::read(&mut reader);
        let (config, masters) = reader.finish(database.zip(masters))?;
        let mut conn = reach(&config).await?;
        identity::resolve(&mut conn, environment).await?;
        let vault = Vault::open(&mut conn, masters).await?;
        Ok(Self { conn, vault, four_eyes })
    }

    /// The same, for a command that only reads: records no master key.
    pub(super) async fn read(environment: &Environment) -> Result<Self, Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let masters = read_master_keys(&mut reader);
        let four_eyes = FourEyes::read(&mut reader);
        let (config, masters) = reader.finish(database.zip(masters))?;
        let mut conn = reach(&config).await?;
        let prepared = Prepared::read(&mut conn, Arc::new(masters)).await?;
        Ok(Self { conn, vault: prepared.into_vault()?, four_eyes })
    }

    /// Opens both as the owner of the tables, from `STRONGROOM_MIGRATE_DATABASE_URL` if it is set.
    pub(super) async fn open_as_owner(environment: &Environment) -> Result<Self, Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let masters = read_master_keys(&mut reader);
        let four_eyes = FourEyes::read(&mut reader);
        let (mut config, masters) = reader.finish(database.zip(masters))?;
        if config.migrate {
            migrate(&config).await?;
        }
        if let Some(owner) = config.owner.take() {
            config.service = owner;
        }
        let mut conn = Database::reach(&config).await?.connect().await?;
        identity::resolve(&mut conn, environment).await?;
        let vault = Vault::open(&mut conn, masters).await?;
        Ok(Self { conn, vault, four_eyes })
    }

    /// Opens a connection alone, from `DATABASE_URL`.
    pub(super) async fn connect(environment: &Environment) -> Result<Conn, Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let config = reader.finish(database)?;
        reach(&config).await
    }
}

async fn reach(config: &DatabaseConfig) -> Result<Conn, Failure> {
    let database = Database::reach(config).await?;
    if config.migrate {
        migrate(config).await?;
    }
    Ok(database.connect().await?)
}

/// Returns the app of this name.
pub(super) async fn app(conn: &mut Conn, name: &str) -> Result<crate::apps::App, Failure> {
    let app = crate::apps::find(conn, name).await?;
    app.ok_or_else(|| {
        Failure::Usage(format!("there is no app named `{name}`; `strongroom apps list` shows them"))
    })
}
