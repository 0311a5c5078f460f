//! `strongroom approvals`.

use clap::{Args, Subcommand};
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::clients::moment;
use super::identity::acting;
use super::output::{Output, table};
use super::session::{Session, app};
use crate::approvals::{self, Approval, Awaiting, AwaitingApproval, DecideError, Gated, Refused};
use crate::common::ids::{AppId, ApprovalId};
use crate::common::paging::MAX_LIMIT;
use crate::config::Environment;
use crate::database::Conn;

/// Requests that wait for a second person, or did.
///
/// They are approved and rejected in the operators' console alone.
#[derive(Debug, Args)]
pub(super) struct Approvals {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Named),
    Withdraw(Withdraw),
}

/// List the requests of an app and those about operators, newest first: the latest hundred.
#[derive(Debug, Args)]
struct List {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

/// Show a request and what became of it.
#[derive(Debug, Args)]
struct Named {
    /// The request: `apr_…`.
    id: ApprovalId,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
}

/// Withdraw a request that waits. Only who asked for it may.
#[derive(Debug, Args)]
struct Withdraw {
    #[command(flatten)]
    named: Named,
}

impl Approvals {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let Session { mut conn, .. } = Session::open(environment).await?;
        match self.command {
            Command::List(list) => list.run(&mut conn, output).await,
            Command::Show(named) => named.show(&mut conn, output).await,
            Command::Withdraw(withdraw) => withdraw.named.withdraw(&mut conn, output).await,
        }
    }
}

impl List {
    async fn run(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?.id;
        let found = approvals::list(conn, app, true, None, MAX_LIMIT).await?.items;
        output.result(&found, || {
            if found.is_empty() {
                return "Nothing waits, and nothing did in the last ninety days.".to_owned();
            }
            let rows: Vec<_> = found.iter().map(row).collect();
            table(["ID", "STATUS", "WHAT", "BY", "ASKED"], &rows)
        });
        Ok(())
    }
}

fn row(it: &Approval) -> [String; 5] {
    [
        it.id.to_string(),
        it.status.as_str().to_owned(),
        it.kind.as_str().to_owned(),
        it.requested_by.clone(),
        moment(Some(it.created_at), ""),
    ]
}

fn unknown(id: ApprovalId) -> Failure {
    Failure::Usage(format!("there is no request {id} here; `strongroom approvals list`"))
}

impl Named {
    async fn show(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?.id;
        show(conn, output, app, self.id).await
    }

    async fn withdraw(self, conn: &mut Conn, output: &Output) -> Result<(), Failure> {
        let app = app(conn, &self.app).await?.id;
        match approvals::withdraw(conn, &acting(), app, self.id).await {
            Ok(()) => show(conn, output, app, self.id).await,
            Err(DecideError::Refused(Refused::Unknown)) => Err(unknown(self.id)),
            Err(DecideError::Refused(Refused::MayNot)) => {
                Err(Failure::Usage("only who asked for it may withdraw it".to_owned()))
            }
            Err(error) => Err(Failure::other(error)),
        }
    }
}

async fn show(conn: &mut Conn, output: &Output, app: AppId, id: ApprovalId) -> Result<(), Failure> {
    let found = approvals::find(conn, app, id).await?.ok_or_else(|| unknown(id))?;
    output.result(&found, || describe(&found));
    Ok(())
}

fn describe(it: &Approval) -> String {
    let decided = it.decided_by.as_deref().map_or_else(String::new, |by| {
        format!("\n{} by {by} at {}", it.status.as_str(), moment(it.decided_at, ""))
    });
    let reason = it.decision_reason.as_deref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    format!(
        "{} {} ({})\n{}\nasked for by {} at {}, until {}{decided}{reason}",
        it.id,
        it.kind.as_str(),
        it.status.as_str(),
        it.request,
        it.requested_by,
        moment(Some(it.created_at), ""),
        moment(Some(it.expires_at), ""),
    )
}

/// Returns what was done. If it waits for a second person, prints that instead and ends the command with status 3.
pub(super) fn done<T>(output: &Output, asked: Gated<T>) -> Result<T, Failure> {
    match asked {
        Gated::Done(done) => Ok(done),
        Gated::Awaits(approval) => {
            output.result(&AwaitingApproval { approval }, || waits(&approval));
            Err(Failure::Awaits)
        }
    }
}

fn waits(approval: &Awaiting) -> String {
    let until = approval.expires_at.format(&Rfc3339).unwrap_or_default();
    format!(
        "Nothing was done yet: a second person has to approve {} in the console by {until}.\n\
         How it stands: strongroom approvals show {}",
        approval.id, approval.id
    )
}
