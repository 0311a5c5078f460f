//! `strongroom sandbox`.

use std::net::{SocketAddr, TcpListener};

use clap::Args;
use strongroom_dev::sandbox::{self, App, DEFAULT_APP_KEY, DEFAULT_APP_SECRET, Settings};

use super::Failure;
use super::output::Output;
use super::serve::shutdown_signal;
use crate::common::secret::SecretText;

/// Run the sandbox: a Dapi to develop and test against.
///
/// It has Connect's page, the exchange, delinking, data calls with MFA, and faults on demand; beside it
/// token endpoints in the manner of DANAConnect, Kaisa and a plain server. Its front page lists what
/// it can do, with a curl line for each. Nothing it holds is real, and nothing it holds survives its end.
///
/// Point Strongroom at it: `DAPI_BASE_URL=http://127.0.0.1:8081/v2`
#[derive(Debug, Args)]
pub(super) struct Sandbox {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The key of its one application.
    #[arg(long, default_value = DEFAULT_APP_KEY)]
    app_key: String,
    /// The secret of its one application. It guards nothing.
    #[arg(long, default_value = DEFAULT_APP_SECRET)]
    app_secret: String,
}

impl Sandbox {
    pub(super) async fn run(self, output: &Output) -> Result<(), Failure> {
        let app = App { key: self.app_key, secret: SecretText::new(self.app_secret) };
        let sandbox = sandbox::Sandbox::new(Settings { apps: vec![app], ..Settings::default() });
        let listener = TcpListener::bind(self.listen)
            .map_err(|error| Failure::Other(format!("--listen {}: {error}", self.listen)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = sandbox::server(&sandbox, listener)?;
        let handle = server.handle();
        output.result(&serde_json::json!({ "url": url, "baseURL": format!("{url}/v2") }), || {
            format!("Dapi's sandbox is at {url}\nDAPI_BASE_URL={url}/v2")
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
