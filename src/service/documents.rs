//! The front page, the `OpenAPI` document, and the pages that render it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use actix_web::body::SizedStream;
use actix_web::http::header::{ACCEPT, CONTENT_ENCODING, ContentEncoding, ContentType, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::json;
use utoipa_swagger_ui::Config;
use zeroize::Zeroizing;

use super::openapi;
use crate::config::DocsClient;
use crate::http::problem::Problem;

/// The size of a piece of a body that is streamed, in bytes.
const PIECE: usize = 16 * 1024;
/// The path of the document.
pub(super) const OPENAPI: &str = "/openapi.json";
/// The name of the script that sets up the pages, below `/docs/`.
const SETUP: &str = "swagger-initializer.js";

/// Serialized once: it is large and public.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().to_string().into());

/// The pages that render the document.
#[derive(Clone)]
pub(super) struct Pages {
    config: Arc<Config<'static>>,
    /// What follows the script that sets up the page.
    more_script: Arc<Zeroizing<String>>,
}

impl Pages {
    /// Returns pages on which `client` is filled in under "Authorize".
    pub(super) fn new(client: Option<&DocsClient>) -> Self {
        let config = Config::from(OPENAPI).persist_authorization(client.is_some());
        let script = client.map_or_else(String::new, |DocsClient { id, secret }| {
            let client = json!({ "clientId": id, "clientSecret": secret.expose() });
            // After the page's own handler, which makes `ui`.
            format!("\nwindow.addEventListener('load', () => window.ui.initOAuth({client}));\n")
        });
        Self { config: Arc::new(config), more_script: Arc::new(Zeroizing::new(script)) }
    }
}

/// The front page: links, and for a browser the documentation.
pub(super) async fn index(request: HttpRequest) -> HttpResponse {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return HttpResponse::SeeOther().insert_header((LOCATION, "/docs/")).finish();
    }
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
pub(super) async fn page(
    path: web::Path<String>,
    pages: web::Data<Pages>,
) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&pages.config));
    let file = file.map_err(Problem::internal)?.ok_or_else(Problem::not_found)?;
    let mut answer = HttpResponse::Ok();
    if file.gzpipped {
        answer.insert_header((CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(mut bytes) => {
            if path.as_str() == SETUP {
                bytes.extend_from_slice(pages.more_script.as_bytes());
            }
            bytes.into()
        }
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
