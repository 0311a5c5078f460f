//! Authorization: who calls and with which scope, decided before a handler runs.
//!
//! A handler names the scope that it needs in its signature: `Authorized<needs::TokensRead>`. So
//! the check cannot be forgotten, and the compiler, the `OpenAPI` document and the reader see the
//! same thing.

use std::marker::PhantomData;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use tracing_actix_web::RequestId;

use super::peer::TrustedProxies;
use super::problem::Problem;
use crate::common::actor::{Actor, Who};
use crate::common::ids::{AppId, SessionId, UserId};
use crate::common::scope::{Scope, Scopes};
use crate::common::trace::TraceContext;

/// An OAuth client, authenticated by its access token.
#[derive(Clone, Debug)]
pub struct Client {
    /// The app that it belongs to; it sees no other's data.
    pub app: AppId,
    /// The client's id.
    pub id: Arc<str>,
    /// The scopes of its token that it still has.
    pub scopes: Scopes,
    /// How many tokens it may reveal per minute, if that differs from the service's setting.
    pub reveals_per_minute: Option<u32>,
}

/// A browser, authenticated by its connect session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// The app that the session belongs to.
    pub app: AppId,
    /// The user that it was created for.
    pub user: UserId,
    /// The app's own name for that user.
    pub client_user_id: String,
}

/// The principal of a bearer token.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A client, on a backend.
    Client(Client),
    /// A connect session, in a browser.
    Session(Session),
}

/// The result of the authentication layer, stored in the request until an extractor takes it.
pub struct Authentication(pub Result<Principal, Problem>);

/// The schemes by which an access token is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The token alone suffices (RFC 6750).
    Bearer,
    /// A proof belongs to it (RFC 9449 §7.1).
    Dpop,
}

/// Returns the bearer token of a request (RFC 6750 §2.1), or `None` if it has no credentials.
///
/// # Errors
/// Fails if the header is repeated, of another scheme, or malformed.
pub fn bearer(req: &HttpRequest) -> Result<Option<&str>, Problem> {
    match presented(req)? {
        Some((Scheme::Bearer, token)) => Ok(Some(token)),
        Some((Scheme::Dpop, _)) => {
            Err(Problem::invalid_token("Bearer is the only scheme that is accepted here"))
        }
        None => Ok(None),
    }
}

/// Returns the access token of a request and the scheme by which it is presented, or `None` if it has no credentials.
///
/// # Errors
/// Fails if the header is repeated, of another scheme, or malformed.
pub fn presented(req: &HttpRequest) -> Result<Option<(Scheme, &str)>, Problem> {
    let mut values = req.headers().get_all(AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed_credentials());
    }
    // A header's value has no control characters, so that this is `to_str`, which looks at each byte of a token alone.
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(Problem::malformed_credentials)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    let scheme = if scheme.eq_ignore_ascii_case("bearer") {
        Scheme::Bearer
    } else if scheme.eq_ignore_ascii_case("dpop") {
        Scheme::Dpop
    } else {
        return Err(Problem::invalid_token("Bearer and DPoP are the schemes that are accepted"));
    };
    if token.is_empty() || token.contains(' ') {
        return Err(Problem::malformed_credentials());
    }
    Ok(Some((scheme, token)))
}

/// A scope that a handler needs, as a type.
pub trait Needs {
    /// The required scope.
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident),* $(,)?) => {
        /// The scopes as types, for signatures.
        pub mod needs {
            $(
                #[doc = concat!("The handler needs [`Scope::", stringify!($name), "`](crate::common::scope::Scope::", stringify!($name), ").")]
                #[derive(Debug)]
                pub struct $name;

                impl super::Needs for $name {
                    const SCOPE: super::Scope = super::Scope::$name;
                }
            )*
        }
    };
}
needs!(
    SessionsCreate,
    ConnectionsWrite,
    ConnectionsRead,
    ConnectionsRevoke,
    TokensRead,
    DapiCall,
    UpstreamsUse,
    UsersErase,
    Admin,
);

/// What the audit trail and the trace need to know about a request.
#[derive(Clone, Debug)]
struct RequestInfo {
    ip: Option<std::net::IpAddr>,
    request_id: Option<uuid::Uuid>,
    trace: TraceContext,
}

/// Returns the caller's address; behind a trusted proxy, the one that the proxy reports.
#[must_use]
pub fn address(req: &HttpRequest) -> Option<std::net::IpAddr> {
    let proxies = req.app_data::<web::Data<TrustedProxies>>();
    proxies.and_then(|proxies| proxies.caller(req))
}

/// Returns the actor of a client that authenticated by itself, with its secret or an assertion.
#[must_use]
pub fn by_secret(req: &HttpRequest, id: Arc<str>) -> Actor {
    RequestInfo::of(req).actor(Who::ClientBySecret(id))
}

