//! `strongroom revocations`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use time::OffsetDateTime;

use super::approvals::done;
use super::identity::acting;
use crate::approvals::Gated;
use crate::cli::Failure;
use crate::cli::clients::moment;
use crate::cli::connections::time;
use crate::cli::output::{Output, count, table};
use crate::cli::session::{Session, app};
use crate::cli::wait::Wait;
use crate::common::ids::{AppId, BulkRevocationId};
use crate::common::paging::MAX_LIMIT;
use crate::common::text;
use crate::config::{Environment, FourEyes};
use crate::connections::bulk_revocation;
use crate::connections::bulk_revocation::{
    BulkRevocation, BulkRevocationStatus, Change, ChangeOutcome, CreateOutcome, DEFAULT_PER_SECOND,
    MAX_PER_SECOND, NewBulkRevocation, RevocationFilter,
};
use crate::connections::model::RevocationKind;
use crate::database::{Conn, LongWork};
use crate::vault::Vault;

/// The maximum length of a reason, in bytes, as in the API.
const MAX_REASON: usize = 500;

/// Revoke many connections at once: unusable with the command, delinked at the bank link in the background.
///
/// The running service calls Dapi. Without one, repeat `strongroom sweep`.
#[derive(Debug, Args)]
pub(super) struct Revocations {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Box<Create>),
    List(List),
    Show(Show),
    Pause(Named),
    Resume(Named),
    Cancel(Cancel),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The user unlinks.
    Delink,
    /// The token is declared dead.
    Invalidate,
}

impl From<Kind> for RevocationKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Delink => Self::Delink,
            Kind::Invalidate => Self::Invalidate,
        }
    }
}

/// Revoke every connection that all of the options mean. At least one is needed, or --all.
///
/// Example: strongroom revocations create --reason "secret leaked" --client 4fz… --dry-run
#[derive(Debug, Args)]
struct Create {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// How.
    #[arg(long, value_enum, default_value_t = Kind::Invalidate)]
    kind: Kind,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: String,
    /// Of this user, by the app's own name; may be repeated.
    #[arg(long = "user")]
    users: Vec<String>,
    /// This connection, `conn_…` or the bank login's id (Dapi's `connectionID`, Plaid's `item_id`); may be repeated.
    #[arg(long = "connection")]
    connections: Vec<String>,
    /// Received before this time, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_parser = time)]
    created_before: Option<OffsetDateTime>,
    /// Received at this time or after it.
    #[arg(long, value_parser = time)]
    created_after: Option<OffsetDateTime>,
    /// Handed in by this OAuth client, or in a session that it made.
    #[arg(long)]
    client: Option<String>,
    /// Every connection of the app.
    #[arg(long)]
    all: bool,
    /// Only count, and show some.
    #[arg(long)]
    dry_run: bool,
    /// How many connections a second are delinked at the provider.
    #[arg(long, default_value_t = DEFAULT_PER_SECOND, value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_PER_SECOND)))]
    per_second: i32,
    /// Makes the command safe to repeat.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Do not ask before it is done; without a terminal nothing is asked.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

/// List bulk revocations, newest first: the latest hundred.
#[derive(Debug, Args)]
struct List {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

/// Show a bulk revocation and its progress.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    wait: Wait,
}

/// Give up, for good, the delinkings that the provider has not confirmed. The connections stay unusable.
#[derive(Debug, Args)]
struct Cancel {
    #[command(flatten)]
    named: Named,
    /// Why, for the audit trail and for the second person that four eyes ask for.
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask before it is done; without a terminal nothing is asked.
    #[arg(long)]
    yes: bool,
}

/// A bulk revocation. Pause stops the calls to the provider until resume. In either case the connections stay unusable.
#[derive(Debug, Args)]
struct Named {
    /// The bulk revocation: `ord_…`.
    id: BulkRevocationId,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

impl Revocations {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let Session { conn, .. } = &mut session;
        match self.command {
            Command::Create(create) => create.run(&mut session, output).await,
            Command::List(list) => list.run(conn, output).await,
            Command::Show(show) => show.run(conn, output).await,
            Command::Pause(named) => named.change(conn, output, Change::Pause).await,
            Command::Resume(named) => named.change(conn, output, Change::Resume).await,
            Command::Cancel(cancel) => cancel.run(&mut session, output).await,
        }
    }
}

fn named(names: &[String]) -> Option<Vec<String>> {
    (!names.is_empty()).then(|| names.to_vec())
}

impl Create {
    fn matching(&self) -> Result<RevocationFilter, Failure> {
        let names = self.users.iter().chain(&self.connections).chain(&self.client);
        for name in names {
            text::check(name, 1024).map_err(|what| Failure::Usage(format!("a name {what}")))?;
        }
        let matching = RevocationFilter {
            client_user_ids: named(&self.users),
            connection_ids: named(&self.connections),
            created_before: self.created_before,
            created_after: self.created_after,
            client_id: self.client.clone(),
            all: self.all,
        };
        matching.check().map_err(|_| {
            let all = "say which connections, or --all alone for every one of the app";
            Failure::Usage(all.to_owned())
        })?;
        Ok(matching)
    }

