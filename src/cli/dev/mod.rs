//! `strongroom dev`.

mod console;
mod plaid_client;
mod variables;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use strongroom_dev::banner::Addresses;
use strongroom_dev::demo::{self, AppClient, External, reachable};
use strongroom_dev::folder::{self, DEMO_URL, Folder, FolderError, Made};
use strongroom_dev::postgres::{Durability, LocalPostgres, Settings};
use strongroom_dev::requests::Requests;
use strongroom_dev::sandbox::{
    self, App, DEFAULT_APP_KEY, DEFAULT_APP_SECRET, DEFAULT_PLAID_CLIENT_ID, DEFAULT_PLAID_SECRET,
};

use super::Failure;
use super::output::Output;
use super::serve::{raise_file_limit, shutdown_signal, warn_about_unknown};
use crate::common::clock::Clock;
use crate::common::secret::SecretText;
use crate::config::{Config, DocsClient, Environment, EnvironmentApp, ProviderConfig};
use crate::providers::Provider;
use crate::service::{Service, StartError};
use crate::telemetry;
use crate::vault::{MasterKeys, VaultError};
use variables::{Variables, own_database_url};

/// The origins at which a browser reaches `examples/web`, which submits results as an app's page does.
const EXAMPLE_ORIGINS: [&str; 2] = ["http://127.0.0.1:3000", "http://localhost:3000"];

/// Run everything that a newcomer needs, in one process.
///
/// That is a PostgreSQL of its own (unless `DATABASE_URL` is set), the sandbox instead of Dapi and Plaid,
/// the service on 127.0.0.1:8080 (`STRONGROOM_LISTEN`) with an app at each of the two, keys and clients made
/// for the occasion, the operators' console on localhost:8082 (`STRONGROOM_CONSOLE_LISTEN`), and a demo page with a small backend behind it. It prints where they are, and curl lines to try.
///
/// What it makes is kept in a folder, so that a second start opens the same data. A variable that
/// you set yourself always wins. The log is a file in the folder; warnings are shown on standard error too.
///
/// Ctrl-C drains the service and ends the rest, PostgreSQL last.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Where the database, the keys and the client are kept.
    #[arg(long, default_value = "./.strongroom")]
    folder: PathBuf,
    /// Where the demo listens.
    #[arg(long, default_value = "127.0.0.1:8000")]
    demo_listen: SocketAddr,
    /// Where the sandbox listens.
    #[arg(long, default_value = "127.0.0.1:8081")]
    sandbox_listen: SocketAddr,
    /// Show the whole log on the screen too, a line for each request.
    #[arg(long)]
    verbose: bool,
}

/// The listeners of the demo and the sandbox, with the URLs by which a browser reaches them.
struct Listeners {
    demo: TcpListener,
    demo_url: String,
    sandbox: TcpListener,
    sandbox_url: String,
}

impl Listeners {
    /// Returns the base URL by which the sandbox plays this bank link.
    fn base_url(&self, provider: Provider) -> String {
        let path = match provider {
            Provider::Dapi => "v2",
            Provider::Plaid => "plaid",
        };
        format!("{}/{path}", self.sandbox_url)
    }
}

