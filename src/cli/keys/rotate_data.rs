//! `strongroom keys rotate-data`.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::identity::acting;
use crate::cli::Failure;
use crate::cli::output::{Output, Progress, count};
use crate::cli::session::{Session, app};
use crate::common::ids::DataKeyId;
use crate::config::{DatabaseConfig, Environment, Reader};
use crate::database::{self, Conn};
use crate::vault::{self, KeyOwner, Rotating, Scope, Vault};
use crate::{apps, audit, users};

/// Replace data keys: everything sealed under the old ones is sealed anew under new ones, and the old ones are destroyed.
/// The service runs on meanwhile.
///
/// It takes a minute at least: a new key is known to every replica before it seals, and an old one opens for a while after
/// the last value has left it. May be stopped and started again at any time: what a run leaves, the next one finishes.
/// Several may run at once. All replicas must be of this release.
///
/// Example: `strongroom keys rotate-data --user ada`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).multiple(true).args(["all", "app", "user"]))]
pub(super) struct RotateData {
    /// The keys of all apps and of all users.
    #[arg(long, conflicts_with_all = ["app", "user"])]
    all: bool,
    /// The key of this app and those of its users; with --user, the app of the user.
    #[arg(long)]
    app: Option<String>,
    /// Only the key of this user, by the app's own name for them.
    #[arg(long)]
    user: Option<String>,
    /// Only keys that were made so many days ago or earlier.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    older_than: u16,
}

/// How long a new key is published before it seals: longer than any statement that began before. Twice the statement
/// timeout, if that is longer.
const PUBLISHED_FOR: Duration = Duration::from_secs(10);
/// How long an old key opens after a new one seals: longer than most that is sealed under an opened key takes to be stored.
/// What takes longer (an exchange) is sealed anew when it is refused.
const SWITCHED_FOR: Duration = Duration::from_secs(30);
/// How many keys one transaction publishes or switches.
const BATCH: i64 = 100;
/// Between two passes.
const PAUSE: Duration = Duration::from_millis(500);
/// After how long without progress a run gives up on locked rows.
const STALLED: Duration = Duration::from_mins(1);

impl RotateData {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read(&mut reader);
        let timeout = reader.finish(database)?.timeout;
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let scope = self.scope(&mut conn).await?;
        let made_before =
            database::now(&mut conn).await? - time::Duration::days(self.older_than.into());
        let progress = output.progress(Some(0));
        progress.message("data keys");
        let published_for = PUBLISHED_FOR.max(timeout * 2);
        let (total, done) = (0, Done::default());
        let mut run = Run { conn, vault, scope, published_for, total, progress, done };
        run.publish(made_before).await?;
        run.finish().await?;
        let Run { done: Done { rotated, sealed, .. }, progress, .. } = run;
        drop(progress);
        output.result(&json!({ "rotated": rotated, "sealedAnew": sealed }), || {
            let sealed = count(i64::try_from(sealed).unwrap_or(i64::MAX), "value");
            format!("Rotated {}; sealed {sealed} anew.", count(rotated, "data key"))
        });
        Ok(())
    }

    async fn scope(&self, conn: &mut Conn) -> Result<Scope, Failure> {
        if self.all {
            return Ok(Scope::default());
        }
        let id = app(conn, self.app.as_deref().unwrap_or(apps::DEFAULT)).await?.id;
        let Some(name) = &self.user else { return Ok(Scope { app: Some(id), user: None }) };
        let user = users::id_of(conn, id, name).await?;
        let user =
            user.ok_or_else(|| Failure::Usage(format!("the app has no user named `{name}`")))?;
        Ok(Scope { app: Some(id), user: Some(user) })
    }
}

