//! `strongroom connections`.

mod export;
mod import;

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::clients::moment;
use crate::cli::output::{Output, table};
use crate::cli::session::{Session, app};
use crate::cli::{Failure, audit};
use crate::common::ids::ConnectionId;
use crate::common::paging::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::config::Environment;
use crate::connections::model::Status;
use crate::connections::query::search;
use crate::connections::query::search::{Found, Search, StatusCount, WithHistory};
use crate::database::Conn;

/// Connections across users: find them, see what happened to one, count them.
#[derive(Debug, Args)]
pub(super) struct Connections {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Stats(Stats),
    Import(Box<import::ImportFile>),
    Export(export::Export),
}

/// List connections, newest first; every option narrows it.
///
/// Example: strongroom connections list --status revoking --text 5f3a
#[derive(Debug, Args)]
struct List {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// Only this user's, by the app's own name.
    #[arg(long)]
    user: Option<String>,
    /// Only in this status.
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only those that need attention (true), or only those that do not (false).
    #[arg(long)]
    attention: Option<bool>,
    /// Received before this time, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_parser = time)]
    created_before: Option<OffsetDateTime>,
    /// Received at this time or after it.
    #[arg(long, value_parser = time)]
    created_after: Option<OffsetDateTime>,
    /// With this text somewhere in one of its ids.
    #[arg(long)]
    text: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_LIMIT)))]
    limit: u8,
    /// Where the page before said that this one starts.
    #[arg(long)]
    cursor: Option<String>,
}

/// Show one connection and everything that the audit trail has about it.
#[derive(Debug, Args)]
struct Show {
    /// The connection: `conn_…`.
    id: ConnectionId,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

/// Count connections by status and age.
#[derive(Debug, Args)]
struct Stats {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

/// A time on the command line.
pub(super) fn time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "a time is written such as 2026-01-31T12:00:00Z".to_owned())
}

fn status(text: &str) -> Result<Status, String> {
    Status::parse(text)
        .ok_or_else(|| format!("one of {}", Status::ALL.map(Status::as_str).join(", ")))
}

impl Connections {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let open = || async { Ok::<_, Failure>(Session::open(environment).await?.conn) };
        match self.command {
            Command::List(list) => list.run(&mut open().await?, output).await,
            Command::Show(show) => show.run(&mut open().await?, output).await,
            Command::Stats(stats) => stats.run(&mut open().await?, output).await,
            Command::Import(import) => import.run(environment, output).await,
            Command::Export(export) => export.run(environment, output).await,
        }
    }
}

impl List {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?;
        let cursor = self.cursor.as_deref().map(str::parse).transpose();
        let query = Search {
            client_user_id: self.user.as_deref(),
            status: self.status,
            attention: self.attention,
            created_by: None,
            created_before: self.created_before,
            created_after: self.created_after,
            text: self.text.as_deref(),
            limit: self.limit,
            cursor: cursor.map_err(|what| Failure::Usage(format!("--cursor: {what}")))?,
        };
        let page = search::search(conn, app.id, &query).await?;
        let next = page.next.map(|cursor| cursor.to_string());
        output.result(&json!({ "connections": page.items, "nextCursor": next }), || {
            if page.items.is_empty() {
                return "There is no such connection.".to_owned();
            }
            let rows = page.items.iter().map(row).collect::<Vec<_>>();
            let text = table(["CONNECTION AND USER", "STATUS", "RECEIVED"], &rows);
            let more = next.map(|next| format!("\n\nMore: --cursor {next}"));
            text + &more.unwrap_or_default()
        });
        Ok(())
    }
}

fn row(found: &Found) -> [String; 3] {
    let connection = &found.connection;
    let status = connection.status.as_str();
    let needs = connection.attention.as_ref().map(|it| format!("{status}, {}", it.kind));
    [
        format!("{}\n{}", connection.id, connection.client_user_id),
        needs.unwrap_or_else(|| status.to_owned()),
        moment(Some(connection.created_at), ""),
    ]
}

impl Show {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?;
        let found = search::with_history(conn, app.id, self.id).await?;
        let found = found.ok_or_else(|| {
            Failure::Usage(format!("there is no connection {} in this app", self.id))
        })?;
        output.result(&found, || describe(&found));
        Ok(())
    }
}

fn describe(detail: &WithHistory) -> String {
    let Found { connection, user, created_by, bulk_revocation, .. } = &detail.found;
    let revocation = connection.revocation.as_ref();
    let error = revocation.and_then(|it| it.last_error.clone());
    let attention = connection.attention.as_ref();
    let attention = attention.map(|it| format!("{} since {}", it.kind, moment(Some(it.since), "")));
    let lines = [
        ("id", connection.id.to_string()),
        ("status", connection.status.as_str().to_owned()),
        ("user", format!("{} ({user})", connection.client_user_id)),
        ("provider", connection.provider.name().to_owned()),
        ("connection ID", connection.login_id.clone().unwrap_or_default()),
        ("received", moment(Some(connection.created_at), "")),
        ("active since", moment(connection.activated_at, "never")),
        ("last used", moment(connection.last_used_at, "never")),
        ("attention", attention.unwrap_or_default()),
        ("made by", created_by.clone().unwrap_or_default()),
        ("revoked", moment(revocation.map(|it| it.requested_at), "no")),
        ("confirmed", moment(revocation.and_then(|it| it.confirmed_at), "no")),
        ("last error", error.unwrap_or_default()),
        ("order", bulk_revocation.map(|id| id.to_string()).unwrap_or_default()),
    ];
    let line = |(name, value): &(&str, String)| format!("{name:14}  {value}");
    let lines = lines.iter().map(line).collect::<Vec<_>>().join("\n");
    let rows = detail.history.iter().map(|event| audit::row(event, None)).collect::<Vec<_>>();
    format!("{lines}\n\n{}", table(audit::HEADING, &rows))
}

impl Stats {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?;
        let statuses = search::stats(conn, app.id).await?;
        let needing_attention = search::needing_attention(conn, app.id).await?;
        let total: i64 = statuses.iter().map(|count| count.total).sum();
        let counts = json!({
            "total": total, "needingAttention": needing_attention, "statuses": statuses,
        });
        output.result(&counts, || {
            let row = |count: &StatusCount| {
                let ages = &count.ages;
                let numbers = [count.total, ages.hour, ages.day, ages.week, ages.month, ages.older];
                let [total, hour, day, week, month, older] = numbers.map(|n| n.to_string());
                [count.status.as_str().to_owned(), total, hour, day, week, month, older]
            };
            let rows = statuses.iter().map(row).collect::<Vec<_>>();
            let counted =
                table(["STATUS", "TOTAL", "< 1 H", "< 1 D", "< 7 D", "< 30 D", "OLDER"], &rows);
            format!("{counted}\n\nNeeding attention: {needing_attention}")
        });
        Ok(())
    }
}
