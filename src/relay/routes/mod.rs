//! The routes of the relay: `call` and `link` are Strongroom's own API, `wire` is the providers'.

pub mod call;
pub mod link;
pub mod wire;

use std::sync::Arc;

use actix_web::body::{BodyStream, BoxBody, MessageBody as _};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::json;

use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::common::trace::TraceContext;
use crate::connections::model::{Attention, Status};
use crate::connections::query;
use crate::connections::token_lease::CallRequest;
use crate::http::connection;
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::{Busy, Provider};
use crate::relay::body::Fields;
use crate::relay::call::{Answered, Body, RelayError, Request};
use crate::relay::paths::{LINK_TOKEN_CREATE, RelayPath};
use crate::relay::queue::LeaseError;
use crate::relay::{Context, link as links, paths, queue, tokenless};

/// The largest request body that is passed on to a provider, in bytes. It is held in memory until the answer comes.
const MAX_REQUEST: usize = 1024 * 1024;
/// Names the provider whose answer it is, so that a caller does not mistake the provider's 401 for Strongroom's.
const ANSWERED_BY: HeaderName = HeaderName::from_static("strongroom-upstream");

/// A call on a connection's behalf.
struct OnBehalf {
    actor: Actor,
    app: AppId,
    id: ConnectionId,
    path: &'static RelayPath,
    trace: TraceContext,
}

impl OnBehalf {
    /// Makes the call with the caller's fields. A call that begins a link is completed, and its link token remembered.
    async fn relay(
        self,
        req: &HttpRequest,
        context: &Context,
        mut fields: Fields,
    ) -> Result<Answered, Problem> {
        let Self { actor, app, id, path, trace } = self;
        let provider = path.provider;
        let client_user_id = if path.path == LINK_TOKEN_CREATE {
            let found = query::find(&context.connections, app, id).await?;
            let found = found.filter(|connection| connection.provider == provider);
            Some(found.ok_or_else(Problem::not_found)?.client_user_id)
        } else {
            None
        };
        if let Some(user) = &client_user_id {
            links::complete(context, app, &mut fields, user).await?;
        }
        let call = CallRequest {
            actor,
            app,
            id,
            provider,
            path: path.path,
            despite_attention: path.repairs,
            limit: context.limit(path),
        };
        let fields = fields.passed(provider, path.with_app_key);
        let answered = relay(req, context, Request { call, path, fields, trace }).await?;
        if let Some(user) = client_user_id {
            links::remember(context, app, &user, &answered).await?;
        }
        Ok(answered)
    }
}

/// Begins a link without a connection: calls Plaid with the app's credentials alone, and remembers for whom.
async fn begin_link(
    context: &Context,
    actor: Actor,
    app: AppId,
    client_user_id: &str,
    mut fields: Fields,
    trace: TraceContext,
) -> Result<Answered, Problem> {
    let provider = Provider::Plaid;
    let path = paths::find(provider, LINK_TOKEN_CREATE).ok_or_else(Problem::not_found)?;
    links::complete(context, app, &mut fields, client_user_id).await?;
    let fields = fields.passed(provider, path.with_app_key);
    let called = tokenless::call(context, actor, app, path, fields, trace).await;
    let called = called.map_err(|error| lease_problem(provider, error))?;
    let answered = called.map_err(|error| relay_problem(provider, error))?;
    links::remember(context, app, client_user_id, &answered).await?;
    Ok(answered)
}

/// Waits for the token's lease, makes the call and returns the provider's answer. A caller that closes the connection while it
/// waits loses its position; one that has only shut down its sending half keeps it.
async fn relay(
    req: &HttpRequest,
    context: &Context,
    request: Request,
) -> Result<Answered, Problem> {
    let provider = request.call.provider;
    let request = Arc::new(request);
    let asking = connection::asking(req);
    let begun = queue::begin(context, &request).await;
    let begun = begun.map_err(|error| lease_problem(provider, error))?;
    drop(asking);
    // From here on, the call runs to its end even if this request is dropped.
    let outcome = begun.await.map_err(Problem::internal)?;
    outcome.map_err(|error| relay_problem(provider, error))
}

