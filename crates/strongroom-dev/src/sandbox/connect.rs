//! Connect's page: what a user sees between "connect your bank" and the access code.
//!
//! May import: actix, page.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::page::{asset, framed_by, html, refused};

const PAGE: &str = include_str!("pages/connect.html");
const STYLE: &str = include_str!("pages/connect.css");
const SCRIPT: &str = include_str!("pages/connect.js");
/// What Link's page uses too.
const SHARED_SCRIPT: &str = include_str!("pages/page.js");

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        web::scope("/connect")
            .route("", web::get().to(page))
            .route("/connect.css", web::get().to(style))
            .route("/connect.js", web::get().to(script))
            .route("/page.js", web::get().to(shared_script)),
    );
}

/// The page's query. The script reads the same one; it is checked here because the script could only fail.
#[derive(Debug, Deserialize)]
struct Query {
    origin: Option<String>,
    #[serde(rename = "codeLifetime")]
    code_lifetime: Option<String>,
}

async fn page(request: HttpRequest) -> HttpResponse {
    match read(&request) {
        Ok(origin) => html(HttpResponse::Ok(), &origin, PAGE.to_owned()),
        Err(problem) => refused(&problem),
    }
}

/// Returns the origin that may frame the page.
fn read(request: &HttpRequest) -> Result<String, String> {
    let query = web::Query::<Query>::from_query(request.query_string());
    let query = query.map_err(|error| error.to_string())?.into_inner();
    if query.code_lifetime.is_some_and(|seconds| seconds.parse::<u64>().is_err()) {
        return Err("codeLifetime has to be a number of seconds".to_owned());
    }
    framed_by(query.origin.as_deref())
}

async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", STYLE)
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

async fn shared_script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SHARED_SCRIPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::answer::RIGHT_OTP;
    use crate::sandbox::bank::{BANKS, FAILING_USERNAME};

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
        for (word, script) in [(FAILING_USERNAME, SHARED_SCRIPT), (RIGHT_OTP, SCRIPT)] {
            assert!(PAGE.contains(&format!("<code>{word}</code>")), "{word}");
            assert!(script.contains(&format!("\"{word}\"")), "{word}");
        }
    }
}
