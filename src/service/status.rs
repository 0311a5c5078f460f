//! `/healthz`, `/readyz`, `/metrics`, `/problems/{code}`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use prometheus_client::registry::Registry;
use serde_json::json;
use sqlx::PgPool;

use crate::http::problem::{Problem, ProblemCode};
use crate::oauth::Directory;

/// How long the database may take to answer before the service counts as not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the service should get requests.
#[derive(Clone, Debug)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    directory: Directory,
}

impl Readiness {
    /// Ready as long as the directory is fresh and the database answers.
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        Self { draining: Arc::default(), directory }
    }

    /// From now on the service wants no more requests.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Whether the process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "Status", security(()),
    responses((status = 200, description = "Alive", body = inline(serde_json::Value)))
)]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "alive" }))
}

/// Whether the service can work: database, migrations, keys.
#[utoipa::path(
    get, path = "/readyz", tag = "Status", security(()),
    responses(
        (status = 200, description = "Ready", body = inline(serde_json::Value)),
        (status = 503, description = "`unavailable`"),
    )
)]
pub async fn readyz(
    readiness: web::Data<Readiness>,
    pool: web::Data<PgPool>,
) -> Result<HttpResponse, Problem> {
    let not_ready = |detail| Problem::new(ProblemCode::Unavailable, detail).retry_after(1);
    if readiness.draining.load(Ordering::Relaxed) {
        return Err(not_ready("The service is shutting down."));
    }
    let asked = sqlx::query_scalar!("SELECT 1 AS \"one!\"").fetch_one(pool.get_ref());
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(_)) if readiness.directory.is_fresh() => {
            Ok(HttpResponse::Ok().json(json!({ "status": "ready" })))
        }
        Ok(Ok(_)) => {
            Err(not_ready("Clients, keys and revocations could not be read for too long."))
        }
        Ok(Err(_)) | Err(_) => Err(not_ready("The database does not answer.")),
    }
}

/// What a problem's code means: where a problem's `type` leads.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "Status", security(()),
    params(("code" = String, Path, description = "The `code` of a problem")),
    responses(
        (status = 200, description = "What it means", content_type = "text/plain", body = String),
        (status = 404, description = "`not_found`"),
    )
)]
pub async fn problem(code: web::Path<String>) -> Result<HttpResponse, Problem> {
    let found = ProblemCode::ALL.iter().find(|known| known.as_str() == code.as_str());
    let known = found.ok_or_else(Problem::not_found)?;
    let text = format!("{} ({})\n\n{}.\n", known.as_str(), known.status().as_u16(), known.title());
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text))
}

/// Everything that is counted, in the text format of `OpenMetrics` 1.0.
pub async fn metrics(registry: web::Data<Registry>) -> HttpResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(cause = %error, "metrics could not be encoded");
            HttpResponse::InternalServerError().finish()
        }
    }
}
