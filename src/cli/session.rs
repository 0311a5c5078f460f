//! The database of a command: a connection and the open vault.

use super::Failure;
use crate::config::{DatabaseConfig, Environment, Reader, read_master_keys};
use crate::database::Conn;
use crate::service::{Database, migrate};
use crate::vault::Vault;

/// A connection to a migrated database, and its vault.
pub(super) struct Session {
    pub(super) conn: Conn,
    pub(super) vault: Vault,
}

impl Session {
    /// Opens both, from `DATABASE_URL` and `STRONGROOM_MASTER_KEYS`.
    pub(super) async fn open(environment: &Environment) -> Result<Self, Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let masters = read_master_keys(&mut reader);
        let (config, masters) = reader.finish(database.zip(masters))?;
        let database = Database::reach(&config).await?;
        if config.migrate {
            migrate(&config).await?;
        }
        let mut conn = database.connect().await?;
        let vault = Vault::open(&mut conn, masters).await?;
        Ok(Self { conn, vault })
    }
}

/// Returns the app of this name.
pub(super) async fn app(conn: &mut Conn, name: &str) -> Result<crate::apps::App, Failure> {
    let app = crate::apps::find(conn, name).await?;
    app.ok_or_else(|| {
        Failure::Usage(format!("there is no app named `{name}`; `strongroom apps list` shows them"))
    })
}
