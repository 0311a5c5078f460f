//! `strongroom openapi`.

use clap::Args;

use super::Failure;
use super::output::Output;
use crate::service;

/// Print the `OpenAPI` document of this release, as `/openapi.json` serves it.
#[derive(Debug, Args)]
pub(super) struct OpenApi {}

impl OpenApi {
    pub(super) fn run(output: &Output) -> Result<(), Failure> {
        let document = service::document();
        let text = serde_json::to_string_pretty(&document).map_err(Failure::other)?;
        output.result(&document, || text);
        Ok(())
    }
}
