//! The operator of a request, as the guard found them.

use std::future::{Ready, ready};

use actix_web::http::Method;
use actix_web::http::header::COOKIE;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing_actix_web::RequestId;

use crate::common::actor::{Actor, Who};
use crate::common::ids::OperatorSessionId;
use crate::http::caller;
use crate::http::problem::Problem;
use crate::operators::{self, Role, SESSION_HOURS, SessionSecret};
use crate::vault::Vault;

/// The cookie of a session. The prefix makes browsers refuse it unless it is `Secure`, for this host alone and for every
/// path (RFC 6265bis §4.1.3.2), so that no other host of the domain can plant one.
const COOKIE_NAME: &str = "__Host-strongroom";

/// The signed-in operator. The guard has checked the role that the route needs.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session and its operator.
    pub session: operators::SignedIn,
    /// What every form of this session carries in the field `token`, and every request by script in the header
    /// `X-Console-Token`.
    pub form_token: String,
    /// The operator, with the request's address and id, for the trail.
    pub actor: Actor,
    /// The page at which they are, and to which a sign-in leads back; the start, for a form.
    pub page: String,
}

impl SignedIn {
    /// Returns what the guard found for a session.
    #[must_use]
    pub fn new(session: operators::SignedIn, vault: &Vault, req: &HttpRequest) -> Self {
        let token = form_token(vault, session.session);
        let (form_token, actor) = (token, actor(req, session.name.as_str()));
        let path = req.uri().path_and_query().filter(|_| req.method() == Method::GET);
        let page = path.map_or("/", |path| path.as_str()).to_owned();
        Self { session, form_token, actor, page }
    }

    /// Returns whether the operator has this role or a higher one: what a page shows.
    #[must_use]
    pub fn may(&self, role: Role) -> bool {
        self.session.role >= role
    }
}

impl FromRequest for SignedIn {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = req.extensions().get::<Self>().cloned();
        ready(found.ok_or_else(|| Problem::internal("a page without a session asks for one")))
    }
}

/// The token of a session's forms. It follows from the session's id by a key, so it ends with the session and is stored nowhere;
/// and it stays when the session gets a new secret, because its operator proved again who they are.
#[must_use]
pub fn form_token(vault: &Vault, session: OperatorSessionId) -> String {
    let hash = vault.secret_hashes().hash(&[b"operator form", session.uuid().as_bytes()]);
    URL_SAFE_NO_PAD.encode(hash.as_bytes())
}

/// Returns an operator as the actor of a request.
#[must_use]
pub fn actor(req: &HttpRequest, name: &str) -> Actor {
    let request_id = req.extensions().get::<RequestId>().map(|id| **id);
    Actor { who: Who::Operator(Some(name.into())), ip: caller::address(req), request_id }
}

/// Returns the value of the request's first cookie of this name.
#[must_use]
pub fn cookie_named(req: &HttpRequest, name: &str) -> Option<String> {
    let headers = req.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = headers.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.trim() == name)?;
    Some(value.trim().to_owned())
}

/// Returns the secret in the request's cookie.
#[must_use]
pub fn secret(req: &HttpRequest) -> Option<SessionSecret> {
    cookie_named(req, COOKIE_NAME).map(SessionSecret::new)
}

/// Returns the `Set-Cookie` of a session that begins. The browser keeps it beyond the session's end, so that a form that is sent
/// then is known as its operator's.
#[must_use]
pub fn cookie(secret: &SessionSecret) -> String {
    let seconds = 2 * SESSION_HOURS * 3600;
    format!("{COOKIE_NAME}={}; {ATTRIBUTES}; Max-Age={seconds}", secret.expose())
}

/// Returns the `Set-Cookie` that removes the cookie.
#[must_use]
pub fn no_cookie() -> String {
    format!("{COOKIE_NAME}=; {ATTRIBUTES}; Max-Age=0")
}

/// `Lax`: a link in a chat leads into the session, a form on another site does not.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";
