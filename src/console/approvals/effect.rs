//! What a request would do now.

use serde::de::DeserializeOwned;

use crate::approvals::Kind;
use crate::common::ids::{AppId, UserId};
use crate::common::strict_json;
use crate::connections::bulk_revocation::{
    self, BulkRevocation, RequestedCancellation, RequestedRevocation,
};
use crate::connections::erasure::RequestedErasure;
use crate::connections::model::Connection;
use crate::connections::query::store::ViewQuery;
use crate::connections::revocation::RequestedInvalidation;
use crate::console::incident::{self, Preview};
use crate::console::users::{self, Goes};
use crate::database::{BatchQuery as _, Conn};
use crate::operators::{self, Operator, RequestedOperator, RequestedRole};

/// What a request would do now, with what it is done to as that stands.
pub enum Effect {
    /// Revokes connections.
    Revocation(RequestedRevocation, Preview),
    /// Gives up delinkings.
    Cancellation(RequestedCancellation, Option<Box<BulkRevocation>>),
    /// Ends a connection without its delinking.
    Invalidation(RequestedInvalidation, Option<Box<Connection>>),
    /// Erases a user: their id, their name and what goes, if they are still here.
    Erasure(UserId, Option<(String, Goes)>),
    /// Adds an operator.
    Operator(RequestedOperator),
    /// Gives an operator another role; with the operator as they are.
    Role(RequestedRole, Option<Operator>),
}

/// Reads a request as its feature wrote it.
///
/// # Errors
/// One that this release cannot read.
pub fn parse<T: DeserializeOwned>(request: &str) -> sqlx::Result<T> {
    strict_json::from_str(request).map_err(|_| sqlx::Error::Decode("a request".into()))
}

/// Looks at what a request would do now.
pub async fn look(conn: &mut Conn, app: AppId, kind: Kind, request: &str) -> sqlx::Result<Effect> {
    Ok(match kind {
        Kind::BulkRevocation => {
            let asked: RequestedRevocation = parse(request)?;
            let preview = incident::preview(conn, app, &asked.filter).await?;
            Effect::Revocation(asked, preview)
        }
        Kind::Cancellation => {
            let asked: RequestedCancellation = parse(request)?;
            let found = bulk_revocation::find(conn, app, asked.id).await?;
            Effect::Cancellation(asked, found.map(Box::new))
        }
        Kind::Invalidation => {
            let asked: RequestedInvalidation = parse(request)?;
            let found = ViewQuery::run(conn, &[ViewQuery { app, id: asked.id }]).await?;
            Effect::Invalidation(asked, found.into_iter().flatten().next().map(Box::new))
        }
        Kind::Erasure => {
            let RequestedErasure { user } = parse(request)?;
            Effect::Erasure(user, users::goes(conn, app, user).await?)
        }
        Kind::Operator => Effect::Operator(parse(request)?),
        Kind::Role => {
            let asked: RequestedRole = parse(request)?;
            let present = operators::find(conn, &asked.name).await?;
            Effect::Role(asked, present)
        }
    })
}
