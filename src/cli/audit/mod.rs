//! `strongroom audit`.

mod archive;
mod handovers;
mod verify;

pub(super) use handovers::{handovers, with_kept_keys};

use std::fmt::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::output::{Output, table};
use super::session::{self, Session};
use crate::audit::{self, AuditEvent, Filter};
use crate::common::ids::ConnectionId;
use crate::config::{Environment, HttpConfig, Reader};
use crate::oauth::statements;

/// How many rows one query reads.
const PIECE: i64 = 1000;

/// The audit trail: every change and every reading of a secret.
#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Export(Export),
    Checkpoint(Checkpoint),
    Verify(verify::Verify),
    Archive(archive::Archive),
}

/// List the newest events.
///
/// Example: strongroom audit list --action token.revealed --user ada
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    which: EventSelection,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// Print events as JSON lines, newest first.
///
/// Example: strongroom audit export --after 2026-11-01T00:00:00Z > november.jsonl
#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    which: EventSelection,
}

/// Print what the app's chain is now, signed. Keep it out of reach of the database's owner:
/// `strongroom audit verify --checkpoint FILE` detects a chain that was cut off or rewritten since.
///
/// It is a JWS that verifies with the service's `/.well-known/jwks.json`.
#[derive(Debug, Args)]
struct Checkpoint {
    /// The app.
    #[arg(long, default_value = "default")]
    app: String,
}

/// Which events.
#[derive(Debug, Args)]
struct EventSelection {
    /// Of this app.
    #[arg(long, default_value = "default")]
    app: String,
    /// Only this action, such as `token.revealed`.
    #[arg(long)]
    action: Option<String>,
    /// Only what concerns this user, as the app calls them.
    #[arg(long, value_name = "CLIENT_USER_ID")]
    user: Option<String>,
    /// Only what concerns this connection.
    #[arg(long, value_name = "CONN_ID")]
    connection: Option<ConnectionId>,
    /// Only what this client did.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// Only what this kind of actor did.
    #[arg(long, value_enum)]
    actor: Option<ActorKind>,
    /// Only what was written before this time.
    #[arg(long, value_parser = moment)]
    before: Option<OffsetDateTime>,
    /// Only what was written at this time or later.
    #[arg(long, value_parser = moment)]
    after: Option<OffsetDateTime>,
}

/// Who can be in the trail.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ActorKind {
    Client,
    Session,
    Operator,
    Service,
}

fn moment(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a time of RFC 3339, such as 2026-11-21T15:20:00Z")
}

impl Audit {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(environment, output).await,
            Command::Export(export) => export.run(environment, output).await,
            Command::Checkpoint(checkpoint) => checkpoint.run(environment, output).await,
            Command::Verify(verify) => verify.run(environment, output).await,
            Command::Archive(archive) => archive.run(environment, output).await,
        }
    }
}

impl EventSelection {
    async fn filter(self, session: &mut Session) -> Result<Filter, Failure> {
        let app = session::app(&mut session.conn, &self.app).await?;
        let actor = self.actor.and_then(|actor| actor.to_possible_value());
        Ok(Filter {
            app: app.id,
            action: self.action,
            client_user_id: self.user,
            connection: self.connection,
            client_id: self.client,
            actor: actor.map(|actor| actor.get_name().to_owned()),
            before: self.before,
            after: self.after,
        })
    }
}

impl List {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let filter = self.which.filter(&mut session).await?;
        let events = audit::list(&mut session.conn, &filter, None, self.limit.into()).await?;
        output.result(&events, || {
            if events.is_empty() {
                return "Nothing is on record.".to_owned();
            }
            let rows = events.iter().map(|event| row(event, event.connection));
            table(HEADING, &rows.collect::<Vec<_>>())
        });
        Ok(())
    }
}

/// The heading of [`row`].
pub(super) const HEADING: [&str; 2] = ["WHEN", "WHAT, BY WHOM AND WHY"];

/// Formats an event, with the connection if the reader does not know it.
pub(super) fn row(event: &AuditEvent, connection: Option<ConnectionId>) -> [String; 2] {
    let at = event.at.replace_nanosecond(0).unwrap_or(event.at);
    let who = event.client_id.as_ref().unwrap_or(&event.actor);
    let mut what = format!("{} ({}) by {who}", event.action, event.outcome);
    if let Some(connection) = connection {
        let _ = write!(what, "\non {connection}");
    }
    if let Some(reason) = &event.reason {
        let _ = write!(what, "\n{reason}");
    }
    [at.format(&Rfc3339).unwrap_or_default(), what]
}

impl Export {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let filter = self.which.filter(&mut session).await?;
        let mut last = None;
        loop {
            let events = audit::list(&mut session.conn, &filter, last, PIECE).await?;
            for event in &events {
                if !output.line(event) {
                    return Ok(());
                }
            }
            let Some(event) = events.last() else { return Ok(()) };
            last = Some(event.id.uuid());
        }
    }
}

impl Checkpoint {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let http = HttpConfig::read(&mut reader);
        let http = reader.finish(Some(http))?;
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let app = session::app(&mut conn, &self.app).await?;
        let url = http.public_url.as_str();
        let signer = statements::signer_of_now(&mut conn, &vault, url).await?;
        let point = audit::checkpoint(&mut conn, app.id, &signer).await?;
        let no_key = || Failure::other("no key signs yet; `strongroom serve` makes one");
        let point = point.ok_or_else(no_key)?;
        let json = json!({ "app": app.name, "seq": point.claims.seq, "hash": point.claims.hash,
                           "checkpoint": point.jws });
        output.result(&json, || point.jws.clone());
        Ok(())
    }
}
