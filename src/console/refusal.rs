//! Why a page is not shown.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

/// Why a page is not shown, in words for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{title}")]
pub struct Refusal {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) detail: String,
    /// The page to which the operator gets by signing in again, if that is what is missing.
    pub(super) sign_in_to: Option<String>,
    /// The form that was sent, to be sent again.
    pub(super) kept: Option<Box<KeptForm>>,
}

/// A form that came too late. Only the operator whose form it was gets it back, and none of its fields is a secret: what the console
/// takes as one, a code of a link, needs no session.
#[derive(Clone, Debug)]
pub struct KeptForm {
    pub(super) action: String,
    pub(super) fields: Vec<(String, String)>,
    /// The token with which it is sent again: of the session that is live, or of the one that has ended.
    pub(super) token: String,
}

impl Refusal {
    /// A refusal with this status.
    #[must_use]
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), sign_in_to: None, kept: None }
    }

    /// The same, with the way to the sign-in and from there to this page.
    #[must_use]
    pub fn signing_in_to(self, page: String) -> Self {
        Self { sign_in_to: Some(page), ..self }
    }

    /// There is no such page, or no such thing in this app.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is no such page", "The address leads nowhere.")
    }

    /// The request is not what the page's form sends.
    #[must_use]
    pub fn bad_form(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The form cannot be used", detail)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Without its body: `answer::finish` writes the page, because it knows the operator and the request's id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status)
    }
}
