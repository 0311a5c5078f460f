//! Link's page: what a user sees between "link your bank" and the public token.
//!
//! May import: actix, handle, institution, link, page.

use actix_web::web::{self, ServiceConfig, ThinData};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::handle::Plaid;
use crate::sandbox::page::{asset, escaped, framed_by, html, refused};

const PAGE: &str = include_str!("../pages/link.html");
const SCRIPT: &str = include_str!("../pages/link.js");
/// What the page calls an app that it does not know.
const SOME_APP: &str = "The app";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/link", web::get().to(page)).route("/link/link.js", web::get().to(script));
}

/// The page's query. The script reads the same one; it is checked here because the script could only fail.
#[derive(Debug, Deserialize)]
struct Query {
    token: Option<String>,
    origin: Option<String>,
    #[serde(rename = "codeLifetime")]
    code_lifetime: Option<String>,
}

async fn page(plaid: ThinData<Plaid>, request: HttpRequest) -> HttpResponse {
    match fill(&plaid, &request) {
        Ok((framed_by, page)) => html(HttpResponse::Ok(), &framed_by, page),
        Err(problem) => refused(&problem),
    }
}

/// Returns the origin that may frame the page, and the page.
fn fill(plaid: &Plaid, request: &HttpRequest) -> Result<(String, String), String> {
    let query = web::Query::<Query>::from_query(request.query_string());
    let query = query.map_err(|error| error.to_string())?.into_inner();
    if query.code_lifetime.is_some_and(|seconds| seconds.parse::<u64>().is_err()) {
        return Err("codeLifetime has to be a number of seconds".to_owned());
    }
    let framed_by = framed_by(query.origin.as_deref())?;
    let token = match &query.token {
        Some(token) => Some(plaid.open_link_token(token).map_err(|error| error.to_string())?),
        None => None,
    };
    let app = token.as_ref().map_or(SOME_APP, |token| token.client_name.as_str());
    let update = token.as_ref().and_then(|token| token.item.as_ref());
    let update = update.map_or("", |item| item.institution.name);
    let page = PAGE.replace("{update}", &escaped(update)).replace("{app}", &escaped(app));
    Ok((framed_by, page))
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bank::FAILING_USERNAME;
    use crate::sandbox::plaid::institution::INSTITUTIONS;

    #[test]
    fn the_page_offers_the_institutions_that_the_sandbox_has() {
        for institution in &INSTITUTIONS {
            let choice = format!("data-bank=\"{}\"", institution.id);
            assert_eq!(PAGE.matches(&choice).count(), 1, "{}", institution.id);
            assert!(PAGE.contains(institution.name), "{}", institution.name);
        }
        assert_eq!(PAGE.matches("data-bank=").count(), INSTITUTIONS.len());
        assert!(PAGE.contains(&format!("<code>{FAILING_USERNAME}</code>")));
    }
}
