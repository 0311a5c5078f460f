//! Refusals as pages, and the headers of every answer.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    X_FRAME_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse};
use maud::{Markup, html};
use tracing_actix_web::RequestId;

use super::layout::Page;
use super::parts::{form_token, sign_in};
pub use super::refusal::{KeptForm, Refusal};
use super::signed_in::SignedIn;
use crate::common::ids::{AppId, ApprovalId};
use crate::http::problem::Problem;

/// Nothing but the console's own files, no inline script or style, and no page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Returns the page of a refusal.
#[must_use]
pub fn refusal_page(req: &HttpRequest, refusal: &Refusal) -> HttpResponse {
    let Refusal { status, title, detail, sign_in_to, kept } = refusal;
    let request_id = req.extensions().get::<RequestId>().map(ToString::to_string);
    let signed_in = req.extensions().get::<SignedIn>().cloned();
    let content = html! {
        h1 { (title) }
        p { (detail) }
        @if let Some(id) = request_id {
            p.quiet {
                "Request " @if signed_in.is_some() { a href={ "/requests/" (id) } { code { (id) } } } @else { code { (id) } }
                ", as the log and the trail have it."
            }
        }
        @match (kept, sign_in_to) {
            (Some(kept), page) => (again(kept, page.as_deref())),
            (None, Some(page)) => p { a.button href=(sign_in(page)) { "Sign in again" } },
            (None, None) => {},
        }
        p { a href="/" { "To the start" } }
    };
    let signs_in = kept.is_some();
    let page = Page { title: refusal.title, content, signs_in, ..Page::of(signed_in.as_ref()) };
    page.with_status(*status)
}

/// Returns the steps by which a form that came too late is sent after all: first the sign-in, if it leads to a page. A sign-in that
/// keeps the session keeps the form good; another session shows the form once more before it takes it. Without a passkey it
/// happens in another tab.
fn again(kept: &KeptForm, sign_in_to: Option<&str>) -> Markup {
    html! {
        p { "What you filled in is kept on this page." }
        ol {
            @if let Some(page) = sign_in_to {
                li {
                    form.sign-in data-passkey data-then="again" hidden {
                        button { "Prove it with a passkey" }
                        p role="status" data-status {}
                    }
                    p { a href=(sign_in(page)) target="_blank" rel="noopener" { "Sign in again in a new tab" } ", then come back to this one." }
                }
            }
            li {
                form.decide method="post" action=(kept.action) data-again {
                    (form_token(&kept.token))
                    @for (name, value) in &kept.fields { input type="hidden" name=(name) value=(value); }
                    button.danger type="submit" { "Send it again" }
                }
            }
        }
    }
}

/// Returns a redirection to another page of the console by GET.
#[must_use]
pub fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, path)).finish()
}

/// Leads to the page of a request that waits for a second person, or did.
#[must_use]
pub fn to_approval(app: AppId, id: ApprovalId) -> HttpResponse {
    see_other(&format!("/apps/{app}/approvals/{id}"))
}

/// Gives every answer its headers, and refusals their pages. A handler may return a [`Problem`] of a use case or a
/// [`Refusal`].
pub async fn finish<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(req).await?.map_into_boxed_body();
    let refused = refusal_of(&response);
    let mut response = match refused {
        None => response,
        Some(refused) => {
            let page = refusal_page(response.request(), &refused);
            response.into_response(page)
        }
    };
    add_headers(response.headers_mut());
    Ok(response)
}

/// Returns the refusal of a response: a handler's, a use case's, or the framework's own.
fn refusal_of(response: &ServiceResponse<BoxBody>) -> Option<Refusal> {
    let status = response.status();
    let error = response.response().error();
    if let Some(refusal) = error.and_then(|error| error.as_error::<Refusal>()) {
        return Some(refusal.clone());
    }
    if let Some(problem) = error.and_then(|error| error.as_error::<Problem>()) {
        return Some(Refusal::new(status, problem.code().title(), problem.detail()));
    }
    let empty = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    let refused = status.is_client_error() || status.is_server_error();
    (refused && (empty || error.is_some())).then(|| match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Refusal::not_found(),
        StatusCode::BAD_REQUEST => Refusal::bad_form("A field is missing or not of its form."),
        status => Refusal::new(status, "The page cannot be shown", "The request was refused."),
    })
}

fn add_headers(headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_FRAME_OPTIONS, "DENY");
    // With `no-referrer`, browsers would send `Origin: null` with forms (Fetch §3.2).
    set(REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()");
}