/// What a run has done.
#[derive(Default)]
struct Done {
    rotated: i64,
    sealed: u64,
    /// The keys under which it has sealed anew what was under their former ones, once.
    seen: HashSet<DataKeyId>,
    /// Former keys that stay because of values that do not open.
    kept: HashSet<DataKeyId>,
    damaged: BTreeSet<(&'static str, Uuid)>,
}

/// A run over all keys of its scope that rotate, its own and those that others have left.
struct Run {
    conn: Conn,
    vault: Vault,
    scope: Scope,
    published_for: Duration,
    total: i64,
    progress: Progress,
    done: Done,
}

impl Run {
    /// Publishes a new key beside each that was made before a moment. Makes passes until there is none left: those that a
    /// rewrap or another run has locked or changed at this moment come again.
    async fn publish(&mut self, made_before: OffsetDateTime) -> Result<(), Failure> {
        let mut advanced_at = Instant::now();
        loop {
            let (mut found, mut done, mut after) = (0, 0, None);
            loop {
                let (conn, vault) = (&mut self.conn, &self.vault);
                let batch =
                    vault::publish(conn, vault, self.scope, made_before, after, BATCH).await?;
                (found, done, after) = (found + batch.found, done + batch.done, batch.next);
                if after.is_none() {
                    break;
                }
            }
            if found == done {
                self.total = vault::count_rotating(&mut self.conn, self.scope).await?;
                return Ok(());
            }
            if done > 0 {
                advanced_at = Instant::now();
            }
            Self::check_progress(advanced_at, found - done)?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fails if there was no progress for too long.
    fn check_progress(advanced_at: Instant, left: u64) -> Result<(), Failure> {
        if advanced_at.elapsed() <= STALLED {
            return Ok(());
        }
        let left = count(i64::try_from(left).unwrap_or(i64::MAX), "data key");
        Err(Failure::Other(format!("{left} in use by others; run it again")))
    }

    /// Makes passes until no key of the scope rotates.
    async fn finish(&mut self) -> Result<(), Failure> {
        let mut advanced_at = Instant::now();
        loop {
            if self.pass().await? {
                advanced_at = Instant::now();
            }
            let left = vault::count_rotating(&mut self.conn, self.scope).await?;
            self.progress.steps(self.total - left, self.total);
            if left == 0 {
                return Ok(());
            }
            if usize::try_from(left).is_ok_and(|left| left <= self.done.kept.len()) {
                return Err(self.damaged());
            }
            Self::check_progress(advanced_at, u64::try_from(left).unwrap_or(0))?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes every key that rotates one step further, if it is time. Returns whether any went on, or waits for its time.
    async fn pass(&mut self) -> Result<bool, Failure> {
        let (mut advanced, mut after) = (false, None);
        loop {
            let page = vault::rotating(&mut self.conn, self.scope, after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(advanced) };
            after = Some(last.other);
            let (switched, published): (Vec<_>, Vec<_>) =
                page.iter().partition(|rotating| rotating.switched);
            advanced |= self.switch(&published).await?;
            for rotating in switched {
                advanced |= self.seal_and_destroy(rotating).await?;
            }
        }
    }

    async fn switch(&mut self, published: &[&Rotating]) -> Result<bool, Failure> {
        let ready = published.iter().copied().filter(|it| it.lasts >= self.published_for);
        let ready: Vec<_> = ready.collect();
        let waits = ready.len() < published.len();
        if ready.is_empty() {
            return Ok(waits);
        }
        Ok(vault::switch(&mut self.conn, &ready, self.published_for).await? > 0 || waits)
    }

    async fn seal_and_destroy(&mut self, rotating: &Rotating) -> Result<bool, Failure> {
        let is_over = rotating.lasts >= SWITCHED_FOR;
        if !is_over && !self.done.seen.insert(rotating.key.id) {
            return Ok(true);
        }
        let anew = vault::seal_anew(&mut self.conn, &self.vault, rotating).await?;
        self.done.sealed += anew.done;
        if !anew.damaged.is_empty() {
            self.done.damaged.extend(anew.damaged);
            self.done.kept.insert(rotating.other);
            return Ok(anew.done > 0);
        }
        self.done.kept.remove(&rotating.other);
        if is_over && self.destroy(rotating).await? {
            self.done.rotated += 1;
            return Ok(true);
        }
        Ok(anew.done > 0 || !is_over)
    }

    /// Destroys a former key, with the audit event of the rotation.
    async fn destroy(&mut self, rotating: &Rotating) -> Result<bool, Failure> {
        let (KeyOwner::App(app) | KeyOwner::User { app, .. }) = rotating.key.owner else {
            return Ok(false);
        };
        let mut tx = self.conn.begin().await?;
        if !vault::destroy_former(&mut tx, rotating, SWITCHED_FOR).await? {
            return Ok(false);
        }
        let reason = format!("{} by {}", rotating.other, rotating.key.id);
        let event = audit::Event {
            app,
            action: "data_key.rotated",
            outcome: "ok",
            user: rotating.key.owner.user(),
            connection: None,
            reason: Some(&reason),
        };
        audit::record(&mut tx, &acting(), &event).await?;
        fail::fail_point!("rotate_data::destroying");
        tx.commit().await?;
        fail::fail_point!("rotate_data::destroyed");
        Ok(true)
    }

    /// What is left is under keys that stay because of values that do not open.
    fn damaged(&self) -> Failure {
        let (values, keys) = (self.done.damaged.len(), self.done.kept.len());
        let first = self.done.damaged.first();
        let first = first.map_or(String::new(), |(place, row)| format!("{place} of {row}"));
        let count = |n: usize, thing| count(i64::try_from(n).unwrap_or(i64::MAX), thing);
        let (values, keys) = (count(values, "value"), count(keys, "old data key"));
        Failure::Other(format!(
            "{keys} not destroyed, because of {values} that cannot be opened; the first is {first}"
        ))
    }
}