impl Dev {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let folder = Folder::open(&self.folder).map_err(Failure::other)?;
        let listeners = self.open_listeners()?;
        let mut variables = Variables::of(environment, &folder.last_variables());
        set_defaults(&mut variables, &made(&folder).map_err(Failure::other)?, &listeners);
        let postgres = own_postgres(&folder, &mut variables).await?;
        let database = postgres.as_ref().map(|postgres| postgres.data_folder().to_owned());
        let serving = self.serve(&folder, variables, listeners, database, output);
        let outcome = Box::pin(serving).await;
        if let Some(postgres) = postgres {
            postgres.stop().await.map_err(Failure::other)?;
        }
        outcome
    }

    /// Runs the service, the sandbox and the demo until a signal ends them.
    async fn serve(
        &self,
        folder: &Folder,
        mut variables: Variables,
        listeners: Listeners,
        database: Option<PathBuf>,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut config = Config::from_environment(variables.environment())?;
        telemetry::init_to_file(
            &config.log,
            &config.traces,
            folder.new_log().map_err(Failure::other)?,
            self.verbose,
        );
        raise_file_limit();
        warn_about_unknown(&config);
        let sandbox = sandbox_of(&config);
        config.http.docs_client = docs_client(&config);
        let (dapi, external) = (dapi_client(&config)?, external(&config, &listeners));
        let at = config.database.service.hosts().first().cloned().unwrap_or_default();
        let built = Service::build(config, Clock::system()).await;
        let service = built.map_err(|error| start_failure(error, database.as_deref()))?;
        let api = local_url(service.address());
        let plaid = plaid_client::ensure(&service, folder).await?;
        variables.set_default([("STRONGROOM_PUBLIC_URL", service.public_url().as_str())]);
        variables.write(folder::PLAID_CLIENT_ID, &plaid.id);
        variables.write(folder::PLAID_CLIENT_SECRET, plaid.secret.expose());
        let metrics = format!("{}/metrics", local_url(service.metrics_address()));
        variables.write("METRICS_URL", &metrics);
        let console = console::sign_in(&service, &mut variables).await?;
        folder
            .write_variables(variables.defaults(), program().as_deref())
            .map_err(Failure::other)?;
        let requests = Requests { api: &api, sandbox: &listeners.sandbox_url, client: &dapi };
        folder.write_requests(&requests.http(), &requests.postman()).map_err(Failure::other)?;

        let addresses = Addresses {
            demo: listeners.demo_url,
            docs: format!("{api}/docs/"),
            api,
            sandbox: listeners.sandbox_url.clone(),
            metrics,
            console: console.url,
            sign_in: console.sign_in.expose().to_owned(),
            log_file: folder.log_file(),
            env_file: folder.env_file(),
            database_folder: database,
            external_dapi: external.dapi.clone(),
            external_plaid: external.plaid.clone(),
        };
        let sandbox_url = listeners.sandbox_url;
        let demo = demo::Settings { sandbox: sandbox_url, external, dapi, plaid, database: at };
        let demo = demo::server(demo, &addresses.api, listeners.demo)?;
        let others = [sandbox::server(&sandbox, listeners.sandbox)?, demo];
        let others = others.map(|server| (server.handle(), tokio::spawn(server)));
        let shutdown = shutdown_signal()?;
        output.result(&addresses, || addresses.banner(demo::USER));
        let outcome = service.run(shutdown).await;
        for (handle, server) in others {
            handle.stop(true).await;
            let _ = server.await;
        }
        Ok(outcome?)
    }

    fn open_listeners(&self) -> Result<Listeners, Failure> {
        let (demo, demo_url) = open_listener("--demo-listen", self.demo_listen)?;
        let (sandbox, sandbox_url) = open_listener("--sandbox-listen", self.sandbox_listen)?;
        Ok(Listeners { demo, demo_url, sandbox, sandbox_url })
    }
}

fn open_listener(flag: &str, address: SocketAddr) -> Result<(TcpListener, String), Failure> {
    let opened = TcpListener::bind(address).and_then(|listener| {
        let url = local_url(listener.local_addr()?);
        Ok((listener, url))
    });
    opened.map_err(|error| {
        Failure::Other(format!(
            "{address} cannot be listened on: {error}; {flag} names another, such as {}:0 for any \
             free port",
            address.ip()
        ))
    })
}

fn local_url(listener: SocketAddr) -> String {
    format!("http://{}", reachable(listener))
}

/// Returns what the folder holds. The vault generates the master key if there is none.
fn made(folder: &Folder) -> Result<Made, FolderError> {
    folder.made(|| MasterKeys::generate().map(|key| SecretText::new(key.to_string())))
}

