//! The front page, the `OpenAPI` document, and the pages that render it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_ENCODING, ContentEncoding, ContentType};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::json;
use utoipa_swagger_ui::Config;

use super::openapi;
use crate::http::problem::Problem;

/// The size of a piece of a body that is streamed, in bytes.
const PIECE: usize = 16 * 1024;
/// The path of the document.
pub(super) const OPENAPI: &str = "/openapi.json";

/// Serialized once: it is large and public.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().to_string().into());
static PAGES: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from(OPENAPI)));

/// The front page: links.
pub(super) async fn index() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "service": "strongroom",
        "documentation": "/docs/",
        "openapi": OPENAPI,
        "health": "/healthz",
    }))
}

/// Responds with the document.
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(pieces(DOCUMENT.clone()))
}

/// Responds with one file of the pages that render the document.
pub(super) async fn page(path: web::Path<String>) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&PAGES));
    let file = file.map_err(Problem::internal)?.ok_or_else(Problem::not_found)?;
    let mut answer = HttpResponse::Ok();
    if file.gzpipped {
        answer.insert_header((CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(answer.content_type(file.content_type).body(pieces(bytes)))
}

/// Streams a large body: the server copies what it is given, and a caller may read none of it.
fn pieces(bytes: Bytes) -> SizedStream<impl Stream<Item = Result<Bytes, Infallible>>> {
    let size = bytes.len() as u64;
    let pieces = stream::unfold(bytes, |mut left| async move {
        let piece = left.split_to(left.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok(piece), left))
    });
    SizedStream::new(size, pieces)
}
