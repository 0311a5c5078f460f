//! Fetching a token: one request for the whole fleet, under a lease in the upstream's row.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::sync::watch;

use super::model::{Auth, Failure, Settings};
use super::single_flight::Flight;
use super::store::{self, TokenLease};
use super::wire::{self, Answer, TokenError};
use super::{ClientSecret, Context, UpstreamError, secret_aad, token_aad};
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, UpstreamId};
use crate::common::spans;
use crate::common::trace::TraceContext;
use crate::outbound::{NoAnswer, OutboundUrl, Unreadable, read_bounded, retry_after};
use crate::vault::{DataKey, Sealed};

/// The time limit of a token request, everything included.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// The duration of the lease: the request and a little for the commit.
const LEASE: Duration = Duration::from_secs(30);
/// The maximum size of a token response, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How often a replica polls for the end of another one's token request.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long it polls: an abandoned lease, and the request of the replica that claims the next.
const POLL_LIMIT: Duration = Duration::from_secs(55);
/// A token younger than this is not replaced because a call was refused: the refusal has another
/// reason then, and a caller must not be able to drive token requests.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Joins the flight that fetches this upstream's token, starting it if there is none. It continues
/// whatever happens to the caller. `refused` is the epoch of a token that the upstream's API
/// refused.
pub(super) fn begin(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    refused: Option<i32>,
) -> watch::Receiver<()> {
    let (done, flight) = context.single_flight.join(id);
    if let Some(flight) = flight {
        let task = run(context.clone(), app, id, refused, flight);
        drop(context.tasks.spawn(tracing::Instrument::in_current_span(task)));
    }
    done
}

async fn run(context: Context, app: AppId, id: UpstreamId, refused: Option<i32>, flight: Flight) {
    if let Err(error) = fetch_or_wait(&context, app, id, refused).await {
        tracing::warn!(cause = %error, upstream = %id, "a token could not be fetched");
    }
    drop(flight);
}

/// Fetches the token, or waits for the replica that does.
async fn fetch_or_wait(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    refused: Option<i32>,
) -> Result<(), UpstreamError> {
    let until = Instant::now() + POLL_LIMIT;
    let refused = refused.map(|epoch| (epoch, MIN_AGE));
    while Instant::now() < until {
        let mut conn = context.pool.acquire().await?;
        if let Some(lease) = store::claim_lease(&mut conn, app, id, LEASE, refused).await? {
            drop(conn);
            return fetch(context, app, id, &lease).await;
        }
        if !store::is_leased(&mut conn, app, id).await? {
            return Ok(());
        }
        drop(conn);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn fetch(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    lease: &TokenLease,
) -> Result<(), UpstreamError> {
    let key = context.vault.unwrap(&lease.key).await?;
    let started = Instant::now();
    let answer = send(context, app, id, lease, &key).await?;
    let outcome = match &answer {
        Answer::Token(..) => "token",
        Answer::Failed(error) => error.kind.as_str(),
    };
    context.metrics.token_request(outcome, started.elapsed());
    record_outcome(context, app, id, lease, &key, answer).await
}

/// Records the outcome, if the lease's epoch is still current.
async fn record_outcome(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    lease: &TokenLease,
    key: &DataKey,
    answer: Answer,
) -> Result<(), UpstreamError> {
    let actor = AuditActor::from(&Actor::service());
    let mut conn = context.pool.acquire().await?;
    let recorded = match answer {
        Answer::Token(token, lifetime) => {
            let sealed = Sealed::seal(&token, key, &token_aad(app, id))?;
            store::record_token(&mut conn, app, id, lease, &sealed, lifetime, &actor).await?
        }
        Answer::Failed(error) => {
            tracing::warn!(
                upstream = lease.name,
                kind = error.kind.as_str(),
                oauth_error = error.oauth_error,
                detail = error.detail,
                "a token request failed"
            );
            let failures = u32::try_from(lease.failures).unwrap_or(u32::MAX).saturating_add(1);
            let wait = error.kind.cool_down(failures, error.retry_after);
            store::record_failure(&mut conn, app, id, lease, &error, wait, &actor).await?
        }
    };
    if !recorded {
        tracing::info!(
            upstream = lease.name,
            "a token request's lease had passed on; it is dropped"
        );
    }
    Ok(())
}

/// Sends one token request. No transaction and no connection of a pool is held meanwhile.
async fn send(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    lease: &TokenLease,
    key: &DataKey,
) -> Result<Answer, UpstreamError> {
    let secret = lease.client_secret.open(key, &secret_aad(app, id))?;
    let Some(settings) = settings(context, lease) else {
        let detail = "the token URL may not be reached under this service's settings";
        return Ok(Answer::Failed(TokenError::new(Failure::NotAllowed, detail)));
    };
    let request = context.outbound.request(Method::POST, &settings.token_url, TIME_LIMIT);
    let request = request.header("traceparent", TraceContext::fresh().traceparent());
    let request = wire::complete(request, &settings, &secret).send();
    let url = settings.token_url.url();
    match spans::call("upstream token", &Method::POST, url, request).await {
        Ok(response) => Ok(receive(response, &secret).await),
        Err(error) => Ok(Answer::Failed(token_error(NoAnswer::from(&error)))),
    }
}

async fn receive(response: reqwest::Response, secret: &ClientSecret) -> Answer {
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    match read_bounded(response, MAX_ANSWER).await {
        Ok(body) => wire::read(status, retry_after, &body, secret),
        Err(what) => {
            let kind = match what {
                Unreadable::TooLarge | Unreadable::Encoding => Failure::Unusable,
                Unreadable::BrokenOff => Failure::Unreachable,
            };
            Answer::Failed(TokenError::new(kind, what.to_string()))
        }
    }
}

fn token_error(what: NoAnswer) -> TokenError {
    match what {
        NoAnswer::NotAllowed => {
            let detail = "the token URL's name stands for an address that is not public";
            TokenError::new(Failure::NotAllowed, detail)
        }
        NoAnswer::Timeout => TokenError::new(Failure::Timeout, "no answer in time"),
        NoAnswer::Unreachable(what) => TokenError::new(Failure::Unreachable, what),
    }
}

/// Returns the settings, or `None` if the service's present settings do not allow the URL.
fn settings(context: &Context, lease: &TokenLease) -> Option<Settings> {
    Some(Settings {
        token_url: OutboundUrl::parse(&lease.token_url, context.outbound.reach()).ok()?,
        client_id: lease.client_id.clone(),
        auth: Auth::parse(&lease.auth)?,
        scope: lease.scope.clone(),
        parameters: serde_json::from_str(&lease.parameters).ok()?,
        base_url: None,
    })
}
