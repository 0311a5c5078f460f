//! A start while a master key that is elsewhere cannot be used: the service listens, says that it is not ready and why,
//! and goes on as soon as the key can be used.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, middleware, web};
use tracing_actix_web::TracingLogger;

use super::{StartError, status};
use crate::database::Conn;
use crate::http::layers::{self, RequestSpan};
use crate::http::problem::Problem;
use crate::vault::{KeyOutage, MasterKeys, Prepared, Unavailable, VaultError};

/// The wait before a key is tried again. Its own circuit breaker has a longer one, with jitter.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the service waits, for its answers.
type Cause = web::Data<(Unavailable, Instant)>;

/// Opens the vault. While a master key cannot be used, answers on `listener` in the service's place.
///
/// # Errors
/// As [`Prepared::read`], except an unavailable key.
pub(super) async fn for_keys(
    conn: &mut Conn,
    masters: &Arc<MasterKeys>,
    listener: &TcpListener,
) -> Result<Prepared, StartError> {
    let began = Instant::now();
    let mut answering: Option<ServerHandle> = None;
    loop {
        match Prepared::read(conn, Arc::clone(masters)).await {
            Err(VaultError::Unavailable(error)) => {
                if answering.is_none() {
                    tracing::error!(cause = %error, "waiting for a master key; not ready");
                    answering = Some(answer(listener, (error, began))?);
                }
                tokio::time::sleep(PAUSE).await;
            }
            opened => {
                if let Some(answering) = answering {
                    answering.stop(true).await;
                }
                return Ok(opened?);
            }
        }
    }
}

fn answer(listener: &TcpListener, cause: (Unavailable, Instant)) -> std::io::Result<ServerHandle> {
    let cause = web::Data::new(cause);
    let app = move || {
        App::new()
            .app_data(cause.clone())
            .route("/healthz", web::get().to(status::healthz))
            .default_service(web::to(not_ready))
            .wrap(middleware::from_fn(layers::answer))
            .wrap(TracingLogger::<RequestSpan>::new())
    };
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1);
    let server = server.listen(listener.try_clone()?)?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}

async fn not_ready(cause: Cause) -> Result<actix_web::HttpResponse, Problem> {
    let (Unavailable { key, cause, .. }, since) = cause.get_ref().clone();
    Err(status::without_keys(vec![KeyOutage { key, cause, lasts: since.elapsed() }]))
}