    async fn run(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let Session { conn, vault, four_eyes } = session;
        let matching = self.matching()?;
        check_reason(&self.reason)?;
        let app = app(conn, &self.app).await?.id;
        if self.dry_run {
            conn.allow(LongWork::BulkRevocation).await?;
            let found = bulk_revocation::dry_run(conn, app, &matching).await?;
            output.result(&found, || {
                let matched = format!("{} would be revoked.", count(found.matched, "connection"));
                let sample = found.sample.iter().map(ToString::to_string);
                std::iter::once(matched).chain(sample).collect::<Vec<_>>().join("\n")
            });
            return Ok(());
        }
        if !self.yes && output.asks() {
            conn.allow(LongWork::BulkRevocation).await?;
            let found = bulk_revocation::dry_run(conn, app, &matching).await?.matched;
            output.confirm(&format!("{} to be revoked.", count(found, "connection")), self.yes)?;
        }
        let created = self.create(conn, vault, *four_eyes, app, &matching).await?;
        let id = created_id(&done(output, created)?)?;
        show(conn, output, app, id, self.wait).await
    }

    async fn create(
        &self,
        conn: &mut Conn,
        vault: &Vault,
        four_eyes: FourEyes,
        app: AppId,
        matching: &RevocationFilter,
    ) -> Result<Gated<CreateOutcome>, Failure> {
        let (kind, per_second) = (self.kind.into(), self.per_second);
        let new = NewBulkRevocation {
            app,
            kind,
            reason: &self.reason,
            matching,
            per_second,
            idempotency_key: self.idempotency_key.as_deref(),
            request_hash: bulk_revocation::request_hash(
                vault,
                app,
                kind,
                &self.reason,
                per_second,
                matching,
            ),
        };
        Ok(bulk_revocation::create(conn, vault, four_eyes, &acting(), &new).await?)
    }
}

fn created_id(outcome: &CreateOutcome) -> Result<BulkRevocationId, Failure> {
    match outcome {
        CreateOutcome::New { id, .. } | CreateOutcome::Repeated(id) => Ok(*id),
        CreateOutcome::InProgress => Err(Failure::Other(
            "the command that uses this --idempotency-key is under way; repeat it in a moment"
                .to_owned(),
        )),
        CreateOutcome::KeyTaken => {
            Err(Failure::Usage("--idempotency-key was used for another bulk revocation".to_owned()))
        }
    }
}

fn unknown(id: BulkRevocationId) -> Failure {
    Failure::Usage(format!(
        "there is no bulk revocation {id} in this app; `strongroom revocations list`"
    ))
}

/// Prints a bulk revocation; with `wait`, after it has ended, and its progress until then.
async fn show(
    conn: &mut Conn,
    output: &Output,
    app: AppId,
    id: BulkRevocationId,
    wait: Wait,
) -> Result<(), Failure> {
    let waiting = wait.begin(output, Some(0));
    let revocation = loop {
        let revocation = bulk_revocation::find(conn, app, id).await?.ok_or_else(|| unknown(id))?;
        let outstanding = revocation.telling + revocation.waiting;
        if let Some(matched) = revocation.matched {
            waiting.steps(matched - outstanding, matched);
        }
        let ended = revocation.matched.is_some() && outstanding == 0;
        if ended || !waiting.goes_on(&state(&revocation)).await? {
            break revocation;
        }
    };
    drop(waiting);
    output.result(&revocation, || describe(&revocation));
    Ok(())
}

/// Formats what a bulk revocation waits for.
fn state(revocation: &BulkRevocation) -> String {
    if revocation.matched.is_none() {
        return "in force; its connections are being counted".to_owned();
    }
    let paused = if revocation.status == BulkRevocationStatus::Paused { ", paused" } else { "" };
    let error = revocation.errors.first();
    let error = error.map_or(String::new(), |it| format!(", {} × {}", it.count, it.error));
    let (failed, telling) = (revocation.failed, revocation.telling);
    format!("{telling} being delinked, {failed} unconfirmed{error}{paused}")
}

/// Formats how many connections a bulk revocation affects, if they are counted.
fn matched(revocation: &BulkRevocation) -> String {
    revocation.matched.map_or_else(|| "being counted".to_owned(), |matched| matched.to_string())
}

fn describe(revocation: &BulkRevocation) -> String {
    let status = format!("{:?}", revocation.status).to_lowercase();
    let mut lines = vec![
        ("id", revocation.id.to_string()),
        ("status", status),
        ("kind", revocation.kind.as_str().to_owned()),
        ("reason", revocation.reason.clone()),
        ("filter", revocation.filter.to_string()),
        ("given", moment(Some(revocation.created_at), "")),
        ("finished", moment(revocation.finished_at, "not yet")),
        ("matched", matched(revocation)),
        ("told", revocation.told.to_string()),
        ("unconfirmed", revocation.failed.to_string()),
        ("being told", revocation.telling.to_string()),
        ("waiting", format!("{} at {} a second", revocation.waiting, revocation.per_second)),
    ];
    lines.extend(
        revocation.errors.iter().map(|it| ("error", format!("{} × {}", it.count, it.error))),
    );
    let line = |(name, value): &(&str, String)| format!("{name:11}  {value}");
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl List {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?.id;
        let page = bulk_revocation::list(conn, app, None, MAX_LIMIT).await?;
        let next = page.next.map(|cursor| cursor.to_string());
        output.result(&json!({ "revocations": page.items, "nextCursor": next }), || {
            let row = |revocation: &BulkRevocation| {
                [
                    format!("{}\n{}", revocation.id, revocation.reason),
                    format!("{:?}", revocation.status).to_lowercase(),
                    format!("{} of {}", revocation.told, matched(revocation)),
                    moment(Some(revocation.created_at), ""),
                ]
            };
            let rows = page.items.iter().map(row).collect::<Vec<_>>();
            if rows.is_empty() {
                return "There is no bulk revocation.".to_owned();
            }
            table(["REVOCATION AND REASON", "STATUS", "TOLD", "GIVEN"], &rows)
        });
        Ok(())
    }
}

impl Show {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.named.app).await?.id;
        show(conn, output, app, self.named.id, self.wait).await
    }
}

