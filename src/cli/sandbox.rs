//! `strongroom sandbox`.

use std::net::{SocketAddr, TcpListener};

use clap::Args;
use strongroom_dev::sandbox::{
    self, App, DEFAULT_APP_KEY, DEFAULT_APP_SECRET, DEFAULT_PLAID_CLIENT_ID, DEFAULT_PLAID_SECRET,
    Settings,
};

use super::Failure;
use super::output::Output;
use super::serve::shutdown_signal;
use crate::common::secret::SecretText;

/// Run the sandbox: a Dapi and a Plaid to develop and test against.
///
/// It has Connect's page and Link's, the exchanges, delinking, data calls with MFA, signed webhooks, and
/// faults on demand; beside it token endpoints in the manner of DANAConnect, Kaisa and a plain server. Its front page lists what
/// it can do, with a curl line for each. Nothing it holds is real, and nothing it holds survives its end.
///
/// Point Strongroom at it: `DAPI_BASE_URL=http://127.0.0.1:8081/v2`, `PLAID_BASE_URL=http://127.0.0.1:8081/plaid`
#[derive(Debug, Args)]
pub(super) struct Sandbox {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The key of its one application at Dapi.
    #[arg(long, default_value = DEFAULT_APP_KEY)]
    app_key: String,
    /// That application's secret. It guards nothing.
    #[arg(long, default_value = DEFAULT_APP_SECRET)]
    app_secret: String,
    /// The client id of its one application at Plaid.
    #[arg(long, default_value = DEFAULT_PLAID_CLIENT_ID)]
    plaid_client_id: String,
    /// That application's secret. It guards nothing.
    #[arg(long, default_value = DEFAULT_PLAID_SECRET)]
    plaid_secret: String,
}

impl Sandbox {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        let apps = |key, secret| vec![App { key, secret: SecretText::new(secret) }];
        let sandbox = sandbox::Sandbox::new(Settings {
            apps: apps(self.app_key, self.app_secret),
            plaid_apps: apps(self.plaid_client_id, self.plaid_secret),
            ..Settings::default()
        });
        let listener = TcpListener::bind(self.listen)
            .map_err(|error| Failure::Other(format!("--listen {}: {error}", self.listen)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = sandbox::server(&sandbox, listener)?;
        let handle = server.handle();
        let (dapi, plaid) = (format!("{url}/v2"), format!("{url}/plaid"));
        let json = serde_json::json!({ "url": url, "baseURL": dapi, "plaidBaseURL": plaid });
        output.result(&json, || {
            format!("The sandbox is at {url}\nDAPI_BASE_URL={dapi}\nPLAID_BASE_URL={plaid}")
        });
        let shutdown = shutdown_signal()?;
        tokio::spawn(async move {
            shutdown.await;
            handle.stop(true).await;
        });
        server.await?;
        Ok(())
    }
}
