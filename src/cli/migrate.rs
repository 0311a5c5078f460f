//! `strongroom migrate`.

use clap::Args;

use super::Failure;
use super::output::{Output, count, table};
use crate::config::{DatabaseConfig, Environment, Reader};
use crate::service::{Database, Expected, Pending, check_migrations, migrate};

/// Apply pending migrations and end.
///
/// `serve` does this by itself unless `STRONGROOM_MIGRATE=false`. Where the service's own role may not
/// change tables, `STRONGROOM_MIGRATE_DATABASE_URL` names the owner's connection; the role of
/// `DATABASE_URL` is then given what the service needs, and nothing that alters the audit trail.
/// Applying them twice does no harm.
///
/// A migration waits one second for a lock, gives way to what holds it, and tries again for ten minutes: a forgotten
/// transaction holds up the migration, and not the service.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Only show the pending migrations and what each locks, for about how long. Locks nothing.
    #[arg(long)]
    check: bool,
}

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
        if self.check {
            let pending = check_migrations(&config).await?;
            output.result(&serde_json::json!({ "pending": pending }), || describe(&pending));
            return Ok(());
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

fn describe(pending: &[Pending]) -> String {
    if pending.is_empty() {
        return "Nothing to do: every migration is applied.".to_owned();
    }
    let heading = count(i64::try_from(pending.len()).unwrap_or(i64::MAX), "pending migration");
    let migrations = pending.iter().map(|migration| {
        let rows: Vec<_> = migration.locks.iter().map(row).collect();
        let locks = if rows.is_empty() {
            "locks no table that there is".to_owned()
        } else {
            table(["TABLE", "LOCK", "BLOCKS", "FOR ABOUT"], &rows)
        };
        format!("{} {}\n{locks}", migration.version, migration.name)
    });
    std::iter::once(heading).chain(migrations).collect::<Vec<_>>().join("\n\n")
}

fn row(expected: &Expected) -> [String; 4] {
    let seconds = match expected.seconds {
        0 => "a moment".to_owned(),
        n => format!("{n} s"),
    };
    let lock = &expected.lock;
    [lock.table.clone(), lock.lock.to_lowercase(), expected.blocks.to_owned(), seconds]
}
