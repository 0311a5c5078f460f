//! The providers' own wires: an app that uses a provider's SDK moves here by changing the base URL and its credentials.
//! The access token that it gets is a proxy token.
//!
//! Here is what the wires share: a client of Strongroom's in place of the app's credentials, an exchange that is waited
//! for, calls and revocations by proxy token. `dapi` and `plaid` have the requests and answers.

pub mod dapi;
pub mod plaid;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, web};
use serde_json::Value;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::common::scope::Scope;
use crate::common::secret::SecretText;
use crate::common::trace::TraceContext;
use crate::connections::exchange::{Received, Refusal, Submission};
use crate::connections::model::{Connection, RevocationKind, Status};
use crate::connections::proxy_token::{Holder, ProxyToken};
use crate::connections::query::wait::{wait_for, wait_until};
use crate::connections::revocation::{Request as Revocation, RevokeOutcome};
use crate::connections::{exchange, proxy_token, revocation};
use crate::database::Pool;
use crate::http::body_pool::BodyPool;
use crate::http::concurrency::ConcurrencyPermit;
use crate::http::problem::Problem;
use crate::http::{caller, detached};
use crate::oauth::{self, Issuer, OAuthError};
use crate::providers::Provider;
use crate::relay::Context;
use crate::relay::body::Fields;
use crate::relay::routes::MAX_REQUEST;
use crate::vault::Vault;

/// The longest code or user secret, in bytes.
const LONGEST_SECRET: usize = 16 * 1024;
/// Optional header with the app's own name for the user.
const CLIENT_USER_ID: &str = "x-client-user-id";

/// What these routes work with, from the application's data.
struct Services {
    context: web::Data<Context>,
    issuer: web::Data<Issuer>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
    bodies: web::Data<BodyPool>,
}

/// Describes a wire's errors for the `OpenAPI` document: one response for each status with one of its kinds, as an
/// `example` of the wire's `schema`.
fn refusals<const N: usize>(
    schema: &str,
    each: [(&str, &str, &str); N],
    example: impl Fn(&str, &str) -> Value,
) -> BTreeMap<String, RefOr<Response>> {
    let response = |kind: &str, what: &str| {
        let schema = Some(Ref::from_schema_name(schema));
        let example = Some(example(kind, what));
        let content = ContentBuilder::new().schema(schema).example(example).build();
        let response = ResponseBuilder::new().description(format!("{what}: `{kind}` and others."));
        response.content("application/json", content).build().into()
    };
    each.iter().map(|(status, kind, what)| ((*status).to_owned(), response(kind, what))).collect()
}

/// A client's id and secret.
type Credentials = (String, SecretText);

impl Services {
    fn of(req: &HttpRequest) -> Result<Self, Problem> {
        let services = || {
            Some(Self {
                context: req.app_data::<web::Data<Context>>()?.clone(),
                issuer: req.app_data::<web::Data<Issuer>>()?.clone(),
                pool: req.app_data::<web::Data<Pool>>()?.clone(),
                vault: req.app_data::<web::Data<Vault>>()?.clone(),
                bodies: req.app_data::<web::Data<BodyPool>>()?.clone(),
            })
        };
        services().ok_or_else(|| Problem::internal("no relay"))
    }

    /// Reads the body, authenticates the client by what `credentials` finds in it, and checks its scopes.
    async fn receive<E: From<Problem> + From<OAuthError>>(
        self,
        req: &HttpRequest,
        payload: web::Payload,
        credentials: impl FnOnce(&Fields) -> Result<Credentials, E>,
    ) -> Result<WireRequest, E> {
        let from = caller::address(req);
        let body = self.bodies.read(req, from, payload, MAX_REQUEST).await?;
        let fields = Fields::read(&body)?;
        let (id, secret) = credentials(&fields)?;
        let Self { context, issuer, pool, vault, .. } = self;
        let client = oauth::client_by_secret(&issuer, &pool, &vault, &id, secret, from).await?;
        oauth::check_fence(&issuer, client.app)?;
        for scope in [Scope::ConnectionsWrite, Scope::DapiCall] {
            if !client.scopes.contains(scope) {
                return Err(Problem::insufficient_scope(scope).into());
            }
        }
        let permit = context.limit.take(client.app)?;
        drop(body);
        let (app, client) = (client.app, client.id);
        Ok(WireRequest { context, app, client, fields, _permit: permit })
    }
}

