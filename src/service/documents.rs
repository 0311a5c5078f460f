//! What there is to read: the front page, the `OpenAPI` document, and the pages that show it.

use std::sync::{Arc, LazyLock};

use actix_web::http::header::{CONTENT_ENCODING, ContentEncoding, ContentType};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use serde_json::json;
use utoipa_swagger_ui::Config;

use super::openapi;
use crate::http::problem::Problem;

/// Where the document is.
pub(super) const OPENAPI: &str = "/openapi.json";

/// Written once: it is large, and anybody may ask for it.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| openapi::document().to_json().unwrap_or_default().into());
static PAGES: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from(OPENAPI)));

/// Where to go from here.
pub(super) async fn index() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "service": "strongroom",
        "documentation": "/docs/",
        "openapi": OPENAPI,
        "health": "/healthz",
    }))
}

/// The document.
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(DOCUMENT.clone())
}

/// One file of the pages that show the document.
pub(super) async fn page(path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&PAGES));
    let file = file.map_err(Problem::internal)?.ok_or_else(Problem::not_found)?;
    let mut answer = HttpResponse::Ok();
    if file.gzpipped {
        answer.insert_header((CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    Ok(answer.content_type(file.content_type).body(file.bytes.into_owned()))
}