fn check_reason(reason: &str) -> Result<(), Failure> {
    text::check(reason, MAX_REASON).map_err(|what| Failure::Usage(format!("--reason {what}")))
}

impl Cancel {
    async fn run(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let Session { conn, vault, four_eyes } = session;
        if let Some(reason) = &self.reason {
            check_reason(reason)?;
        }
        let Named { id, app: name } = &self.named;
        let app = app(conn, name).await?.id;
        let found = bulk_revocation::find(conn, app, *id).await?.ok_or_else(|| unknown(*id))?;
        let outstanding = count(found.telling + found.waiting, "connection");
        output.confirm(&format!("Give up the delinking of {outstanding}."), self.yes)?;
        let (four_eyes, reason) = (*four_eyes, self.reason.as_deref());
        let cancelled =
            bulk_revocation::cancel(conn, vault, four_eyes, &acting(), app, *id, reason).await?;
        changed(conn, output, app, *id, done(output, cancelled)?).await
    }
}

impl Named {
    async fn change(
        self,
        conn: &mut Conn,
        output: &Output,
        change: Change<'_>,
    ) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?.id;
        let outcome = bulk_revocation::change(conn, &acting(), app, self.id, change).await?;
        changed(conn, output, app, self.id, outcome).await
    }
}

/// Prints a bulk revocation that was changed.
async fn changed(
    conn: &mut Conn,
    output: &Output,
    app: AppId,
    id: BulkRevocationId,
    outcome: ChangeOutcome,
) -> Result<(), Failure> {
    match outcome {
        ChangeOutcome::Yes(_) => show(conn, output, app, id, Wait::default()).await,
        ChangeOutcome::AtItsEnd => {
            Err(Failure::Other(format!("the bulk revocation {id} is at its end")))
        }
        ChangeOutcome::Unknown => Err(unknown(id)),
    }
}
