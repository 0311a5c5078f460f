//! Changes of who the operators are, which four eyes hold if they give somebody more than reading.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{Operator, OperatorName, Role};
use super::{OperatorError, store};
use crate::approvals::{self, AskError, Gated, Kind, NewRequest, Permitted};
use crate::common::actor::Actor;
use crate::config::FourEyes;
use crate::database::Conn;
use crate::vault::Vault;

/// A new operator who waits for a second person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedOperator {
    /// The name.
    pub name: OperatorName,
    /// What they may do.
    pub role: Role,
    /// The user of the operating system whose commands are theirs.
    pub os_user: Option<String>,
}

/// A role that waits for a second person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedRole {
    /// The operator.
    pub name: OperatorName,
    /// The new role.
    pub role: Role,
}

async fn ask(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    needed: bool,
    (kind, request): (Kind, Value),
) -> Result<Gated<Permitted>, AskError> {
    let (text, described) = (request.to_string(), request);
    let new = NewRequest { app: None, kind, request: text, described, matched: None };
    approvals::ask(conn, vault, actor, needed, &new).await
}

/// Adds an operator, or records that this waits for a second person: an operator who may approve is never added by one
/// person, since that one could then approve as the other.
///
/// # Errors
/// [`OperatorError::Taken`]; [`OperatorError::Ask`]; the database's.
pub async fn ask_to_add(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    new: &RequestedOperator,
) -> Result<Gated<Operator>, OperatorError> {
    if store::find(conn, &new.name).await?.is_some() {
        return Err(OperatorError::Taken);
    }
    let needed = four_eyes.is_on() && new.role > Role::Auditor;
    match ask(conn, vault, actor, needed, (Kind::Operator, json!(new))).await? {
        Gated::Awaits(awaiting) => Ok(Gated::Awaits(awaiting)),
        Gated::Done(permitted) => {
            let os_user = new.os_user.as_deref();
            let added = store::add(conn, &permitted, actor, &new.name, new.role, os_user).await?;
            Ok(Gated::Done(added))
        }
    }
}

/// Gives an operator another role, or records that this waits for a second person. A lower role is given at once: taking
/// power away is what an emergency needs.
///
/// # Errors
/// [`OperatorError::Unknown`]; [`OperatorError::Ask`]; the database's.
pub async fn ask_to_change_role(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    new: &RequestedRole,
) -> Result<Gated<()>, OperatorError> {
    let mut tx = conn.begin().await?;
    // Under its lock, so that a role that is lowered meanwhile is not raised again by this.
    let before = store::lock(&mut tx, &new.name).await?;
    let before = before.ok_or_else(|| OperatorError::Unknown(new.name.clone()))?;
    let needed = four_eyes.is_on() && new.role > before;
    let asked = match ask(&mut tx, vault, actor, needed, (Kind::Role, json!(new))).await? {
        Gated::Awaits(awaiting) => Gated::Awaits(awaiting),
        Gated::Done(permitted) => {
            store::change_role(&mut tx, &permitted, actor, &new.name, new.role).await?;
            Gated::Done(())
        }
    };
    tx.commit().await?;
    Ok(asked)
}
