//! `/v1/admin/approvals`: what became of a request that waits for a second person.
//!
//! Nothing here approves: that takes a signed-in session of the console.

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Approval, AskError, Awaiting, AwaitingApproval, DecideError, Refused};
use crate::common::ids::{AppId, ApprovalId};
use crate::database::{Conn, Pool};
use crate::http::body::{Id, UrlQuery};
use crate::http::caller::{Authorized, needs};
use crate::http::paging::PageQuery;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems};

type Admin = Authorized<needs::Admin>;

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::TooMany => {
                Self::new(ProblemCode::TooManyRequests, format!("{error}.")).retry_after(60)
            }
            AskError::NoPerson => Self::internal(error),
            AskError::Database(error) => error.into(),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            // What is another's to withdraw is not shown to be here.
            DecideError::Refused(Refused::Unknown | Refused::MayNot) => Self::not_found(),
            DecideError::Refused(refused) => {
                Self::new(ProblemCode::ApprovalEnded, format!("Nothing was done: {refused}."))
            }
            DecideError::Database(error) => error.into(),
        }
    }
}

/// Answers that a request was recorded and waits.
#[must_use]
pub fn awaits(approval: Awaiting) -> HttpResponse {
    let location = format!("/v1/admin/approvals/{}", approval.id);
    HttpResponse::Accepted().insert_header((LOCATION, location)).json(AwaitingApproval { approval })
}

/// One page of requests that wait for a second person, or did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalList {
    /// The requests, newest first.
    approvals: Vec<Approval>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// Lists the app's requests that wait for a second person, or did in the last ninety days.
#[utoipa::path(
    get, path = "/v1/admin/approvals", tag = "Administration", operation_id = "listApprovals",
    security(("bearer" = ["admin"])),
    params(PageQuery),
    responses(
        (status = 200, description = "One page", body = ApprovalList),
        Problems<ForClients>,
    )
)]
pub async fn list(
    caller: Admin,
    pool: web::Data<Pool>,
    query: UrlQuery<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let (cursor, limit) = query.0.page()?;
    let mut conn = pool.acquire().await?;
    let page = super::list(&mut conn, caller.client.app, false, cursor, limit).await?;
    let next_cursor = page.next.map(|cursor| cursor.to_string());
    Ok(HttpResponse::Ok().json(ApprovalList { approvals: page.items, next_cursor }))
}

/// Returns a request of the app, and none of the deployment's.
async fn of_app(conn: &mut Conn, app: AppId, id: ApprovalId) -> Result<Approval, Problem> {
    let found = super::find(conn, app, id).await?;
    found.filter(|approval| approval.app == Some(app)).ok_or_else(Problem::not_found)
}

/// One request that waits for a second person, or did. It is approved and rejected in the operators' console alone.
#[utoipa::path(
    get, path = "/v1/admin/approvals/{id}", tag = "Administration", operation_id = "getApproval",
    security(("bearer" = ["admin"])),
    params(("id" = ApprovalId, Path, description = "The approval")),
    responses(
        (status = 200, description = "The request and what became of it", body = Approval),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Admin,
    pool: web::Data<Pool>,
    id: Id<ApprovalId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = pool.acquire().await?;
    Ok(HttpResponse::Ok().json(of_app(&mut conn, caller.client.app, id.0).await?))
}

/// Withdraws a request that the same client made, while it waits.
#[utoipa::path(
    post, path = "/v1/admin/approvals/{id}/withdraw", tag = "Administration", operation_id = "withdrawApproval",
    security(("bearer" = ["admin"])),
    params(("id" = ApprovalId, Path, description = "The approval")),
    responses(
        (status = 200, description = "It is withdrawn", body = Approval),
        Problems<(ForClients, code::NotFound, code::ApprovalEnded)>,
    )
)]
pub async fn withdraw(
    caller: Admin,
    pool: web::Data<Pool>,
    id: Id<ApprovalId>,
) -> Result<HttpResponse, Problem> {
    let (mut conn, app) = (pool.acquire().await?, caller.client.app);
    super::withdraw(&mut conn, &caller.actor, app, id.0).await?;
    Ok(HttpResponse::Ok().json(of_app(&mut conn, app, id.0).await?))
}
