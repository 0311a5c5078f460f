//! Connect's page: what a user sees between "connect your bank" and the access code.
//!
//! The page is plain HTML with its own style sheet and script, embedded in the binary. The script requests the
//! result from the control API and posts it to the page that opened it, at the `origin` in the query and no
//! other; the content security policy allows only that origin to frame the page.
//!
//! May import: actix.

use actix_web::http::header;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use url::Url;

const PAGE: &str = include_str!("pages/connect.html");
const STYLE: &str = include_str!("pages/connect.css");
const SCRIPT: &str = include_str!("pages/connect.js");
const REFUSED: &str = include_str!("pages/refused.html");

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        web::scope("/connect")
            .route("", web::get().to(page))
            .route("/connect.css", web::get().to(style))
            .route("/connect.js", web::get().to(script)),
    );
}

/// The page's query. The script reads the same one; it is checked here because the script could only fail.
#[derive(Debug, Deserialize)]
struct Query {
    origin: Option<String>,
    #[serde(rename = "codeLifetime")]
    code_lifetime: Option<String>,
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

async fn page(request: HttpRequest) -> HttpResponse {
    match read(&request) {
        Ok(origin) => html(HttpResponse::Ok(), &origin, PAGE.to_owned()),
        Err(problem) => {
            let page = REFUSED.replace("{problem}", &escaped(&problem));
            html(HttpResponse::BadRequest(), "'none'", page)
        }
    }
}

/// Returns the origin that may frame the page.
fn read(request: &HttpRequest) -> Result<String, String> {
    let query = web::Query::<Query>::from_query(request.query_string());
    let query = query.map_err(|error| error.to_string())?.into_inner();
    if query.code_lifetime.is_some_and(|seconds| seconds.parse::<u64>().is_err()) {
        return Err("codeLifetime has to be a number of seconds".to_owned());
    }
    match query.origin {
        Some(origin) => exact_origin(&origin).map(str::to_owned),
        None => Ok("'none'".to_owned()),
    }
}

fn html(
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", STYLE)
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::answer::RIGHT_OTP;
    use crate::sandbox::bank::{BANKS, FAILING_USERNAME};

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

    #[test]
    fn the_page_offers_the_banks_that_the_sandbox_has() {
        for bank in &BANKS {
            let choice = format!("data-bank=\"{}\"", bank.id);
            assert_eq!(PAGE.matches(&choice).count(), 1, "{}", bank.id);
            assert!(PAGE.contains(&bank.name.replace('&', "&amp;")), "{}", bank.name);
        }
        assert_eq!(PAGE.matches("data-bank=").count(), BANKS.len());
    }

    #[test]
    fn the_page_names_the_user_who_fails_and_the_code_that_is_right() {
        for word in [FAILING_USERNAME, RIGHT_OTP] {
            assert!(PAGE.contains(&format!("<code>{word}</code>")), "{word}");
            assert!(SCRIPT.contains(&format!("\"{word}\"")), "{word}");
        }
    }
}
