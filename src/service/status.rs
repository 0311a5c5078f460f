//! `/healthz`, `/readyz`, `/metrics`, `/problems/{code}`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::common::ids::ReplicaId;
use crate::database::Pool;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::Problems;
use crate::oauth::Directory;

/// How long one result of the probe serves every request.
const PROBE_LIFETIME: Duration = Duration::from_millis(200);
/// How often the database is probed without a request.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Whether the service should get requests.
#[derive(Clone, Debug)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    directory: Directory,
    probe: Arc<Probe>,
}

/// Checks whether the database accepts writes, over a pool of its own, by the same route as
/// requests.
#[derive(Debug)]
struct Probe {
    pool: Pool,
    replica: ReplicaId,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Probe {
    /// Returns whether a write commits now. Concurrent requests share one probe.
    async fn accepts_writes(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((_, answer)) = last.filter(|(at, _)| at.elapsed() < PROBE_LIFETIME) {
            return answer;
        }
        let result = store::record_replica(&self.pool, self.replica).await;
        if let Err(error) = &result {
            tracing::warn!(cause = %error, "the database accepts no writes");
        }
        *last = Some((Instant::now(), result.is_ok()));
        result.is_ok()
    }
}

impl Readiness {
    /// Returns a readiness that holds while the directory is fresh and the database accepts writes.
    #[must_use]
    pub fn new(directory: Directory, pool: Pool) -> Self {
        let probe = Probe { pool, replica: ReplicaId::new(), last: Mutex::default() };
        Self { draining: Arc::default(), directory, probe: Arc::new(probe) }
    }

    /// Withdraws readiness for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Probes the database every second until `stop`, so that a dead connection is found before a
    /// request uses it.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            // The pools record the outcome.
            let _ = store::ping(&self.probe.pool).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
        let _ = store::delete_replica(&self.probe.pool, self.probe.replica).await;
    }
}

/// How the service stands.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Health {
    /// `alive` or `ready`.
    #[schema(example = "ready")]
    status: &'static str,
}

/// Whether the process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "Status", operation_id = "getHealth", security(()),
    responses((status = 200, description = "Alive", body = Health))
)]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "alive" })
}

/// Whether the service can work: database, migrations, keys.
#[utoipa::path(
    get, path = "/readyz", tag = "Status", operation_id = "getReadiness", security(()),
    responses(
        (status = 200, description = "Ready", body = Health),
        Problems<code::Unavailable>,
    )
)]
pub async fn readyz(readiness: web::Data<Readiness>) -> Result<HttpResponse, Problem> {
    let not_ready = |detail| Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(1));
    if readiness.draining.load(Ordering::Relaxed) {
        return not_ready("The service is shutting down.");
    }
    if !readiness.probe.accepts_writes().await {
        return not_ready("The database does not answer, or takes no writes.");
    }
    if !readiness.directory.is_fresh() {
        return not_ready("Clients, keys and revocations could not be read for too long.");
    }
    Ok(HttpResponse::Ok().json(Health { status: "ready" }))
}

/// What a problem's code means: where a problem's `type` leads.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "Status", operation_id = "getProblemType", security(()),
    params(("code" = String, Path, description = "The `code` of a problem", example = "not_found")),
    responses(
        (status = 200, description = "What it means", content_type = "text/plain", body = String, example = json!("not_found (404)\n\nThere is no such thing here.\n")),
        Problems<code::NotFound>,
    )
)]
pub async fn problem(code: web::Path<String>) -> Result<HttpResponse, Problem> {
    let found = ProblemCode::ALL.iter().find(|known| known.as_str() == code.as_str());
    let known = found.ok_or_else(Problem::not_found)?;
    let text = format!("{} ({})\n\n{}.\n", known.as_str(), known.status().as_u16(), known.title());
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text))
}

/// Everything that is counted, in the text format of `OpenMetrics` 1.0.
///
/// Served on a listener of its own, `STRONGROOM_METRICS_LISTEN`; the API's own address has nothing here.
#[utoipa::path(
    get, path = "/metrics", tag = "Status", operation_id = "getMetrics", security(()),
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text", example = json!("# EOF\n")),
        (status = 500, description = "The metrics could not be encoded"),
        Problems<code::NotFound>,
    )
)]
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
