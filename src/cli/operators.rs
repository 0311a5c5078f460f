//! `strongroom operators`.

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Failure;
use super::approvals::done;
use super::identity::acting;
use super::output::{Output, table};
use super::session::Session;
use crate::common::ids::OperatorSessionId;
use crate::config::{ConsoleConfig, Environment, Reader};
use crate::operators::{
    self, LINK_MINUTES, ListedSession, Operator, OperatorError, OperatorName, RequestedOperator,
    RequestedRole, Role,
};

/// Operators: people of the deployment, who sign in to the console and whom the audit trail names.
#[derive(Debug, Args)]
pub(super) struct Operators {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    List(List),
    SetRole(SetRole),
    Disable(Named),
    Link(Link),
    Sessions(Sessions),
    EndSession(EndSession),
}

/// Add an operator.
///
/// With `STRONGROOM_FOUR_EYES` set, a second person has to approve one who may do more than read.
///
/// Example: strongroom operators add ana --role operator
#[derive(Debug, Args)]
struct Add {
    /// The name that the audit trail has: lower-case letters, digits and `.`, `_`, `@`, `-`.
    name: OperatorName,
    /// What they may do: `auditor` (reads, never a secret), `operator` (revokes, pauses, resolves) or `admin` (clients,
    /// keys, upstreams, webhooks, operators).
    #[arg(long, value_parser = role)]
    role: Role,
    /// The user of the operating system whose commands are theirs without `--as`.
    #[arg(long)]
    os_user: Option<String>,
}

/// List operators.
#[derive(Debug, Args)]
struct List {}

/// Give an operator another role, at once; with `STRONGROOM_FOUR_EYES` set, a second person has to approve a higher one.
#[derive(Debug, Args)]
struct SetRole {
    /// The operator's name.
    name: OperatorName,
    /// The new role: `auditor`, `operator` or `admin`.
    #[arg(long, value_parser = role)]
    role: Role,
}

/// Disable an operator: their sessions and links end at once, and they can do nothing any more.
#[derive(Debug, Args)]
struct Named {
    /// The operator's name.
    name: OperatorName,
}

/// Print a one-time link that signs an operator in to the console. It is good for five minutes; older ones end.
#[derive(Debug, Args)]
struct Link {
    /// The operator's name.
    name: OperatorName,
}

/// List the live sessions of the console.
#[derive(Debug, Args)]
struct Sessions {}

/// End a session of the console at once.
#[derive(Debug, Args)]
struct EndSession {
    /// The session's id, as `strongroom operators sessions` shows it.
    id: OperatorSessionId,
}

/// Formats a time to the minute, in UTC.
fn moment(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]Z");
    at.format(format).unwrap_or_default()
}

fn role(text: &str) -> Result<Role, &'static str> {
    Role::parse(text).ok_or("must be auditor, operator or admin")
}

fn failure(error: OperatorError) -> Failure {
    match error {
        OperatorError::Taken | OperatorError::Unknown(_) | OperatorError::Disabled(_) => {
            Failure::Usage(error.to_string())
        }
        error => Failure::other(error),
    }
}

impl Operators {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let session = &mut Session::open(environment).await?;
        match self.command {
            Command::Add(add) => add.run(session, output).await,
            Command::List(_) => list(session, output).await,
            Command::SetRole(set) => set.run(session, output).await,
            Command::Disable(named) => named.disable(session, output).await,
            Command::Link(link) => link.run(session, environment, output).await,
            Command::Sessions(_) => sessions(session, output).await,
            Command::EndSession(end) => end.run(session, output).await,
        }
    }
}

impl Add {
    async fn run(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let Session { conn, vault, four_eyes } = session;
        let new = RequestedOperator { name: self.name, role: self.role, os_user: self.os_user };
        let added = operators::ask_to_add(conn, vault, *four_eyes, &acting(), &new).await;
        let added = done(output, added.map_err(failure)?)?;
        output.result(&added, || {
            format!(
                "Added {} ({}).\nLet them in: strongroom operators link {}",
                added.name,
                added.role.as_str(),
                added.name
            )
        });
        Ok(())
    }
}