fn answer(provider: Provider, answered: Answered) -> Result<HttpResponse, Problem> {
    let status = StatusCode::from_u16(answered.status).map_err(Problem::internal)?;
    let mut builder = HttpResponse::build(status);
    builder.insert_header((CONTENT_TYPE, "application/json"));
    builder.insert_header((ANSWERED_BY, provider.as_str()));
    if let Some(wait) = answered.retry_after {
        builder.insert_header((RETRY_AFTER, wait.as_secs()));
    }
    let body: BoxBody = match answered.body {
        Body::Whole(bytes) => bytes.boxed(),
        Body::Streamed(first, rest) => {
            let pieces = stream::unfold((Some(first), rest), |(first, mut rest)| async move {
                let piece = match first {
                    Some(first) => Ok(first),
                    None => rest.recv().await?,
                };
                Some((piece, (None, rest)))
            });
            BodyStream::new(pieces).boxed()
        }
    };
    Ok(builder.body(body))
}

fn lease_problem(provider: Provider, error: LeaseError) -> Problem {
    let name = provider.name();
    let too_many = |detail: String, seconds| {
        Problem::new(ProblemCode::TooManyRequests, detail).retry_after(seconds)
    };
    match error {
        LeaseError::Unknown => Problem::not_found(),
        LeaseError::NotActive(status) => not_active(status),
        LeaseError::NeedsAttention(attention) => needs_attention(provider, &attention),
        LeaseError::Full => {
            let detail = if provider.has_serial_calls() {
                format!(
                    "As many calls wait for this connection as may; {name} takes one at a time."
                )
            } else {
                "As many calls wait for this connection as may.".to_owned()
            };
            too_many(detail, 5)
        }
        LeaseError::TooLong => {
            let detail = "Calls on this connection take so long that this one could not begin.";
            too_many(detail.to_owned(), 5)
        }
        LeaseError::Gate(Busy { retry_after, held }) => {
            let detail = if held {
                format!("{name} asked to be left alone with calls of this app for a while.")
            } else {
                format!("As many calls to {name} are under way as may.")
            };
            too_many(detail, retry_after.as_secs().saturating_add(u64::from(held)).max(1))
        }
        LeaseError::Draining => Problem::unavailable("the replica is about to end"),
        LeaseError::Failed(error) => error.into(),
    }
}

fn not_active(status: Status) -> Problem {
    let detail = format!("The connection is {}.", status.as_str());
    Problem::new(ProblemCode::ConnectionNotActive, detail).with("connectionStatus", json!(status))
}

fn needs_attention(provider: Provider, attention: &Attention) -> Problem {
    let (kind, name) = (&attention.kind, provider.name());
    let detail = format!("{name} answered {kind}: the user has to link the login again.");
    let problem = Problem::new(ProblemCode::ConnectionNeedsAttention, detail);
    problem.with("attention", json!(attention))
}

fn relay_problem(provider: Provider, error: RelayError) -> Problem {
    let name = provider.name();
    let failed = |detail: String| Problem::new(ProblemCode::UpstreamFailed, detail);
    match error {
        RelayError::Timeout => {
            let detail = format!("{name} did not answer in time; what it did is not known.");
            Problem::new(ProblemCode::UpstreamTimeout, detail)
        }
        RelayError::Unreachable => failed(format!("{name} could not be reached, or broke off.")),
        RelayError::Unusable => {
            let what = "is not one of its own: no JSON object, or a redirect";
            failed(format!("{name}'s answer {what}."))
        }
        RelayError::TooLarge => failed(format!("{name}'s answer is larger than is passed back.")),
        RelayError::NoUserSecret => {
            let detail = "The connection came through Dapi's own wire, and no call has brought its userSecret yet.";
            Problem::new(ProblemCode::UserSecretMissing, detail)
        }
        RelayError::Failed(error) => error.into(),
    }
}
