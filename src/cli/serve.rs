//! `strongroom serve`.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::common::clock::Clock;
use crate::common::{RELEASE, tls};
use crate::config::{Config, Environment, PublicUrl, UnknownVariable};
use crate::http::connection;
use crate::service::Service;
use crate::telemetry;

/// Run the service.
///
/// It is configured by environment variables alone; .env.example lists them all. At the least it
/// needs `DATABASE_URL` and `STRONGROOM_MASTER_KEYS` (`strongroom keys generate` makes one). Any number
/// of replicas may run on one database.
///
/// SIGTERM, SIGHUP or Ctrl-C drains it: readiness goes off and calls to Dapi that are under way end. A
/// second one ends it at once, which loses nothing but time.
#[derive(Debug, Args)]
pub(super) struct Serve {}

impl Serve {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), Failure> {
        let config = Config::from_environment(environment)?;
        telemetry::init(&config.log, &config.traces);
        begin_ahead();
        raise_file_limit();
        warn_about(&config);
        let service = Service::build(config, Clock::system()).await?;
        tracing::info!(
            address = %service.address(),
            metrics = %service.metrics_address(),
            console = service.console_url().map(PublicUrl::as_str),
            version = RELEASE,
            "serving"
        );
        service.run(shutdown_signal()?).await?;
        Ok(())
    }
}

/// Begins what takes milliseconds once in a process, on threads of its own: a start has other things to wait for
/// meanwhile, and the first caller has not.
fn begin_ahead() {
    tls::read_ahead();
    // At its first use the generator gathers entropy for some thirty milliseconds.
    tokio::task::spawn_blocking(|| aws_lc_rs::rand::fill(&mut [0]));
}

/// Raises the limit on open files: each connection is one, and the usual soft limit is 1,024.
pub(super) fn raise_file_limit() {
    if let Err(error) = connection::raise_limit() {
        tracing::warn!(cause = %error, "the limit of open files could not be raised");
    }
}

/// Warns about variables that have no effect.
pub(super) fn warn_about_unknown(config: &Config) {
    for UnknownVariable { name, nearest } in &config.unknown {
        if let Some(nearest) = nearest {
            tracing::warn!(name, nearest, "unknown variable; is the nearest one meant?");
        } else {
            tracing::warn!(name, "unknown variable; it has no effect");
        }
    }
}

/// Warns about settings that work and are probably unintended.
fn warn_about(config: &Config) {
    warn_about_unknown(config);
    if config.bootstrap.is_some() {
        tracing::warn!(
            "STRONGROOM_BOOTSTRAP_CLIENT_ID is set: a client with every scope exists; make clients \
             that can do less by `strongroom clients create`, and unset it"
        );
    }
    if !config.http.public_url.is_protected() {
        tracing::warn!(
            url = config.http.public_url.as_str(),
            "STRONGROOM_PUBLIC_URL is not https: access tokens and results cross the network in the clear"
        );
    }
}

/// Resolves at the first SIGTERM, SIGINT or SIGHUP (a terminal that closes); a second SIGTERM or SIGINT
/// ends the process.
pub(super) fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let (first_came, first) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut asked = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            () = asked() => {}
            _ = hangup.recv() => {}
        }
        let _ = first_came.send(());
        // A closing terminal may signal twice, which does not mean haste.
        asked().await;
        tracing::warn!("ended at once; leases take over what was under way");
        telemetry::flush();
        std::process::exit(130);
    });
    Ok(async move {
        let _ = first.await;
    })
}
