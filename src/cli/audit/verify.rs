//! `strongroom audit verify`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use super::archive;
use super::handovers::{handovers, with_kept_keys};
use crate::apps::{self, App};
use crate::audit::{self, CHECKPOINT_TYP, Checkpoint, Known, Report};
use crate::cli::Failure;
use crate::cli::output::Output;
use crate::cli::session::{self, Session};
use crate::common::strict_json::Objects;
use crate::config::Environment;
use crate::oauth::statements;

/// Check the trail's hash chain from its first link to its last, and find the first row that was
/// edited, removed, put elsewhere or cut off. The exit status is 1 where it is broken.
///
/// A chain that was cut off or rewritten as a whole holds together: only a checkpoint that was kept
/// elsewhere shows it. Rows of the last second or so wait for their links; they are counted.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Of this app alone; all of them where it is left out.
    #[arg(long)]
    app: Option<String>,
    /// A file with checkpoints, one a line.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Check this file of `strongroom audit archive` instead of the chain in the database, with the checkpoints that are
    /// given. May be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "app")]
    archive: Vec<PathBuf>,
    /// A key set (`/.well-known/jwks.json`) kept with checkpoints or archives or at an import, for when the key that signed
    /// them has been rotated away. The service's present keys are always tried. May be repeated.
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
}

/// The result for one app.
#[derive(Serialize)]
struct Checked {
    app: String,
    #[serde(flatten)]
    report: Report,
    /// Archives whose statement no key verifies: the chain is not followed across their links.
    unproved: usize,
    /// Hand-overs from another deployment that no key verifies: the chain before them is not proved.
    #[serde(rename = "unprovedHandovers")]
    unproved_handovers: usize,
}

/// The result for all apps.
#[derive(Serialize)]
struct Verdict {
    ok: bool,
    apps: Vec<Checked>,
}

impl Verify {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let keys = self.keys(&mut session).await?;
        let points = self.checkpoints(&keys)?;
        if !self.archive.is_empty() {
            return archive::verify_files(&self.archive, &keys, &points, output);
        }
        let apps = match &self.app {
            Some(name) => vec![session::app(&mut session.conn, name).await?],
            None => apps::list(&mut session.conn).await?,
        };
        if let Some(point) = points.iter().find(|point| apps.iter().all(|app| app.id != point.sub))
        {
            let message = format!("a checkpoint is of the app {}, which is not checked", point.sub);
            return Err(Failure::Usage(message));
        }
        let mut checked = Vec::with_capacity(apps.len());
        for App { id, name, .. } in apps {
            let statements = audit::archive::statements(&mut session.conn, id).await?;
            // What the app's former deployments have signed, and where they handed the chain over.
            let handed_over = handovers(&mut session.conn, id, &keys).await?;
            let archives = archive::proved(&statements, &handed_over.keys);
            let unproved = statements.len() - archives.len();
            let given = points.iter().filter(|point| point.sub == id).cloned();
            let checkpoints = given.chain(handed_over.checkpoints).collect();
            let known = Known { checkpoints, archives };
            let progress = output.progress(Some(0));
            progress.message(format!("links of {name}"));
            let report = audit::verify(&mut session.conn, id, &known, |done, of| {
                progress.steps(done, of);
            });
            let report = report.await?;
            drop(progress);
            let unproved_handovers = handed_over.unproved;
            checked.push(Checked { app: name, report, unproved, unproved_handovers });
        }
        let whole = |it: &Checked| it.report.broken.is_none() && it.unproved_handovers == 0;
        let ok = checked.iter().all(whole);
        let verdict = Verdict { ok, apps: checked };
        output
            .result(&verdict, || verdict.apps.iter().map(describe).collect::<Vec<_>>().join("\n"));
        if ok { Ok(()) } else { Err(Failure::other("the audit trail is not what was written")) }
    }

    /// Returns the service's keys and those that were kept.
    async fn keys(&self, session: &mut Session) -> Result<Vec<Value>, Failure> {
        let keys = statements::key_set(&mut session.conn, &session.vault).await?;
        with_kept_keys(keys, &self.jwks)
    }

    /// Returns the checkpoints of the file, each verified with the key that signed it.
    fn checkpoints(&self, keys: &[Value]) -> Result<Vec<Checkpoint>, Failure> {
        let Some(path) = &self.checkpoint else { return Ok(Vec::new()) };
        let text = read(path)?;
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let points: Vec<Checkpoint> = lines
            .map(|(index, line)| {
                let refused = |what: String| {
                    Failure::Usage(format!("{}, line {}: {what}", path.display(), index + 1))
                };
                let claims = statements::open(line, CHECKPOINT_TYP, keys)
                    .map_err(|error| refused(error.to_string()))?;
                Checkpoint::deserialize(Objects(claims)).map_err(|error| refused(error.to_string()))
            })
            .collect::<Result<_, _>>()?;
        if points.is_empty() {
            return Err(Failure::Usage(format!("{} holds no checkpoint", path.display())));
        }
        Ok(points)
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn describe(checked: &Checked) -> String {
    let Checked { app, report, .. } = checked;
    let mut text = match &report.broken {
        None => format!(
            "{app}: whole. Links that hold: {}, the last is {}.",
            report.linked, report.hash
        ),
        Some(broken) => {
            let at = broken.seq.map_or(String::new(), |seq| format!(" at {seq}"));
            let event = broken.event.map_or(String::new(), |event| format!(" ({event})"));
            let what = broken.fault.describe();
            format!(
                "{app}: BROKEN{at}{event}: {what}. Links before it that hold: {}.",
                report.linked
            )
        }
    };
    if report.archived > 0 {
        let _ = write!(text, " Of them in archives: {}.", report.archived);
    }
    if checked.unproved > 0 {
        let _ = write!(
            text,
            " Archives that no key verifies: {}; give the key set that was kept with them by --jwks.",
            checked.unproved
        );
    }
    if checked.unproved_handovers > 0 {
        let _ = write!(
            text,
            " NOT PROVED: hand-overs from another deployment that no key verifies: {}; give the key set that was kept at the \
             import by --jwks.",
            checked.unproved_handovers
        );
    }
    if report.checkpoints > 0 && report.broken.is_none() {
        let compared = report.checkpoints - report.checkpoints_in_archives;
        let _ = write!(text, " Checkpoints that it continues: {compared}.");
    }
    if report.checkpoints_in_archives > 0 {
        let _ = write!(
            text,
            " Checkpoints of archived links: {}; compare them with the files by --archive.",
            report.checkpoints_in_archives
        );
    }
    if report.unlinked > 0 {
        let _ = write!(text, " Rows that wait for their links: {}.", report.unlinked);
    }
    text
}
