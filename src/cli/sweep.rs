//! `strongroom sweep`.

use clap::Args;

use crate::cli::Failure;
use crate::cli::output::Output;
use crate::config::{Config, Environment};
use crate::connections::reconcile;
use crate::service;

/// Run one round of the background work by hand and say what it did.
///
/// The service does this by itself all the time. By hand it helps where no service runs: it ends
/// codes whose window closed, takes up exchanges that did not conclude, and repeats delinkings
/// that Dapi has not confirmed. Needs the same environment as `serve`.
#[derive(Debug, Args)]
pub(super) struct Sweep {}

impl Sweep {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let config = Config::from_environment(environment)?;
        let context = service::context_of_one_round(config).await?;
        let round = reconcile::round(&context).await.map_err(Failure::other)?;
        let round = round.finish().await;
        output.result(&round, || {
            format!(
                "expired    {}\nexchanges  {} taken up\ndelinks    {} sent to Dapi\nsettled    {}\n\
                 released   {} of bulk revocations\nerased     {} users",
                round.expired,
                round.exchanges,
                round.delinks,
                round.decided,
                round.released,
                round.erased
            )
        });
        Ok(())
    }
}
