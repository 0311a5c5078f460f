//! Which operator a command is run by, for the trail.
//!
//! Who can run a command has the database's password and the master keys, so this is no barrier: it says who acts. It is
//! the operator named by `--as`, or the one whom the user of the operating system is mapped to; without either the trail
//! says `operator`.

use std::sync::OnceLock;

use super::Failure;
use crate::common::actor::Actor;
use crate::config::Environment;
use crate::database::Conn;
use crate::operators::{self, Operator, OperatorName};

/// The key under which the snapshot of the environment holds `--as`. No variable can have this name.
pub(super) const AS: &str = "--as";

/// Resolved once by a command, before it does anything.
static ACTING: OnceLock<Actor> = OnceLock::new();

/// Returns the operator who runs this command.
pub(super) fn acting() -> Actor {
    ACTING.get().cloned().unwrap_or_else(Actor::operator)
}

/// Finds out which operator runs this command.
///
/// # Errors
/// If `--as` names none, or the operator is disabled.
pub(super) async fn resolve(conn: &mut Conn, environment: &Environment) -> Result<(), Failure> {
    let operator = match environment.get(AS) {
        Some(name) => Some(named(conn, name).await?),
        None => match os_user() {
            Some(user) => operators::by_os_user(conn, &user).await?,
            None => None,
        },
    };
    let Some(operator) = operator else { return Ok(()) };
    if operator.disabled_at.is_some() {
        return Err(Failure::Usage(format!("the operator `{}` is disabled", operator.name)));
    }
    let _ = ACTING.set(Actor::operator_named(operator.name.as_str()));
    Ok(())
}

async fn named(conn: &mut Conn, name: &str) -> Result<Operator, Failure> {
    let name: OperatorName =
        name.parse().map_err(|error| Failure::Usage(format!("--as: {error}")))?;
    let found = operators::find(conn, &name).await?;
    found.ok_or_else(|| {
        Failure::Usage(format!(
            "--as: there is no operator named `{name}`; `strongroom operators list` shows them"
        ))
    })
}

/// Returns the name of this process's user.
fn os_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
    Some(user.name)
}
