//! `strongroom users`.

use clap::{Args, Subcommand};

use super::approvals::done;
use super::identity::{self, acting};
use crate::cli::Failure;
use crate::cli::clients::moment;
use crate::cli::output::{Output, count};
use crate::cli::session::app;
use crate::cli::wait::Wait;
use crate::common::ids::ErasureId;
use crate::config::{Config, Environment};
use crate::connections::erasure::{self, Erasure, Receipt, State};
use crate::{service, users};

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
/// The audit trail stays; it knows the user by a random name alone. Prints the signed receipt once the provider
/// has confirmed, which the running service sees to. Repeat the command to ask again. Needs the same
/// environment as `serve`. With `STRONGROOM_FOUR_EYES` set, a second person has to approve it.
#[derive(Debug, Args)]
struct Erase {
    /// The app's own name for the user.
    user: String,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// Do not ask before it is done; without a terminal nothing is asked.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
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
        let four_eyes = config.four_eyes;
        let (mut conn, vault, issuer) = service::issuer_of_one_command(config).await?;
        identity::resolve(&mut conn, environment).await?;
        let app = app(&mut conn, &self.app).await?.id;
        output.confirm(&format!("Everything of the user {} is destroyed.", self.user), self.yes)?;
        let operator = acting();
        let begun =
            erasure::begin(&mut conn, &vault, four_eyes, &operator, app, &self.user).await?;
        let id = done(output, begun)?;
        let id: ErasureId = id.ok_or_else(|| {
            Failure::Usage("there is no user of this name, and none was erased lately".to_owned())
        })?;
        let waiting = self.wait.begin(output, None);
        let found = loop {
            erasure::conclude(&mut conn, id).await?;
            let found = erasure::find(&mut conn, app, id).await?;
            let found = found.ok_or_else(|| Failure::other("the erasure is gone"))?;
            if found.erased.is_some() || !waiting.goes_on(&state(&found)).await? {
                break found;
            }
        };
        drop(waiting);
        let receipt = Receipt::of(&issuer, &found);
        let receipt = receipt.ok_or_else(|| Failure::other("no key signs receipts"))?;
        output.result(&receipt, || describe(&receipt));
        Ok(())
    }
}

/// Formats what an erasure waits for.
fn state(erasure: &Erasure) -> String {
    let waiting = count(erasure.outstanding, "connection");
    let error = erasure.last_error.as_deref();
    let error = error.map_or(String::new(), |error| format!("; the last error: {error}"));
    format!("waiting for the provider to confirm {waiting}{error}")
}

fn describe(receipt: &Receipt) -> String {
    if receipt.status == State::Pending {
        return format!(
            "{} is pending: nothing of the user's is usable, and the provider has not confirmed {} \
             yet. Repeat the command, or add --wait.",
            receipt.id,
            count(receipt.outstanding, "connection")
        );
    }
    let upstream = match receipt.unconfirmed {
        Some(0) => "confirmed by the provider".to_owned(),
        unconfirmed => {
            let tokens = count(unconfirmed.unwrap_or_default(), "token");
            format!("{tokens} unconfirmed by the provider")
        }
    };
    format!(
        "{} erased at {}, {upstream}.\n\n{}",
        receipt.id,
        moment(receipt.erased_at, ""),
        receipt.receipt.as_deref().unwrap_or_default()
    )
}
