//! Fetching a token: one request for the whole fleet, under a lease in the upstream's row.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::sync::watch;

use super::model::{Auth, Failure, Settings};
use super::single_flight::Flight;
use super::store::{self, Job};
use super::wire::{self, Answer, TokenError};
use super::{ClientSecret, Context, Failed, secret_aad, token_aad};
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, UpstreamId};
use crate::base::trace::TraceContext;
use crate::outbound::{NoAnswer, OutboundUrl, Unreadable, read_bounded, retry_after};
use crate::vault::{DataKey, KeyOwner, Sealed, WrappedKey};

/// How long a token request may take, everything included.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// How long the lease on it lives: the request and a little for the commit.
const LEASE: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How often a replica looks whether another one's token request is over.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long it looks: a lease that nobody gives back, and the request of whoever takes the next.
const PATIENCE: Duration = Duration::from_secs(55);
/// A token younger than this is not fetched anew because a call was refused: the refusal has another
/// reason then, and a caller must not be able to drive token requests.
const LEAST_AGE: Duration = Duration::from_secs(5);

/// The flight that will bring this upstream a token, begun where none is under way. It goes on whatever
/// becomes of the caller.
pub(super) fn begin(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    refused: Option<i32>,
) -> watch::Receiver<()> {
    let (landing, flight) = context.single_flight.board(id);
    if let Some(flight) = flight {
        let task = fly(context.clone(), app, id, refused, flight);
        drop(context.tasks.spawn(tracing::Instrument::in_current_span(task)));
    }
    landing
}

async fn fly(context: Context, app: AppId, id: UpstreamId, refused: Option<i32>, flight: Flight) {
    if let Err(error) = fetch_or_wait(&context, app, id, refused).await {
        tracing::warn!(cause = %error, upstream = %id, "a token could not be fetched");
    }
    drop(flight);
}

/// Fetches the token, or waits until the replica that does is done.
async fn fetch_or_wait(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    refused: Option<i32>,
) -> Result<(), Failed> {
    let until = Instant::now() + PATIENCE;
    let refused = refused.map(|epoch| (epoch, LEAST_AGE));
    while Instant::now() < until {
        let mut conn = context.pool.acquire().await?;
        if let Some(job) = store::lease(&mut conn, app, id, LEASE, refused).await? {
            drop(conn);
            return fetch(context, app, id, &job).await;
        }
        if !store::is_leased(&mut conn, app, id).await? {
            return Ok(());
        }
        drop(conn);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

async fn fetch(context: &Context, app: AppId, id: UpstreamId, job: &Job) -> Result<(), Failed> {
    let key = context.vault.unwrap(&WrappedKey {
        id: job.key_id,
        owner: KeyOwner::App(app),
        master_key_id: job.master_key_id.clone(),
        wrapped: job.wrapped.clone(),
    })?;
    let started = Instant::now();
    let answer = ask(context, app, id, job, &key).await?;
    let outcome = match &answer {
        Answer::Token(..) => "token",
        Answer::Failed(trouble) => trouble.kind.as_str(),
    };
    context.metrics.token_request(outcome, started.elapsed());
    conclude(context, app, id, job, &key, answer).await
}

/// Writes what came of it, under the lease's epoch.
async fn conclude(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    job: &Job,
    key: &DataKey,
    answer: Answer,
) -> Result<(), Failed> {
    let actor = AuditActor::from(&Actor::service());
    let mut conn = context.pool.acquire().await?;
    let kept = match answer {
        Answer::Token(token, lifetime) => {
            let sealed = Sealed::seal(&token, key, &token_aad(app, id))?;
            store::conclude_with_token(&mut conn, app, id, job, &sealed, lifetime, &actor).await?
        }
        Answer::Failed(trouble) => {
            tracing::warn!(
                upstream = job.name,
                kind = trouble.kind.as_str(),
                oauth_error = trouble.oauth_error,
                detail = trouble.detail,
                "a token request failed"
            );
            let failures = u32::try_from(job.failures).unwrap_or(u32::MAX).saturating_add(1);
            let wait = trouble.kind.cool_down(failures, trouble.retry_after);
            store::conclude_with_trouble(&mut conn, app, id, job, &trouble, wait, &actor).await?
        }
    };
    if !kept {
        tracing::info!(upstream = job.name, "a token request's lease had passed on; it is dropped");
    }
    Ok(())
}

/// One token request, with everything that bounds it. No transaction and no connection is held.
async fn ask(
    context: &Context,
    app: AppId,
    id: UpstreamId,
    job: &Job,
    key: &DataKey,
) -> Result<Answer, Failed> {
    let secret = job.client_secret.open(key, &secret_aad(app, id))?;
    let Some(settings) = settings(context, job) else {
        let detail = "the token URL may not be reached under this service's settings";
        return Ok(Answer::Failed(TokenError::new(Failure::NotAllowed, detail)));
    };
    let request = context.outbound.request(Method::POST, &settings.token_url, TIME_LIMIT);
    let request = request.header("traceparent", TraceContext::fresh().traceparent());
    match wire::complete(request, &settings, &secret).send().await {
        Ok(response) => Ok(receive(response, &secret).await),
        Err(error) => Ok(Answer::Failed(no_answer(NoAnswer::from(&error)))),
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

fn no_answer(what: NoAnswer) -> TokenError {
    match what {
        NoAnswer::NotAllowed => {
            let detail = "the token URL's name stands for an address that is not public";
            TokenError::new(Failure::NotAllowed, detail)
        }
        NoAnswer::Timeout => TokenError::new(Failure::Timeout, "no answer in time"),
        NoAnswer::Unreachable(what) => TokenError::new(Failure::Unreachable, what),
    }
}

/// The settings as today's settings of the service allow them.
fn settings(context: &Context, job: &Job) -> Option<Settings> {
    Some(Settings {
        token_url: OutboundUrl::parse(&job.token_url, context.outbound.reach()).ok()?,
        client_id: job.client_id.clone(),
        auth: Auth::parse(&job.auth)?,
        scope: job.scope.clone(),
        parameters: serde_json::from_str(&job.parameters).ok()?,
        base_url: None,
    })
}
