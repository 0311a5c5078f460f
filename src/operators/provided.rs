//! Operators whom an OpenID provider vouches for.

use super::model::{Operator, OperatorName, Role};
use super::{OperatorError, store};
use crate::approvals::Permitted;
use crate::common::actor::Actor;
use crate::common::ids::OperatorId;
use crate::database::Conn;

/// A person as a provider names them.
#[derive(Debug)]
pub struct Provided<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Who they are there, for good.
    pub subject: &'a str,
    /// The name that they get here if they are new.
    pub name: Option<OperatorName>,
    /// The role that their claims give.
    pub role: Role,
}

/// Returns the operator of a provider's subject, with the role of their claims; adds them if they are new. In the
/// transaction that `conn` is in. Returns `None` if they are disabled.
///
/// # Errors
/// [`OperatorError::Taken`] if they are new and their name is another's or none: a name alone never makes somebody an
/// operator who is here already.
pub async fn ensure(
    conn: &mut Conn,
    provided: &Provided<'_>,
    actor_of: impl Fn(&OperatorName) -> Actor,
) -> Result<Option<Operator>, OperatorError> {
    let known = sqlx::query_scalar!(
        r#"SELECT id AS "id: OperatorId" FROM operators
           WHERE oidc_issuer = $1 AND oidc_subject = $2 FOR UPDATE"#,
        provided.issuer,
        provided.subject,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = known else {
        let name = provided.name.as_ref().ok_or(OperatorError::Taken)?;
        let actor = actor_of(name);
        let added =
            store::add(conn, &Permitted::by_provider(), &actor, name, provided.role, None).await?;
        sqlx::query!(
            "UPDATE operators SET oidc_issuer = $2, oidc_subject = $3 WHERE id = $1",
            added.id.uuid(),
            provided.issuer,
            provided.subject,
        )
        .execute(conn)
        .await?;
        return Ok(Some(added));
    };
    let Some(mut operator) = store::enabled(conn, id).await? else { return Ok(None) };
    if operator.role != provided.role {
        let actor = actor_of(&operator.name);
        store::change_role(conn, &Permitted::by_provider(), &actor, &operator.name, provided.role)
            .await?;
        operator.role = provided.role;
    }
    Ok(Some(operator))
}
