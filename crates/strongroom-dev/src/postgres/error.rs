//! Why PostgreSQL did not start or stop, worded so that a newcomer knows what to do next.
//!
//! May import: home, for the end of the log.

use std::env::consts::{ARCH, OS};
use std::io;
use std::path::PathBuf;

use super::home::Home;

/// Why PostgreSQL could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no PostgreSQL on this machine.
    #[error("no PostgreSQL was found on this machine. Any one of these helps:\n{}", ways())]
    NoPrograms,
    /// The folder named by `PG_BIN` does not hold PostgreSQL's programs.
    #[error(
        "PG_BIN names {}, which does not hold PostgreSQL's programs `initdb` and `postgres`. \
         Correct it, unset it, or use one of these:\n{}", .0.display(), ways()
    )]
    NotPrograms(PathBuf),
    /// The programs exist but do not run.
    #[error("{} does not run: {reason}{}", .program.display(), way_out(.reason))]
    UnusableProgram {
        /// The program that failed.
        program: PathBuf,
        /// How it failed.
        reason: String,
    },
    /// The data were created by a version that is not installed.
    #[error(
        "the database in {} was made by PostgreSQL {made_by}, and PostgreSQL {found} cannot read it. \
         Nothing was changed. To keep it, install PostgreSQL {made_by} or set PG_BIN to the folder \
         of its programs. To begin anew, move it away:\n  mv '{0}' '{0}.{made_by}'",
        .folder.display()
    )]
    OtherVersion {
        /// The folder to move away.
        folder: PathBuf,
        /// The major version that created the data.
        made_by: u32,
        /// The major version that was found.
        found: u32,
    },
    /// The caller is root, and there is no user to run the server as.
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
    OfAnotherUser {
        /// The requested folder.
        folder: PathBuf,
        /// The uid of its owner.
        owner: u32,
    },
    /// The folder holds something other than a database.
    #[error(
        "{} holds something other than a database of Strongroom's, and was left as it is. Name an \
         empty folder, or one that does not exist", .0.display()
    )]
    NotADatabase(PathBuf),
    /// A throwaway database was requested in the folder of a durable one.
    #[error(
        "{} holds a database already, which would be removed together with a throwaway one. Name \
         another folder", .0.display()
    )]
    NotThrowaway(PathBuf),
    /// Another process holds the folder's lock, and no server answers there.
    #[error(
        "another process owns the database in {} and its PostgreSQL does not answer. End that \
         process, or name another folder", .0.display()
    )]
    Held(PathBuf),
    /// `initdb` failed.
    #[error("the database could not be made. PostgreSQL's `initdb` said:\n{log}")]
    NotMade {
        /// The end of its output.
        log: String,
    },
    /// The server exited while it started.
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
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// The operation, with the path.
        doing: String,
        /// The operating system's error.
        source: io::Error,
    },
}

impl StartError {
    /// Returns a function for `map_err` that adds the operation.
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
    /// The server was signalled and is still stopping after the limit. No data are in danger.
    #[error("the PostgreSQL in {} was told to stop and has not ended yet; it will", .0.display())]
    StillStopping(PathBuf),
}

/// Returns advice on the two usual reasons why a program does not run.
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

/// Lists the ways to get a database, for a reader who has none.
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