/// A request whose client is authenticated and authorized.
struct WireRequest {
    context: web::Data<Context>,
    app: AppId,
    client: Arc<str>,
    fields: Fields,
    _permit: ConcurrencyPermit,
}

/// How long an exchange whose answer broke off behind the token waits for the login to be named.
const WAIT_FOR_NAME: Duration = Duration::from_secs(3);

const fn named(connection: &Connection) -> bool {
    connection.login_id.is_some()
}

/// What became of an exchange.
enum Exchanged {
    /// The connection is active, and this stands for its token.
    Active(Box<Connection>, ProxyToken),
    /// The connection is not active, or not yet.
    NotActive(Box<Connection>),
    /// The connection was revoked or erased meanwhile.
    Revoked,
    /// The submission was refused.
    Refused(Refusal),
}

impl WireRequest {
    fn actor(&self, req: &HttpRequest, scope: Scope) -> (Actor, TraceContext) {
        caller::by_secret_for(req, Arc::clone(&self.client), scope)
    }

    /// Returns the app's own name for the user, if the request's header has it.
    fn named_user(req: &HttpRequest) -> Result<Option<String>, Problem> {
        let wrong = |what: &str| Problem::invalid_field("X-Client-User-ID", what);
        let Some(value) = req.headers().get(CLIENT_USER_ID) else { return Ok(None) };
        let name = str::from_utf8(value.as_bytes()).map_err(|_| wrong("is not UTF-8"))?;
        Ok(Some(name.to_owned()))
    }

    /// Finds the connection of a proxy token, if it is this provider's.
    async fn holder(
        &self,
        provider: Provider,
        proxy_token: &str,
    ) -> Result<Option<Holder>, Problem> {
        let context = &self.context.connections;
        let holder = proxy_token::holder(context, self.app, proxy_token).await?;
        Ok(holder.filter(|holder| holder.provider == provider))
    }

    /// Revokes the connection, which takes effect at once, and waits a little for the provider to confirm; the
    /// revocation is retried in the background. Returns `false` if there is nothing to revoke.
    async fn revoke(&self, actor: &Actor, id: ConnectionId) -> Result<bool, Problem> {
        let (context, app) = (&self.context.connections, self.app);
        let deadline = Instant::now() + context.pace.answer_within;
        let request = Revocation { kind: RevocationKind::Delink, reason: None, unconfirmed: None };
        let revoking = {
            let (context, actor) = (context.clone(), actor.clone());
            async move { revocation::revoke(&context, &actor, app, id, request).await }
        };
        match detached(&context.tasks, revoking).await?? {
            RevokeOutcome::Acknowledged => {}
            RevokeOutcome::NotActive | RevokeOutcome::Unknown => return Ok(false),
        }
        let done = |status| status != Status::Revoking;
        wait_until(context, app, id, deadline, done).await?;
        Ok(true)
    }

    /// Submits a code and waits for its exchange, as long as it may take: the SDKs do too, and do not retry.
    async fn exchange(
        &self,
        actor: &Actor,
        trace: TraceContext,
        submission: Submission,
    ) -> Result<Exchanged, Problem> {
        let (app, context) = (self.app, self.context.connections.clone());
        let settings = context.providers.settings(submission.provider);
        let deadline = Instant::now() + settings.exchange_timeout;
        let receiving = {
            let (context, actor) = (context.clone(), actor.clone());
            async move { exchange::receive(&context, &actor, &trace, submission).await }
        };
        let id = match detached(&context.tasks, receiving).await?? {
            Received::New(id, _) | Received::Repeated(id) => id,
            Received::Refused(refusal) => return Ok(Exchanged::Refused(refusal)),
        };
        let done = |status| status != Status::Pending;
        let mut found = wait_until(&context, app, id, deadline, done).await?;
        if found.as_ref().is_some_and(|found| found.status == Status::Active && !named(found)) {
            let deadline = Instant::now() + WAIT_FOR_NAME;
            let done = |found: &Connection| found.status != Status::Active || named(found);
            found = wait_for(&context, app, id, deadline, done).await?;
        }
        let Some(connection) = found else { return Ok(Exchanged::Revoked) };
        let connection = Box::new(connection);
        if connection.status != Status::Active {
            return Ok(Exchanged::NotActive(connection));
        }
        let proxy_token = proxy_token::of(&context, actor, app, id).await?;
        Ok(proxy_token.map_or(Exchanged::Revoked, |token| Exchanged::Active(connection, token)))
    }
}
