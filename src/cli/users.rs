//! `strongroom users`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::Failure;
use crate::cli::clients::moment;
use crate::cli::output::Output;
use crate::cli::session::app;
use crate::common::actor::Actor;
use crate::common::ids::ErasureId;
use crate::config::{Config, Environment};
use crate::connections::erasure::{self, Receipt, State};
use crate::{service, users};

/// How often Dapi's confirmation is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The app's users.
#[derive(Debug, Args)]
pub(super) struct Users {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Erase(Erase),
}

/// Erase a user: revoke all that is linked, then destroy it with the key that sealed it.
///
/// The audit trail stays; it knows the user by a random name alone. Prints the signed receipt once Dapi
/// has confirmed, which the running service sees to. Repeat the command to ask again. Needs the same
/// environment as `serve`.
#[derive(Debug, Args)]
struct Erase {
    /// The app's own name for the user.
    user: String,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// Stay until it is through.
    #[arg(long)]
    wait: bool,
}

impl Users {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let Command::Erase(erase) = self.command;
        erase.run(environment, output).await
    }
}

impl Erase {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        users::check_client_user_id(&self.user)
            .map_err(|what| Failure::Usage(format!("the user's name {what}")))?;
        let config = Config::from_environment(environment)?;
        let (mut conn, vault, issuer) = service::issuer_of_one_command(config).await?;
        let app = app(&mut conn, &self.app).await?.id;
        let operator = Actor::operator();
        let id = erasure::begin(&mut conn, &vault, &operator, app, &self.user).await?;
        let id: ErasureId = id.ok_or_else(|| {
            Failure::Usage("there is no user of this name, and none was erased lately".to_owned())
        })?;
        let found = loop {
            erasure::conclude(&mut conn, id).await?;
            let found = erasure::find(&mut conn, app, id).await?;
            let found = found.ok_or_else(|| Failure::other("the erasure is gone"))?;
            if found.erased.is_some() || !self.wait {
                break found;
            }
            output.progress(&format!("waiting for Dapi: {} connections", found.outstanding));
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        output.progress_done();
        let receipt = Receipt::of(&issuer, &found);
        let receipt = receipt.ok_or_else(|| Failure::other("no key signs receipts"))?;
        output.result(&receipt, || describe(&receipt));
        Ok(())
    }
}

fn describe(receipt: &Receipt) -> String {
    if receipt.status == State::Pending {
        return format!(
            "{} is pending: nothing of the user's is usable, and Dapi has not confirmed {} \
             connections yet. Repeat the command, or add --wait.",
            receipt.id, receipt.outstanding
        );
    }
    let upstream = match receipt.unconfirmed {
        Some(0) => "confirmed by Dapi".to_owned(),
        count => format!("{} tokens unconfirmed by Dapi", count.unwrap_or_default()),
    };
    format!(
        "{} erased at {}, {upstream}.\n\n{}",
        receipt.id,
        moment(receipt.erased_at, ""),
        receipt.receipt.as_deref().unwrap_or_default()
    )
}
