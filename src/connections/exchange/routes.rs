//! `POST /v1/connections`: exchanges what Connect returned.

use std::time::Instant;

use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use crate::apps;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::exchange::{ClaimedAccounts, Received, Refusal, Submission};
use crate::connections::input::{
    Checked, about, client_user_id, location, login, login_of_another_user, of_another_provider,
    optional_name, required,
};
use crate::connections::model::{Connection, Failure, Status};
use crate::connections::query::wait;
use crate::connections::{Context, exchange, shape};
use crate::http::body::Body;
use crate::http::caller::{SessionOr, needs};
use crate::http::detached;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::providers::plaid::{Account, Institution};
use crate::providers::{AccessCode, Provider, UserSecret};

/// Connect's result as it came, with the user where a backend hands it in. Unknown fields are
/// ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkResult {
    /// Dapi: whether Connect succeeded.
    success: Option<bool>,
    /// Plaid: the single-use token that Link's `onSuccess` brings.
    #[serde(rename = "public_token")]
    public_token: Option<AccessCode>,
    /// Plaid: Link's metadata, of which `institution` and `accounts` are kept until Plaid has confirmed them.
    metadata: Option<serde_json::Value>,
    /// Dapi: the single-use code.
    access_code: Option<AccessCode>,
    /// Dapi: Connect's user secret.
    user_secret: Option<UserSecret>,
    /// Dapi: its name for the bank login.
    #[serde(rename = "connectionID")]
    login_id: Option<String>,
    /// Dapi: its name for the user.
    #[serde(rename = "userID")]
    user_id: Option<String>,
    /// Dapi: its name for the token.
    #[serde(rename = "tokenID")]
    dapi_token_id: Option<String>,
    /// The app's own name for the user. A session knows it already.
    #[serde(rename = "clientUserID")]
    client_user_id: Option<String>,
}

/// Why a result may be refused.
type Refused = (
    code::UserMismatch,
    code::NotFound,
    (code::CodeAlreadyReceived, code::ConnectionOfAnotherUser, code::CodeOrphaned),
    code::UserBeingErased,
    code::CodeExpired,
    (code::ConnectFailed, code::CodeRejected),
    code::TooManyRequests,
);

/// Hands in Connect's result: the code is exchanged and the token sealed.
///
/// The same code from the same user again gives the same connection, so this may be repeated freely.
/// A connect session may hand in up to ten different results; then it gets `too_many_requests`.
#[utoipa::path(
    post, path = "/v1/connections", tag = "Connections", operation_id = "createConnection",
    security(("connect_session" = []), ("bearer" = ["connections:write"])),
    request_body = shape::LinkResult,
    responses(
        (status = 201, description = "Exchanged: the connection is `active`", body = Connection, headers(("Location" = String, description = "The connection"))),
        (status = 200, description = "The same code again; the connection is `active`, `revoking`, `delinked` or `invalidated`", body = Connection),
        (status = 202, description = "Received and safe, but Dapi has given no conclusive answer yet; it goes on in the background", body = Connection, headers(("Location" = String, description = "The connection"), ("Retry-After" = u32, description = "Seconds"))),
        Problems<(ForClients, WithJson, Refused)>,
    )
)]
pub async fn create(
    caller: SessionOr<needs::ConnectionsWrite>,
    context: web::Data<Context>,
    body: Body<LinkResult>,
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + context.pace.answer_within;
    let app = caller.app();
    let submission = submission(&caller, &context, body.0).await?;
    let received = receive(&context, &caller, submission).await?;
    let (id, is_new) = match received {
        Received::New(id, exchange) => {
            if let Some(exchange) = exchange {
                let left = deadline.saturating_duration_since(Instant::now());
                // For any other outcome, and after the deadline, the row is read instead.
                if let Ok(Ok(Some(active))) = tokio::time::timeout(left, exchange).await {
                    return Ok(HttpResponse::Created().insert_header(location(id)).json(active));
                }
            }
            (id, true)
        }
        Received::Repeated(id) => (id, false),
        Received::Refused(refusal) => return Err(refused(refusal)),
    };
    answer(&context, app, id, is_new, deadline).await
}

/// Receives the submission in a task of its own: a browser that leaves the page right after sending the result
/// must not cancel it, or leave an intent behind whose exchange never runs.
async fn receive(
    context: &Context,
    caller: &SessionOr<needs::ConnectionsWrite>,
    submission: Submission,
) -> Result<Received, Problem> {
    let (context, actor, trace) = (context.clone(), caller.actor().clone(), caller.trace().clone());
    let tasks = context.tasks.clone();
    let receiving = async move { exchange::receive(&context, &actor, &trace, submission).await };
    Ok(detached(&tasks, receiving).await??)
}

/// Reads a result by its shape. One that has neither provider's code is told what its app's provider brings.
async fn submission(
    caller: &SessionOr<needs::ConnectionsWrite>,
    context: &Context,
    result: LinkResult,
) -> Result<Submission, Problem> {
    let provider = match (&result.public_token, &result.access_code) {
        (Some(_), None) => Provider::Plaid,
        (None, Some(_)) => Provider::Dapi,
        (Some(_), Some(_)) => {
            let what = "and accessCode are of two bank links; give one";
            return Err(Problem::invalid_field("public_token", what));
        }
        (None, None) => {
            let mut conn = context.pool.acquire().await?;
            apps::provider_of(&mut conn, caller.app()).await?.unwrap_or(Provider::Dapi)
        }
    };
    match provider {
        Provider::Dapi => connect_result(caller, result),
        Provider::Plaid => link_result(caller, result),
    }
}

