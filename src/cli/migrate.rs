//! `strongroom migrate`.

use clap::Args;

use super::Failure;
use super::output::Output;
use crate::config::{DatabaseConfig, Environment, Reader};
use crate::service::{Database, migrate};

/// Apply pending migrations and end.
///
/// `serve` does this by itself unless `STRONGROOM_MIGRATE=false`. Where the service's own role may not
/// change tables, `STRONGROOM_MIGRATE_DATABASE_URL` names the owner's connection; the role of
/// `DATABASE_URL` is then given what the service needs, and nothing that alters the audit trail.
/// Applying them twice does no harm.
#[derive(Debug, Args)]
pub(super) struct Migrate {}

impl Migrate {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let config = DatabaseConfig::read(&mut reader);
        let config = reader.finish(config)?;
        if config.owner.is_none() {
            Database::reach(&config).await?;
        }
        let migrated = migrate(&config).await?;
        output.result(&migrated, || {
            let applied = match migrated.applied {
                0 => "Nothing to do: every migration is applied.".to_owned(),
                1 => "Applied 1 migration.".to_owned(),
                n => format!("Applied {n} migrations."),
            };
            migrated.granted.as_ref().map_or(applied.clone(), |role| {
                format!("{applied}\nThe role `{role}` has what the service needs.")
            })
        });
        Ok(())
    }
}
