//! The command line, one file per command.
//!
//! Exit status: 0 for success, 1 for a failure, 2 for a wrong command or configuration, 3 if nothing was done because it
//! waits for a second person.
//!
//! May import: everything.

mod approvals;
mod apps;
mod audit;
mod clients;
mod connections;
#[cfg(feature = "dev")]
mod dev;
mod health;
mod identity;
mod keys;
mod migrate;
mod openapi;
mod operators;
mod output;
mod revocations;
#[cfg(feature = "dev")]
mod sandbox;
mod serve;
mod session;
mod shell;
mod sweep;
mod upstreams;
mod users;
mod wait;
mod webhooks;
#[cfg(not(feature = "dev"))]
mod without_dev;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Environment};
use crate::database::Fenced;
use crate::service::StartError;
use crate::vault::VaultError;
use output::Output;

/// Strongroom: the service behind a "connect your bank" button.
///
/// It exchanges the access codes that Dapi's Connect layer returns for access tokens, keeps the
/// tokens sealed per user in PostgreSQL, reveals them to your backends and revokes them with certainty.
#[cfg_attr(feature = "dev", doc = "")]
#[cfg_attr(feature = "dev", doc = "To try it without database or Dapi account: strongroom dev")]
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = output::Format::Text, help_heading = "Global options")]
    output: output::Format,
    /// The operator who acts, for the audit trail; without it the one whom your user is mapped to.
    #[arg(long = "as", global = true, value_name = "NAME", help_heading = "Global options")]
    operator: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    #[cfg(feature = "dev")]
    Sandbox(sandbox::Sandbox),
    #[cfg(not(feature = "dev"))]
    #[command(hide = true)]
    Dev(without_dev::WithoutDev),
    #[cfg(not(feature = "dev"))]
    #[command(hide = true)]
    Sandbox(without_dev::WithoutDev),
    Health(health::Health),
    Migrate(migrate::Migrate),
    Apps(apps::Apps),
    Operators(operators::Operators),
    Approvals(approvals::Approvals),
    Clients(clients::Clients),
    Connections(connections::Connections),
    Revocations(revocations::Revocations),
    Users(users::Users),
    Upstreams(upstreams::Upstreams),
    Webhooks(webhooks::Webhooks),
    Keys(keys::Keys),
    Audit(audit::Audit),
    Sweep(sweep::Sweep),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument or a setting does not fit the database or a file.
    #[error("{0}")]
    Usage(String),
    /// Nothing was done: it waits for a second person, as was printed.
    #[error("nothing was done: it waits for a second person")]
    Awaits,
    /// Everything else, with a message for the operator.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Awaits => ExitCode::from(3),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<crate::approvals::AskError> for Failure {
    fn from(error: crate::approvals::AskError) -> Self {
        Self::other(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Refused { .. } => Self::Usage(error.to_string()),
            error => Self::other(error),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match Fenced::of(&error) {
            Some(Fenced::Moving) => Self::other(
                "the app is being moved to another deployment, and nothing of it changes here meanwhile; \
                 `strongroom apps export APP --abort` takes the export back",
            ),
            Some(Fenced::Moved) => Self::other("the app has moved to another deployment"),
            None => Self::other(error),
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Database(error) => error.into(),
            error => Self::other(error),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut environment = Environment::of_process();
    if let Some(name) = cli.operator {
        environment.set(identity::AS, name);
    }
    let output = Output::new(cli.output);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime
        .map_err(Failure::other)
        .and_then(|runtime| runtime.block_on(cli.command.run(&environment, &output)));
    crate::telemetry::finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Awaits) {
                output.error(&failure);
            }
            failure.exit_code()
        }
    }
}

impl Command {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Serve(command) => command.run(environment).await,
            #[cfg(feature = "dev")]
            Self::Dev(command) => command.run(environment, output).await,
            #[cfg(feature = "dev")]
            Self::Sandbox(command) => command.run(output).await,
            #[cfg(not(feature = "dev"))]
            Self::Dev(_) => without_dev::refuse("dev"),
            #[cfg(not(feature = "dev"))]
            Self::Sandbox(_) => without_dev::refuse("sandbox"),
            Self::Health(command) => command.run(environment, output).await,
            Self::Migrate(command) => command.run(environment, output).await,
            Self::Apps(command) => command.run(environment, output).await,
            Self::Operators(command) => command.run(environment, output).await,
            Self::Approvals(command) => command.run(environment, output).await,
            Self::Clients(command) => command.run(environment, output).await,
            Self::Connections(command) => command.run(environment, output).await,
            Self::Revocations(command) => command.run(environment, output).await,
            Self::Users(command) => command.run(environment, output).await,
            Self::Upstreams(command) => command.run(environment, output).await,
            Self::Webhooks(command) => command.run(environment, output).await,
            Self::Keys(command) => command.run(environment, output).await,
            Self::Audit(command) => command.run(environment, output).await,
            Self::Sweep(command) => command.run(environment, output).await,
            Self::OpenApi(_) => openapi::OpenApi::run(output),
            Self::Completions(command) => {
                command.run();
                Ok(())
            }
            Self::Man(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_keys_id_that_begins_with_a_hyphen_is_no_option() {
        for line in ["keys signing revoke -Jq3x", "keys signing revoke --output=json -Jq3x"] {
            assert!(Cli::try_parse_from(["strongroom"].into_iter().chain(line.split(' '))).is_ok());
        }
    }
}
