//! The pages on which a user links a bank: Connect's and Link's.
//!
//! A page is plain HTML with its own style sheet and script, embedded in the binary. The script requests the result
//! from the control API and posts it to the page that opened it, at the `origin` in the query and no other; the
//! content security policy allows only that origin to frame the page.
//!
//! May import: actix.

use actix_web::HttpResponse;
use actix_web::http::header;
use url::Url;

const REFUSED: &str = include_str!("pages/refused.html");

/// Returns what may frame a page whose query has this `origin`, as the content security policy spells it.
pub(super) fn framed_by(origin: Option<&str>) -> Result<String, String> {
    origin.map_or_else(|| Ok("'none'".to_owned()), |origin| exact_origin(origin).map(str::to_owned))
}

/// Returns the origin if it is spelled as a browser spells it: with a trailing slash or a path, `postMessage`
/// would silently miss its target.
fn exact_origin(text: &str) -> Result<&str, String> {
    let spelled = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .map(|url| url.origin().ascii_serialization());
    match spelled {
        Some(spelled) if spelled == text => Ok(text),
        Some(spelled) => Err(format!("write the origin as a browser does: {spelled}")),
        None => Err("the origin has to be a web page's, such as http://localhost:8080".to_owned()),
    }
}

pub(super) fn html(
    mut builder: actix_web::HttpResponseBuilder,
    framed_by: &str,
    page: String,
) -> HttpResponse {
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors {framed_by}"
    );
    builder
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Builds the page that says why another one does not open.
pub(super) fn refused(problem: &str) -> HttpResponse {
    let page = REFUSED.replace("{problem}", &escaped(problem));
    html(HttpResponse::BadRequest(), "'none'", page)
}

pub(super) fn asset(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_counts_only_as_browsers_spell_it() {
        for origin in ["http://localhost:8080", "https://app.example", "http://[::1]:3000"] {
            assert_eq!(exact_origin(origin), Ok(origin));
        }
        for other in [
            "*",
            "null",
            "",
            "app.example",
            "https://app.example/",
            "https://App.example",
            "https://app.example:443",
            "https://app.example/path",
            "javascript:alert(1)",
            "https://app.example; script-src *",
            "https://a.example https://b.example",
        ] {
            assert!(exact_origin(other).is_err(), "{other}");
        }
    }
}
