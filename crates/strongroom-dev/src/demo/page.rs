//! The page: plain HTML, a style sheet and a script, embedded in the binary.
//!
//! May import: actix.

use actix_web::HttpResponse;
use actix_web::http::header;

use super::guard::Host;
use super::{External, Settings, USER};

const PAGE: &str = include_str!("pages/index.html");
const STYLE: &str = include_str!("pages/demo.css");
const SCRIPT: &str = include_str!("pages/demo.js");

/// The page with its addresses filled in, and a content security policy that allows only these.
pub(super) struct Page {
    html: String,
    policy: String,
}

impl Page {
    pub(super) fn new(settings: &Settings, strongroom: &str, host: &Host) -> Self {
        let sandbox = &settings.sandbox;
        let External { dapi, plaid } = &settings.external;
        let [dapi, plaid] = [dapi, plaid].map(|url| url.as_deref().unwrap_or_default());
        let html = PAGE
            .replace("{strongroom}", &escaped(strongroom))
            .replace("{sandbox}", &escaped(sandbox))
            .replace("{origin}", &escaped(&host.origin))
            .replace("{user}", USER)
            .replace("{foreign-dapi}", &escaped(dapi))
            .replace("{foreign-plaid}", &escaped(plaid));
        let policy = format!(
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
             connect-src 'self' {strongroom}; frame-src {sandbox}; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'"
        );
        Self { html, policy }
    }

    pub(super) fn html(&self) -> HttpResponse {
        HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CONTENT_SECURITY_POLICY, self.policy.clone()))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "same-origin"))
            .insert_header((header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(self.html.clone())
    }
}

pub(super) fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", STYLE)
}

pub(super) fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(content)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_page_needs_a_weaker_policy() {
        for inline in ["<style", " style=", " onclick", " onload", "javascript:"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("insertAdjacentHTML"));
    }
}
