//! `strongroom dev`.

mod variables;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use strongroom_dev::banner::Addresses;
use strongroom_dev::demo::{self, reachable};
use strongroom_dev::folder::{DEMO_URL, Folder, FolderError, Made};
use strongroom_dev::postgres::{Durability, LocalPostgres, Settings};
use strongroom_dev::sandbox::{self, App, DEFAULT_APP_KEY, DEFAULT_APP_SECRET};

use super::Failure;
use super::output::Output;
use super::serve::{raise_file_limit, shutdown_signal};
use crate::base::clock::Clock;
use crate::base::secret::SecretText;
use crate::config::{Config, Environment};
use crate::service::{Service, StartError};
use crate::telemetry;
use crate::vault::{MasterKeys, VaultError};
use variables::{Variables, own_database_url};

/// Run everything that a newcomer needs, in one process.
///
/// That is a PostgreSQL of its own (unless `DATABASE_URL` is set), Dapi's sandbox in Dapi's place,
/// the service on 127.0.0.1:8080 (`STRONGROOM_LISTEN`), keys and a client made for the occasion, and
/// a demo page with a small backend behind it. It prints where they are, and curl lines to try.
///
/// What it makes is kept in a folder, so that a second start opens the same data. A variable that
/// you set yourself always wins. Logs go to standard error.
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
}

/// The listeners that `dev` opens itself, with the URLs by which a browser reaches them.
struct Doors {
    demo: TcpListener,
    demo_url: String,
    sandbox: TcpListener,
    sandbox_url: String,
}

impl Dev {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let folder = Folder::open(&self.folder).map_err(Failure::other)?;
        let doors = self.open_doors()?;
        let mut variables = Variables::of(environment, &folder.last_variables());
        offer(&mut variables, &made(&folder).map_err(Failure::other)?, &doors);
        let postgres = own_postgres(&folder, &mut variables).await?;
        let database = postgres.as_ref().map(|postgres| postgres.data_folder().to_owned());
        let served = serve(&folder, variables, doors, database, output).await;
        if let Some(postgres) = postgres {
            postgres.stop().await.map_err(Failure::other)?;
        }
        served
    }

    fn open_doors(&self) -> Result<Doors, Failure> {
        let (demo, demo_url) = open_door("--demo-listen", self.demo_listen)?;
        let (sandbox, sandbox_url) = open_door("--sandbox-listen", self.sandbox_listen)?;
        Ok(Doors { demo, demo_url, sandbox, sandbox_url })
    }
}

fn open_door(flag: &str, address: SocketAddr) -> Result<(TcpListener, String), Failure> {
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

/// What the folder keeps; the master key that it needs is made here, by the vault's own rules.
fn made(folder: &Folder) -> Result<Made, FolderError> {
    folder.made(|| MasterKeys::generate().map(|key| SecretText::new(key.to_string())))
}

/// Fills in what the user left out.
fn offer(variables: &mut Variables, made: &Made, doors: &Doors) {
    variables.offer([("STRONGROOM_MASTER_KEYS", made.master_keys.expose())]);
    variables.offer([
        ("STRONGROOM_BOOTSTRAP_CLIENT_ID", &made.client_id),
        ("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", made.client_secret.expose()),
    ]);
    variables.offer([("DAPI_BASE_URL", &format!("{}/v2", doors.sandbox_url))]);
    variables.offer([("DAPI_APP_KEY", DEFAULT_APP_KEY), ("DAPI_APP_SECRET", DEFAULT_APP_SECRET)]);
    // The sandbox's other systems are upstreams to try, and they are on this machine.
    variables.prefer("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    variables.prefer("STRONGROOM_LOG_FORMAT", "text");
    variables.prefer("STRONGROOM_LOG", "info,actix_server=warn,sqlx=warn");
    variables.add("STRONGROOM_CORS_ORIGINS", &doors.demo_url);
    variables.tell("SANDBOX_URL", &doors.sandbox_url);
    variables.tell(DEMO_URL, &doors.demo_url);
}

/// The newcomer's database, unless they have one.
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
    variables.offer([("DATABASE_URL", &own_database_url(&postgres.url()))]);
    Ok(Some(postgres))
}

/// Runs the service, the sandbox and the demo until a signal ends them.
async fn serve(
    folder: &Folder,
    mut variables: Variables,
    doors: Doors,
    database: Option<PathBuf>,
    output: &Output,
) -> Result<(), Failure> {
    let config = Config::from_environment(variables.environment())?;
    telemetry::init_on_stderr(&config.log);
    raise_file_limit();
    let sandbox = stand_in(&config);
    let demo = demo_settings(&config, &doors)?;
    let built = Service::build(config, Clock::system()).await;
    let service = built.map_err(|error| told(error, database.as_deref()))?;
    let api = local_url(service.address());
    variables.offer([("STRONGROOM_PUBLIC_URL", service.public_url().as_str())]);
    folder.tell_variables(variables.offered()).map_err(Failure::other)?;

    let addresses = Addresses {
        demo: doors.demo_url,
        docs: format!("{api}/docs/"),
        api,
        sandbox: doors.sandbox_url,
        metrics: format!("{}/metrics", local_url(service.metrics_address())),
        env_file: folder.env_file(),
        database_folder: database,
        foreign_dapi: demo.foreign_dapi.clone(),
    };
    let demo = demo::server(demo, &addresses.api, doors.demo)?;
    let neighbours = [sandbox::server(&sandbox, doors.sandbox)?, demo];
    let neighbours = neighbours.map(|server| (server.handle(), tokio::spawn(server)));
    let shutdown = shutdown_signal()?;
    output.result(&addresses, || addresses.banner(demo::USER));
    let ran = service.run(shutdown).await;
    for (handle, server) in neighbours {
        handle.stop(true).await;
        let _ = server.await;
    }
    Ok(ran?)
}

/// A sandbox that knows the app that the service will use.
fn stand_in(config: &Config) -> sandbox::Sandbox {
    let app = config.default_app.as_ref();
    let apps = app.map(|app| App { key: app.app_key.clone(), secret: app.app_secret.clone() });
    let apps = apps.into_iter().collect();
    sandbox::Sandbox::new(sandbox::Settings { apps, ..sandbox::Settings::default() })
}

/// Where exchanges go, if the user wants them elsewhere than to the sandbox.
fn foreign_dapi(config: &Config, doors: &Doors) -> Option<String> {
    let base_url = config.dapi.base_url.as_str();
    (base_url != format!("{}/v2", doors.sandbox_url)).then(|| base_url.to_owned())
}

fn demo_settings(config: &Config, doors: &Doors) -> Result<demo::Settings, Failure> {
    let client = config.bootstrap.as_ref().ok_or_else(|| {
        let both = "STRONGROOM_BOOTSTRAP_CLIENT_ID and STRONGROOM_BOOTSTRAP_CLIENT_SECRET";
        Failure::Usage(format!("the demo needs a client; set both of {both}, or neither"))
    })?;
    Ok(demo::Settings {
        sandbox: doors.sandbox_url.clone(),
        foreign_dapi: foreign_dapi(config, doors),
        client_id: client.id.clone(),
        client_secret: client.secret.clone(),
        app: crate::apps::DEFAULT,
        database: config.database.service.hosts().first().cloned().unwrap_or_default(),
    })
}

/// What kept the service from starting; a database that was sealed with other keys has a way out.
fn told(error: StartError, database: Option<&Path>) -> Failure {
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
