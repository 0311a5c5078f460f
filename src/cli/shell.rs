//! `strongroom completions` and `strongroom man`: what a shell and `man` know of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print completions for a shell.
///
/// Examples: source <(strongroom completions bash), strongroom completions zsh > ~/.zfunc/_strongroom,
/// strongroom completions fish > ~/.config/fish/completions/strongroom.fish
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell: `bash`, `zsh`, `fish`, `powershell` or `elvish`.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) {
        let mut command = Cli::command();
        clap_complete::generate(self.shell, &mut command, "strongroom", &mut std::io::stdout());
    }
}

/// Write man pages, one for each command, into a folder.
///
/// Example: strongroom man ~/.local/share/man/man1
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder. It is made if it does not exist.
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(Cli::command(), &self.folder)?;
        Ok(())
    }
}
