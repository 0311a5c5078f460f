//! `DELETE /v1/users/{clientUserID}` and `GET /v1/users/erasures/{id}`.

use std::time::{Duration, Instant};

use actix_web::http::header::{LOCATION, RETRY_AFTER};
use actix_web::{HttpResponse, web};
use utoipa::ToSchema;

use crate::approvals::routes::awaits;
use crate::approvals::{AwaitingApproval, Gated};
use crate::common::ids::{AppId, ErasureId};
use crate::connections::Context;
use crate::connections::erasure::{self, Receipt};
use crate::database::Fault;
use crate::http::body::Id;
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems};
use crate::oauth::Issuer;
use crate::users::{self, ClientUserID};

type Erase = Authorized<needs::UsersErase>;

/// Interval at which a waiting request checks whether Dapi has confirmed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What became of the request.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub enum ErasureAccepted {
    /// It has begun.
    Begun(Receipt),
    /// It waits for a second person.
    Waits(AwaitingApproval),
}

/// Erases a user. When this is answered, none of the user's connections is usable any more; once Dapi has confirmed,
/// everything is destroyed but the audit trail, which holds only a random id of the user.
///
/// Repeatable: the same erasure is answered, for thirty days after its end. A user whom the app never named is
/// `not_found`.
#[utoipa::path(
    delete, path = "/v1/users/{clientUserID}", tag = "Users", operation_id = "eraseUser",
    security(("bearer" = ["users:erase"])),
    params(("clientUserID" = ClientUserID, Path, description = "The app's own name for the user")),
    responses(
        (status = 200, description = "Erased, with the receipt", body = Receipt),
        (status = 202, description = "Pending: `GET` the `Location` for the receipt. Or, with four eyes on, nothing was done and it waits for a second person: the answer is `{\"approval\": …}`", body = ErasureAccepted, headers(("Location" = String, description = "The erasure, or the approval"), ("Retry-After" = u32, description = "Seconds; not with an approval"))),
        Problems<(ForClients, code::NotFound, code::TooManyRequests)>,
    )
)]
pub async fn erase(
    caller: Erase,
    context: web::Data<Context>,
    issuer: web::Data<Issuer>,
    user: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + context.pace.answer_within;
    users::check_client_user_id(&user).map_err(|_| Problem::not_found())?;
    let app = caller.client.app;
    // Detached: a request that arrived whole is carried out even if its caller disconnects.
    let beginning = {
        let (context, actor, user) = (context.clone(), caller.actor.clone(), user.into_inner());
        async move {
            let mut conn = context.pool.acquire().await?;
            let (vault, four_eyes) = (&context.vault, context.four_eyes);
            erasure::begin(&mut conn, vault, four_eyes, &actor, app, &user).await
        }
    };
    let begun = match detached(&context.tasks, beginning).await?? {
        Gated::Done(begun) => begun,
        Gated::Awaits(approval) => return Ok(awaits(approval)),
    };
    let id = begun.ok_or_else(Problem::not_found)?;
    context.wake.notify_one();
    let found = wait_for_end(&context, app, id, deadline).await?;
    answer(&issuer, &found)
}

/// Advances an erasure until it ends, until `deadline`, or until this replica is about to end. Returns it as it then is.
async fn wait_for_end(
    context: &Context,
    app: AppId,
    id: ErasureId,
    deadline: Instant,
) -> Result<erasure::Erasure, Problem> {
    loop {
        let mut conn = context.pool.acquire().await?;
        // It has begun: a lock that is in the way now is left to the next attempt, here or in the background.
        if let Err(error) = erasure::conclude(&mut conn, id).await
            && Fault::of(&error) != Fault::Contention
        {
            return Err(error.into());
        }
        let found = erasure::find(&mut conn, app, id).await?.ok_or_else(Problem::not_found)?;
        drop(conn);
        let left = deadline.saturating_duration_since(Instant::now());
        if found.erased.is_some() || left.is_zero() || context.changes.is_closed() {
            return Ok(found);
        }
        tokio::time::sleep(POLL_INTERVAL.min(left)).await;
    }
}

fn answer(issuer: &Issuer, erasure: &erasure::Erasure) -> Result<HttpResponse, Problem> {
    let receipt = Receipt::of(issuer, erasure);
    let receipt = receipt.ok_or_else(|| Problem::internal("no key signs receipts"))?;
    if erasure.erased.is_some() {
        return Ok(HttpResponse::Ok().json(receipt));
    }
    Ok(HttpResponse::Accepted()
        .insert_header((LOCATION, format!("/v1/users/erasures/{}", erasure.id)))
        .insert_header((RETRY_AFTER, 5))
        .json(receipt))
}

/// An erasure, with its receipt once it has ended.
#[utoipa::path(
    get, path = "/v1/users/erasures/{id}", tag = "Users", operation_id = "getErasure",
    security(("bearer" = ["users:erase"])),
    params(("id" = ErasureId, Path, description = "The erasure")),
    responses(
        (status = 200, description = "Erased, with the receipt", body = Receipt),
        (status = 202, description = "Pending", body = Receipt, headers(("Location" = String, description = "The erasure"), ("Retry-After" = u32, description = "Seconds"))),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Erase,
    context: web::Data<Context>,
    issuer: web::Data<Issuer>,
    id: Id<ErasureId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = erasure::find(&mut conn, caller.client.app, id.0).await?;
    answer(&issuer, &found.ok_or_else(Problem::not_found)?)
}
