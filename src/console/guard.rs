//! What stands before every route: the table's row, the session, the role, the origin, the form's token.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::ORIGIN;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest as _, HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use url::form_urlencoded;

use super::answer::{KeptForm, Refusal, refusal_page, see_other};
use super::context::Console;
use super::signed_in::{self, SignedIn};
use super::table::{self, ConsoleRoute, Method, Needs};
use crate::http::body::{MAX_BODY, read_passed};
use crate::http::problem::Problem;
use crate::operators::{self, Role};

/// The header by which scripts send what forms have in the field `token`.
const TOKEN_HEADER: &str = "x-console-token";
/// What browsers say of a form (WHATWG HTML §4.10.21.7); scripts send JSON.
const FORM: &str = "application/x-www-form-urlencoded";
/// The field of a form that has the session's token.
const TOKEN_FIELD: &str = "token";

/// The answer to a request that is not let through.
/// In a box, because it is large beside what is let through.
struct Answer(Box<HttpResponse>);

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Self(Box::new(response))
    }
}

/// Lets a request through to its route, or answers it.
pub async fn guard<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let pattern = req.match_pattern();
    let route = pattern.and_then(|pattern| table::find(req.method(), &pattern));
    let (http, mut payload) = req.into_parts();
    let admitted = match route {
        Some(route) => admit(&http, &mut payload, route).await,
        None => Err(refuse(&http, &Refusal::not_found())),
    };
    match admitted {
        Ok(body) => {
            let payload = body.map_or(payload, with_body);
            let req = ServiceRequest::from_parts(http, payload);
            Ok(next.call(req).await?.map_into_boxed_body())
        }
        Err(answer) => Ok(ServiceResponse::new(http, *answer.0)),
    }
}

/// Checks a request against its row; returns the body that it had to read for that.
async fn admit(
    req: &HttpRequest,
    payload: &mut Payload,
    route: &ConsoleRoute,
) -> Result<Option<Bytes>, Answer> {
    let Some(console) = req.app_data::<web::Data<Console>>() else {
        return Err(HttpResponse::InternalServerError().finish().into());
    };
    if route.method == Method::Post {
        check_origin(req, console)?;
    }
    let signed_in = session(req, console, route).await.map_err(failed)?;
    if let Some(signed_in) = &signed_in {
        req.extensions_mut().insert(signed_in.clone());
    }
    if let Needs::Role(role) | Needs::Fresh(role) = route.needs {
        let Some(signed_in) = &signed_in else {
            return Err(ask_to_sign_in(req, payload, console, route).await);
        };
        check_role(req, signed_in, role)?;
    }
    let body = match (route.method, &signed_in) {
        (Method::Post, Some(signed_in)) => {
            let body = read(req, payload).await?;
            check_token(req, &body, console, route, signed_in).await?;
            Some(body)
        }
        _ => None,
    };
    if let (Needs::Fresh(_), Some(signed_in)) = (route.needs, &signed_in) {
        check_fresh(req, route, signed_in, body.as_deref())?;
    }
    Ok(body)
}

/// Returns the session of the request's cookie, if it is live.
async fn session(
    req: &HttpRequest,
    console: &Console,
    route: &ConsoleRoute,
) -> Result<Option<SignedIn>, Problem> {
    let Some(secret) = signed_in::secret(req) else { return Ok(None) };
    let mut conn = console.pool.acquire().await?;
    let found = operators::find_session(&mut conn, &console.vault, &secret, route.is_asked).await?;
    Ok(found.map(|session| SignedIn::new(session, &console.vault, req)))
}

/// Browsers send `Origin` with every POST; one that is missing or another's is no form of the console.
fn check_origin(req: &HttpRequest, console: &Console) -> Result<(), Answer> {
    let mut origins = req.headers().get_all(ORIGIN);
    let ours = origins.next().is_some_and(|it| it.as_bytes() == console.origin.as_bytes());
    if ours && origins.next().is_none() {
        return Ok(());
    }
    let detail = format!("It has to come from a page of {}.", console.origin);
    Err(refuse(
        req,
        &Refusal::new(StatusCode::FORBIDDEN, "The request comes from elsewhere", detail),
    ))
}

fn check_role(req: &HttpRequest, signed_in: &SignedIn, role: Role) -> Result<(), Answer> {
    if signed_in.may(role) {
        return Ok(());
    }
    let detail = format!(
        "It needs the role {}; yours is {}.",
        role.as_str(),
        signed_in.session.role.as_str()
    );
    Err(refuse(req, &Refusal::new(StatusCode::FORBIDDEN, "Your role does not allow this", detail)))
}

async fn ask_to_sign_in(
    req: &HttpRequest,
    payload: &mut Payload,
    console: &Console,
    route: &ConsoleRoute,
) -> Answer {
    if route.method == Method::Get {
        return to_sign_in(req);
    }
    let form = match form_of_ended_session(req, payload, console).await {
        Ok(form) => form,
        Err(answer) => return answer,
    };
    let next = if form.is_some() { "." } else { "; sign in and fill the form again." };
    let detail = format!("Nothing was done. The session has ended{next}");
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "You are not signed in", detail);
    let refusal = refusal.signing_in_to(table::page_of(route, req.path()));
    refuse(req, &Refusal { kept: form, ..refusal })
}

