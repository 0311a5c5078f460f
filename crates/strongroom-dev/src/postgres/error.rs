//! Why PostgreSQL did not start or stop, told so that a newcomer knows what to do next.
//!
//! Knows: home, for the end of the log.

use std::env::consts::{ARCH, OS};
use std::io;
use std::path::PathBuf;

use super::home::Home;

/// PostgreSQL could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no PostgreSQL on this machine.
    #[error("no PostgreSQL was found on this machine. Any one of these helps:\n{}", ways())]
    NoPrograms,
    /// The folder that was named has no PostgreSQL in it.
    #[error(
        "PG_BIN names {}, which does not hold PostgreSQL's programs `initdb` and `postgres`. \
         Correct it, unset it, or use one of these:\n{}", .0.display(), ways()
    )]
    NotPrograms(PathBuf),
    /// The programs are there and do not run.
    #[error("{} does not run: {reason}{}", .program.display(), way_out(.reason))]
    UnusableProgram {
        /// The program that was tried.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The data were made by a PostgreSQL that is not here.
    #[error(
        "the database in {} was made by PostgreSQL {made_by}, and PostgreSQL {found} cannot read it. \
         Nothing was changed. To keep it, install PostgreSQL {made_by} or set PG_BIN to the folder \
         of its programs. To begin anew, move it away:\n  mv '{0}' '{0}.{made_by}'",
        .folder.display()
    )]
    OtherVersion {
        /// The folder to move away.
        folder: PathBuf,
        /// The major version that made the data.
        made_by: u32,
        /// The major version that was found.
        found: u32,
    },
    /// Root asked, and there is nobody to run the server as.
    #[error(
        "PostgreSQL never runs as root, and this machine has neither a user `postgres` nor a user \
         `nobody` to run it as"
    )]
    NoAccount,
    /// The folder belongs to another user.
    #[error(
        "{} belongs to the user with the id {owner}. Run this as that user (for root it has to \
         belong to `postgres` or `nobody`), or name another folder",
        .folder.display()
    )]
    Foreign {
        /// The folder that was asked for.
        folder: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// The folder holds something else.
    #[error(
        "{} holds something other than a database of Strongroom's, and was left as it is. Name an \
         empty folder, or one that does not exist", .0.display()
    )]
    NotADatabase(PathBuf),
    /// A throwaway database was asked for in the place of one that is there to stay.
    #[error(
        "{} holds a database already, which would be removed together with a throwaway one. Name \
         another folder", .0.display()
    )]
    NotThrowaway(PathBuf),
    /// Another process holds the folder, and no server answers there.
    #[error(
        "another process owns the database in {} and its PostgreSQL does not answer. End that \
         process, or name another folder", .0.display()
    )]
    Held(PathBuf),
    /// `initdb` failed.
    #[error("the database could not be made. PostgreSQL's `initdb` said:\n{log}")]
    NotMade {
        /// The end of what it said.
        log: String,
    },
    /// The server ended while it started.
    #[error("PostgreSQL ended while it started. The end of its log:\n{log}")]
    Exited {
        /// The end of its log.
        log: String,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready in time. The end of its log:\n{log}")]
    TooSlow {
        /// The end of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StartError {
    /// For `map_err`: what was being done when the operating system refused.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }

    pub(super) fn too_slow(home: &Home) -> Self {
        Self::TooSlow { log: home.log_tail() }
    }

    pub(super) fn exited(home: &Home) -> Self {
        Self::Exited { log: home.log_tail() }
    }
}

/// PostgreSQL could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It was told to stop and needs longer than anybody wants to wait. No data are in danger.
    #[error("the PostgreSQL in {} was told to stop and has not ended yet; it will", .0.display())]
    StillStopping(PathBuf),
}

/// What helps against the two usual reasons why a program does not run.
fn way_out(reason: &str) -> &'static str {
    if reason.contains("ermission denied") {
        ". PostgreSQL never runs as root; move it to a folder that its own user may enter, \
         such as /opt"
    } else if reason.contains("shared librar") {
        ". If it came by npm, its install script was skipped; run `npm rebuild --prefix ./.pg`"
    } else {
        ""
    }
}

/// The ways to a database, for a reader who has none.
fn ways() -> String {
    let os = if OS == "macos" { "darwin" } else { OS };
    let arch = match ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let package = format!("@embedded-postgres/{os}-{arch}");
    format!(
        "  Debian, Ubuntu   sudo apt install postgresql
  Fedora, RHEL     sudo dnf install postgresql-server
  macOS            brew install postgresql
  without root     npm i --prefix ./.pg {package}
                   export PG_BIN=./.pg/node_modules/{package}/native/bin
  a server of      export DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE
  your own"
    )
}