/// Returns the actor of a client that authenticated with its secret for an operation of this scope,
/// and the request's trace.
#[must_use]
pub fn by_secret_for(req: &HttpRequest, id: Arc<str>, scope: Scope) -> (Actor, TraceContext) {
    let info = RequestInfo::of(req);
    let trace = info.trace.clone();
    (info.actor(Who::Client { id, scope }), trace)
}

impl RequestInfo {
    fn of(req: &HttpRequest) -> Self {
        let extensions = req.extensions();
        Self {
            ip: address(req),
            request_id: extensions.get::<RequestId>().map(|id| **id),
            trace: extensions.get().cloned().unwrap_or_else(TraceContext::fresh),
        }
    }

    fn actor(self, who: Who) -> Actor {
        Actor { who, ip: self.ip, request_id: self.request_id }
    }
}

fn principal(req: &HttpRequest) -> Result<Principal, Problem> {
    let found = req.extensions_mut().remove::<Authentication>();
    found.map_or_else(|| Err(Problem::no_credentials()), |authentication| authentication.0)
}

/// A client whose token has the scope that `N` names.
#[derive(Debug)]
pub struct Authorized<N> {
    /// The client.
    pub client: Client,
    /// The client as the actor in the audit trail.
    pub actor: Actor,
    /// The trace context of the request.
    pub trace: TraceContext,
    needs: PhantomData<N>,
}

impl<N: Needs> Authorized<N> {
    fn check(client: Client, info: RequestInfo) -> Result<Self, Problem> {
        if !client.scopes.contains(N::SCOPE) {
            return Err(Problem::insufficient_scope(N::SCOPE));
        }
        let trace = info.trace.clone();
        let actor = info.actor(Who::Client { id: client.id.clone(), scope: N::SCOPE });
        Ok(Self { client, actor, trace, needs: PhantomData })
    }
}

impl<N: Needs> FromRequest for Authorized<N> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(principal(req).and_then(|principal| match principal {
            Principal::Client(client) => Self::check(client, RequestInfo::of(req)),
            Principal::Session(_) => Err(Problem::insufficient_scope(N::SCOPE)),
        }))
    }
}

/// A browser with a connect session, or a client whose token has the scope that `N` names.
#[derive(Debug)]
pub enum SessionOr<N> {
    /// A connect session, in a browser.
    Session {
        /// The session.
        session: Session,
        /// The session as the actor in the audit trail.
        actor: Actor,
        /// The trace context of the request.
        trace: TraceContext,
    },
    /// A client, on a backend.
    Client(Authorized<N>),
}

impl<N> SessionOr<N> {
    /// The app; the request sees no other's data.
    #[must_use]
    pub fn app(&self) -> AppId {
        match self {
            Self::Session { session, .. } => session.app,
            Self::Client(authorized) => authorized.client.app,
        }
    }

    /// The session, if the caller has one.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Session { session, .. } => Some(session),
            Self::Client(_) => None,
        }
    }

    /// The actor for the audit trail.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        match self {
            Self::Session { actor, .. } => actor,
            Self::Client(authorized) => &authorized.actor,
        }
    }

    /// The trace context of the request.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        match self {
            Self::Session { trace, .. } => trace,
            Self::Client(authorized) => &authorized.trace,
        }
    }
}

impl<N: Needs> FromRequest for SessionOr<N> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(principal(req).and_then(|principal| {
            let info = RequestInfo::of(req);
            match principal {
                Principal::Client(client) => Authorized::check(client, info).map(Self::Client),
                Principal::Session(session) => {
                    let trace = info.trace.clone();
                    let actor = info.actor(Who::Session(session.id));
                    Ok(Self::Session { session, actor, trace })
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn bearer_of(headers: &[&str]) -> Result<Option<String>, String> {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header((AUTHORIZATION, *header));
        }
        let request = request.to_http_request();
        bearer(&request)
            .map(|token| token.map(str::to_owned))
            .map_err(|p| p.code().as_str().to_owned())
    }

    #[test]
    fn a_bearer_token_is_taken_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer_of(&["Bearer abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(bearer_of(&["bEARER  abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(bearer_of(&[]), Ok(None));
    }

    #[test]
    fn credentials_of_another_form_are_refused() {
        for header in ["Bearer", "Bearer ", "Bearer a b"] {
            assert_eq!(bearer_of(&[header]), Err("invalid_request".to_owned()), "{header}");
        }
        assert_eq!(bearer_of(&["Basic YTpi"]), Err("unauthorized".to_owned()));
        assert_eq!(bearer_of(&["Bearer a", "Bearer a"]), Err("invalid_request".to_owned()));
    }
}
