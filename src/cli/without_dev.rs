//! `strongroom dev` and `strongroom sandbox` in a build without the development tools, which is
//! what production runs: both are recognized, and the error names the build that has them.

use std::ffi::OsString;

use clap::Args;

use super::Failure;

/// This build does not have the development tools.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct WithoutDev {
    /// Whatever the command takes where it exists.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Fails with the name of the build that has this command.
pub(super) fn refuse(name: &str) -> Result<(), Failure> {
    Err(Failure::Usage(format!(
        "this build has no `{name}`: it was built without the development tools; use a build with \
         the default features (in a checkout: cargo run -- {name})"
    )))
}