/// Sets defaults for what the user left out.
fn set_defaults(variables: &mut Variables, made: &Made, listeners: &Listeners) {
    variables.set_default([("STRONGROOM_MASTER_KEYS", made.master_keys.expose())]);
    variables.set_default([
        ("STRONGROOM_BOOTSTRAP_CLIENT_ID", &made.client_id),
        ("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", made.client_secret.expose()),
    ]);
    variables.set_default([("DAPI_BASE_URL", &listeners.base_url(Provider::Dapi))]);
    variables
        .set_default([("DAPI_APP_KEY", DEFAULT_APP_KEY), ("DAPI_APP_SECRET", DEFAULT_APP_SECRET)]);
    variables.set_default([("PLAID_BASE_URL", &listeners.base_url(Provider::Plaid))]);
    variables.set_default([
        ("PLAID_CLIENT_ID", DEFAULT_PLAID_CLIENT_ID),
        ("PLAID_SECRET", DEFAULT_PLAID_SECRET),
    ]);
    // A name and not an address, which no passkey can be for.
    variables.set_default([("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:8082")]);
    // The sandbox's other systems are upstreams to try, and they are on this machine.
    variables.set_default([("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")]);
    variables.prefer("STRONGROOM_LOG_FORMAT", "text");
    variables.prefer("STRONGROOM_LOG", "info,actix_server=warn,sqlx=warn");
    for origin in std::iter::once(listeners.demo_url.as_str()).chain(EXAMPLE_ORIGINS) {
        variables.add("STRONGROOM_CORS_ORIGINS", origin);
    }
    variables.write("SANDBOX_URL", &listeners.sandbox_url);
    variables.write(DEMO_URL, &listeners.demo_url);
}

/// Starts a database, unless the user has one.
async fn own_postgres(
    folder: &Folder,
    variables: &mut Variables,
) -> Result<Option<LocalPostgres>, Failure> {
    if variables.has("DATABASE_URL") {
        return Ok(None);
    }
    let environment = variables.environment();
    let settings = Settings {
        folder: folder.postgres(),
        durability: Durability::Durable,
        programs: environment.get("PG_BIN").map(PathBuf::from),
        path: environment.get("PATH").map(Into::into),
    };
    let postgres = LocalPostgres::start(settings).await.map_err(Failure::other)?;
    variables.set_default([("DATABASE_URL", &own_database_url(&postgres.url()))]);
    Ok(Some(postgres))
}

/// Returns a sandbox with the apps that the service uses.
fn sandbox_of(config: &Config) -> sandbox::Sandbox {
    let apps = |app: &Option<EnvironmentApp>| {
        let app = app.as_ref();
        let app = app.map(|app| App { key: app.app_key.clone(), secret: app.app_secret.clone() });
        app.into_iter().collect()
    };
    let (apps, plaid_apps) = (apps(&config.default_app), apps(&config.plaid_app));
    sandbox::Sandbox::new(sandbox::Settings { apps, plaid_apps, ..sandbox::Settings::default() })
}

/// Returns the URLs of the user's Dapi and Plaid, if they are not the sandbox's.
fn external(config: &Config, listeners: &Listeners) -> External {
    let external = |provider, configured: &ProviderConfig| {
        let base_url = configured.base_url.as_str();
        (base_url != listeners.base_url(provider)).then(|| base_url.to_owned())
    };
    let providers = &config.providers;
    External {
        dapi: external(Provider::Dapi, &providers.dapi),
        plaid: external(Provider::Plaid, &providers.plaid),
    }
}

/// Returns the folder of this program, for a shell's `PATH`.
fn program() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

/// Returns the client that `/docs/` offers: the bootstrap client, unless others than this machine reach the page.
fn docs_client(config: &Config) -> Option<DocsClient> {
    let client = config.bootstrap.as_ref().filter(|_| config.http.listen.ip().is_loopback())?;
    Some(DocsClient { id: client.id.clone(), secret: client.secret.clone() })
}

/// Returns the demo's client of the app at Dapi: the bootstrap client.
fn dapi_client(config: &Config) -> Result<AppClient, Failure> {
    let client = config.bootstrap.as_ref().ok_or_else(|| {
        let both = "STRONGROOM_BOOTSTRAP_CLIENT_ID and STRONGROOM_BOOTSTRAP_CLIENT_SECRET";
        Failure::Usage(format!("the demo needs a client; set both of {both}, or neither"))
    })?;
    Ok(AppClient {
        app: crate::apps::DEFAULT,
        id: client.id.clone(),
        secret: client.secret.clone(),
    })
}

/// Converts a start error; for a database that was sealed with other keys it names the way out.
fn start_failure(error: StartError, database: Option<&Path>) -> Failure {
    let other_keys = matches!(
        error,
        StartError::Vault(VaultError::UnknownMasterKey(_) | VaultError::WrongMasterKey(_))
    );
    match database.filter(|_| other_keys) {
        Some(database) => Failure::Other(format!(
            "{error}\nThe database in {} was made with keys that are not here. Bring them back, or \
             begin anew by moving that folder away.",
            database.display()
        )),
        None => error.into(),
    }
}