/// Reads what Plaid's Link handed to `onSuccess`.
fn link_result(
    caller: &SessionOr<needs::ConnectionsWrite>,
    result: LinkResult,
) -> Result<Submission, Problem> {
    Ok(Submission {
        app: caller.app(),
        session: caller.session().map(|session| session.id),
        client_user_id: user(caller, result.client_user_id)?,
        code: AccessCode::checked("public_token", result.public_token)?,
        user_secret: None,
        provider: Provider::Plaid,
        login_id: None,
        claimed: result.metadata.as_ref().map(claimed).unwrap_or_default(),
        dapi_user_id: None,
        dapi_token_id: None,
    })
}

/// Reads the institution and accounts of Link's metadata. Nothing about it is required: it is the browser's claim, and
/// must not cost the token.
fn claimed(metadata: &serde_json::Value) -> ClaimedAccounts {
    const MOST: usize = 50;
    let text = |value: &serde_json::Value, name: &str| {
        value.get(name).and_then(|text| text.as_str()).map(str::to_owned)
    };
    let institution = metadata.get("institution").and_then(|institution| {
        let id = text(institution, "institution_id")?;
        Institution::tamed(&id, text(institution, "name").as_deref())
    });
    let account = |account: &serde_json::Value| {
        let field = |name| text(account, name);
        Account::tamed(
            &field("id")?,
            field("name").as_deref(),
            field("mask").as_deref(),
            field("type").as_deref(),
        )
    };
    let accounts = metadata.get("accounts").and_then(|accounts| accounts.as_array());
    let accounts =
        accounts.map(|accounts| accounts.iter().filter_map(account).take(MOST).collect());
    ClaimedAccounts { institution, accounts }
}

/// Reads what Dapi's Connect returned.
fn connect_result(
    caller: &SessionOr<needs::ConnectionsWrite>,
    result: LinkResult,
) -> Result<Submission, Problem> {
    let client_user_id = user(caller, result.client_user_id)?;
    if !required("success", result.success)? {
        let detail =
            "Connect's result says that it did not succeed, so there is nothing to exchange.";
        return Err(Problem::new(ProblemCode::ConnectFailed, detail));
    }
    Ok(Submission {
        app: caller.app(),
        session: caller.session().map(|session| session.id),
        client_user_id,
        code: AccessCode::checked("accessCode", result.access_code)?,
        user_secret: Some(UserSecret::checked("userSecret", result.user_secret)?),
        provider: Provider::Dapi,
        login_id: Some(login("connectionID", result.login_id)?),
        claimed: ClaimedAccounts::default(),
        dapi_user_id: optional_name("userID", result.user_id)?,
        dapi_token_id: optional_name("tokenID", result.dapi_token_id)?,
    })
}

/// Returns whose result this is: a session's own user, which a browser may repeat but not change; a backend has to
/// name the user.
fn user(
    caller: &SessionOr<needs::ConnectionsWrite>,
    named: Option<String>,
) -> Result<String, Problem> {
    match (caller.session(), named) {
        (Some(session), Some(named)) if named != session.client_user_id => {
            let detail = "clientUserID is not the one that the connect session was made for.";
            Err(Problem::new(ProblemCode::UserMismatch, detail))
        }
        (Some(session), _) => Ok(session.client_user_id.clone()),
        (None, named) => {
            let named = required("clientUserID", named)?;
            client_user_id(&named)?;
            Ok(named)
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::CodeOfAnotherUser => Problem::new(
            ProblemCode::CodeAlreadyReceived,
            "Each code belongs to the user who handed it in first.",
        ),
        Refusal::LoginOfAnotherUser => login_of_another_user(),
        Refusal::UserBeingErased => Problem::user_being_erased(),
        Refusal::SessionExhausted => Problem::new(
            ProblemCode::TooManyRequests,
            "The connect session has handed in ten results; make a new one.",
        ),
        Refusal::OfAnotherProvider(provider) => of_another_provider(provider),
        Refusal::Expired => Problem::new(
            ProblemCode::CodeExpired,
            "The code's window was closed before it came here.",
        ),
    }
}

/// Waits until the exchange ends or the deadline passes, and answers by the connection's status.
async fn answer(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    is_new: bool,
    deadline: Instant,
) -> Result<HttpResponse, Problem> {
    let done = |status| status != Status::Pending;
    let found = wait::wait_until(context, app, id, deadline, done).await?;
    // None: the user was erased meanwhile.
    let connection = found.ok_or_else(Problem::not_found)?;
    let mut answer = match connection.status {
        Status::Active if is_new => HttpResponse::Created(),
        Status::Active | Status::Revoking | Status::Delinked | Status::Invalidated => {
            HttpResponse::Ok()
        }
        Status::Pending => HttpResponse::Accepted(),
        Status::Rejected | Status::Expired | Status::Orphaned => return Err(failed(&connection)),
    };
    if connection.status == Status::Pending {
        answer.insert_header((RETRY_AFTER, "2"));
    }
    Ok(answer.insert_header(location(id)).json(connection))
}

fn failed(connection: &Connection) -> Problem {
    let failure = connection.failure.as_ref();
    let detail = failure.map(ToString::to_string).unwrap_or_default();
    let problem = match connection.status {
        Status::Expired => Problem::new(ProblemCode::CodeExpired, detail),
        Status::Orphaned => Problem::new(ProblemCode::CodeOrphaned, detail),
        _ if failure.is_some_and(|failure| failure.kind == Failure::OF_ANOTHER_USER) => {
            login_of_another_user()
        }
        _ => Problem::new(ProblemCode::CodeRejected, detail),
    };
    about(problem, connection)
}