async fn list(session: &mut Session, output: &Output) -> Result<(), Failure> {
    let operators = operators::list(&mut session.conn).await?;
    output.result(&operators, || {
        if operators.is_empty() {
            return "There is no operator yet; `strongroom operators add` makes one.".to_owned();
        }
        let row = |it: &Operator| {
            let state =
                it.disabled_at.map_or_else(String::new, |at| format!("since {}", moment(at)));
            let os_user = it.os_user.clone().unwrap_or_default();
            let role = it.role.as_str().to_owned();
            [it.name.to_string(), role, os_user, it.created_at.date().to_string(), state]
        };
        let rows: Vec<_> = operators.iter().map(row).collect();
        table(["NAME", "ROLE", "OS USER", "ADDED", "DISABLED"], &rows)
    });
    Ok(())
}

impl SetRole {
    async fn run(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let Session { conn, vault, four_eyes } = session;
        let new = RequestedRole { name: self.name, role: self.role };
        let changed = operators::ask_to_change_role(conn, vault, *four_eyes, &acting(), &new).await;
        done(output, changed.map_err(failure)?)?;
        let RequestedRole { name, role } = new;
        let shown = json!({ "name": name, "role": role });
        output.result(&shown, || format!("{name} is {} now.", role.as_str()));
        Ok(())
    }
}

impl Named {
    async fn disable(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let disabled = operators::disable(&mut session.conn, &acting(), &self.name).await;
        let disabled = disabled.map_err(failure)?;
        output.result(&json!({ "name": self.name, "disabled": true }), || {
            let how = if disabled { "is disabled, and signed out" } else { "was disabled before" };
            format!("{} {how}.", self.name)
        });
        Ok(())
    }
}

impl Link {
    async fn run(
        self,
        session: &mut Session,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let console = ConsoleConfig::read(&mut reader);
        let console = reader.finish(Some(console))?.ok_or_else(|| {
            Failure::Usage("the console is off; set STRONGROOM_CONSOLE_LISTEN".to_owned())
        })?;
        let (conn, vault) = (&mut session.conn, &session.vault);
        let token = operators::create_link(conn, vault, &acting(), &self.name).await;
        let url = operators::link_url(console.url().as_str(), &token.map_err(failure)?);
        let shown = json!({ "name": self.name, "url": url.expose(), "minutes": LINK_MINUTES });
        output.result(&shown, || {
            format!("{}\n\nGood for {LINK_MINUTES} minutes, and once.", url.expose())
        });
        Ok(())
    }
}

async fn sessions(session: &mut Session, output: &Output) -> Result<(), Failure> {
    let sessions = operators::list_sessions(&mut session.conn).await?;
    output.result(&sessions, || {
        if sessions.is_empty() {
            return "Nobody is signed in.".to_owned();
        }
        let row = |it: &ListedSession| {
            let (id, ip) = (it.id.to_string(), it.ip.clone().unwrap_or_default());
            let how = it.how.as_str().to_owned();
            [it.operator.clone(), how, ip, moment(it.last_seen_at), moment(it.expires_at), id]
        };
        let rows: Vec<_> = sessions.iter().map(row).collect();
        table(["OPERATOR", "BY", "FROM", "SEEN", "ENDS", "ID"], &rows)
    });
    Ok(())
}

impl EndSession {
    async fn run(self, session: &mut Session, output: &Output) -> Result<(), Failure> {
        let (conn, id) = (&mut session.conn, self.id);
        if !operators::end_session(conn, &acting(), id).await? {
            return Err(Failure::Usage(format!("no session {id} is live")));
        }
        output.result(&json!({ "id": id, "ended": true }), || format!("{id} is ended."));
        Ok(())
    }
}