/// Returns the form of a request if it is of the session that the cookie names and that is live no more: whoever sent it was
/// signed in when they opened it.
async fn form_of_ended_session(
    req: &HttpRequest,
    payload: &mut Payload,
    console: &Console,
) -> Result<Option<Box<KeptForm>>, Answer> {
    let Some(secret) = signed_in::secret(req) else { return Ok(None) };
    let mut conn = console.pool.acquire().await.map_err(problem)?;
    let ended = operators::find_ended(&mut conn, &console.vault, &secret).await.map_err(problem)?;
    drop(conn);
    let Some(session) = ended else { return Ok(None) };
    let body = read(req, payload).await?;
    let token = signed_in::form_token(&console.vault, session);
    let is_its_own = Given::with(req, &body).is(&token);
    Ok(if is_its_own { kept(req, &body, token) } else { None })
}

/// A form that comes too late is kept: the page has its fields, and sends them again after the proof.
fn check_fresh(
    req: &HttpRequest,
    route: &ConsoleRoute,
    signed_in: &SignedIn,
    body: Option<&[u8]>,
) -> Result<(), Answer> {
    if signed_in.session.fresh {
        return Ok(());
    }
    Err(match route.method {
        Method::Get => to_sign_in(req),
        Method::Post => {
            let detail = "Nothing was done. It cannot be undone, so it needs a sign-in that is no older than five minutes.";
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "Prove again that it is you", detail);
            let refusal = refusal.signing_in_to(table::page_of(route, req.path()));
            let token = signed_in.form_token.clone();
            let form = body.and_then(|body| kept(req, body, token));
            refuse(req, &Refusal { kept: form, ..refusal })
        }
    })
}

/// Returns the form of a request, to be sent again with this token; `None` if a script sent something else.
fn kept(req: &HttpRequest, body: &[u8], token: String) -> Option<Box<KeptForm>> {
    let fields = form_urlencoded::parse(body).into_owned();
    let fields = fields.filter(|(name, _)| name != TOKEN_FIELD).collect();
    let is_form = req.content_type() == FORM;
    let action = req.path().to_owned();
    is_form.then(|| Box::new(KeptForm { action, fields, token }))
}

/// Leads to the sign-in and from there back.
fn to_sign_in(req: &HttpRequest) -> Answer {
    let path = req.uri().path_and_query().map_or("/", |path| path.as_str());
    let query: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("to", path).finish();
    see_other(&format!("/sign-in?{query}")).into()
}

async fn read(req: &HttpRequest, payload: &mut Payload) -> Result<Bytes, Answer> {
    let stream = web::Payload::from_request(req, payload).await.map_err(failed)?;
    read_passed(req, stream, MAX_BODY).await.map_err(failed)
}

/// The token that a form or a script's request came with, if it did.
struct Given(Option<String>);

impl Given {
    fn with(req: &HttpRequest, body: &[u8]) -> Self {
        let header = req.headers().get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
        let field = || form_urlencoded::parse(body).find(|(name, _)| name == TOKEN_FIELD);
        Self(header.map(str::to_owned).or_else(|| field().map(|(_, value)| value.into_owned())))
    }

    fn is(&self, token: &str) -> bool {
        let same = |given: &String| given.as_bytes().ct_eq(token.as_bytes()).into();
        self.0.as_ref().is_some_and(same)
    }
}

/// Checks the token of a form or of a script's request. A form of another session of the same operator is kept: they have signed in
/// anew since they opened it.
async fn check_token(
    req: &HttpRequest,
    body: &[u8],
    console: &Console,
    route: &ConsoleRoute,
    signed_in: &SignedIn,
) -> Result<(), Answer> {
    let given = Given::with(req, body);
    if given.is(&signed_in.form_token) {
        return Ok(());
    }
    // What begins a session has a secret among its fields.
    if route.needs != Needs::Nothing {
        let mut conn = console.pool.acquire().await.map_err(problem)?;
        let operator = signed_in.session.operator;
        let own = operators::recent_sessions(&mut conn, operator).await.map_err(problem)?;
        let mut tokens = own.iter().map(|id| signed_in::form_token(&console.vault, *id));
        if tokens.any(|token| given.is(&token)) {
            let detail = "Nothing was done. You have signed in since you opened the form.";
            let title = "Is this still what you want?";
            let refusal = Refusal::new(StatusCode::FORBIDDEN, title, detail);
            let form = kept(req, body, signed_in.form_token.clone());
            return Err(refuse(req, &Refusal { kept: form, ..refusal }));
        }
    }
    let detail = "Nothing was done. The form is not of this session; open its page anew.";
    Err(refuse(
        req,
        &Refusal::new(StatusCode::FORBIDDEN, "The form is not of this session", detail),
    ))
}

fn problem(error: impl Into<Problem>) -> Answer {
    failed(error.into())
}

fn refuse(req: &HttpRequest, refusal: &Refusal) -> Answer {
    refusal_page(req, refusal).into()
}

fn failed(error: impl Into<Error>) -> Answer {
    HttpResponse::from_error(error).into()
}

/// Returns a payload that has been read already.
fn with_body(body: Bytes) -> Payload {
    let (_, mut payload) = actix_http::h1::Payload::create(true);
    payload.unread_data(body);
    Payload::from(payload)
}
