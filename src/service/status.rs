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
use crate::vault::{KeyOutage, Vault};

/// How long one result of the probe serves every request.
const PROBE_LIFETIME: Duration = Duration::from_millis(200);
/// How often the database is probed without a request.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Whether the service should get requests.
#[derive(Clone, Debug)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    directory: Directory,
    vault: Vault,
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
    /// Returns a readiness that holds while the directory is fresh, the database accepts writes, and data keys can be
    /// opened or are still kept.
    #[must_use]
    pub fn new(directory: Directory, vault: Vault, pool: Pool) -> Self {
        let probe = Probe { pool, replica: ReplicaId::new(), last: Mutex::default() };
        Self { draining: Arc::default(), directory, vault, probe: Arc::new(probe) }
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
    /// The master keys that cannot be used at the moment, and why. Absent if there are none.
    #[serde(rename = "keysUnavailable", skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    keys_unavailable: Vec<UnavailableKey>,
}

/// A master key that cannot be used at the moment.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct UnavailableKey {
    /// The key's name in `STRONGROOM_MASTER_KEYS`.
    #[schema(example = "2026-11")]
    key: String,
    /// Why.
    #[schema(example = "Connection refused (os error 111)")]
    cause: String,
    /// For how many seconds.
    #[schema(example = 12)]
    seconds: u64,
}

impl From<KeyOutage> for UnavailableKey {
    fn from(outage: KeyOutage) -> Self {
        let KeyOutage { key, cause, lasts } = outage;
        Self { key: key.to_string(), cause, seconds: lasts.as_secs() }
    }
}

/// The problem of a service without the keys that it needs, by name.
pub(super) fn without_keys(outages: Vec<KeyOutage>) -> Problem {
    let keys: Vec<_> = outages.into_iter().map(UnavailableKey::from).collect();
    let names: Vec<_> = keys.iter().map(|key| format!("`{}` ({})", key.key, key.cause)).collect();
    let detail = format!("Master keys cannot be used: {}.", names.join(", "));
    let keys = serde_json::to_value(keys).unwrap_or_default();
    Problem::new(ProblemCode::KeysUnavailable, detail).with("keysUnavailable", keys).retry_after(1)
}

/// Whether the process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "Status", operation_id = "getHealth", security(()),
    responses((status = 200, description = "Alive", body = Health))
)]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "alive", keys_unavailable: Vec::new() })
}

/// Whether the service can work: database, migrations, keys.
///
/// While a master key that is elsewhere cannot be used, the service stays ready for as long as opened data keys are kept
/// (`STRONGROOM_DATA_KEY_CACHE_SECONDS`), and names the key.
#[utoipa::path(
    get, path = "/readyz", tag = "Status", operation_id = "getReadiness", security(()),
    responses(
        (status = 200, description = "Ready", body = Health),
        Problems<(code::Unavailable, code::KeysUnavailable)>,
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
    let outages = readiness.vault.outages();
    // Until then, users seen lately are served.
    let keeps_keys_for = readiness.vault.keeps_data_keys_for();
    if outages.iter().any(|outage| outage.lasts >= keeps_keys_for) {
        return Err(without_keys(outages));
    }
    let keys_unavailable = outages.into_iter().map(UnavailableKey::from).collect();
    Ok(HttpResponse::Ok().json(Health { status: "ready", keys_unavailable }))
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
