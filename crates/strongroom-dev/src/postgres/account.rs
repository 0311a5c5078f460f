//! The user that PostgreSQL's programs run as: they refuse to run as root.
//!
//! Imports no other module.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::User;

/// The user that PostgreSQL runs as if the caller is root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
}

impl Account {
    /// Returns the users that a server may run as if the caller is root, the preferred one first.
    pub(super) fn all() -> Vec<Self> {
        ["postgres", "nobody"]
            .into_iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            .collect()
    }

    /// Gives a folder to this user.
    pub(super) fn take(self, folder: &File) -> io::Result<()> {
        fchown(folder, Some(self.uid), Some(self.gid))?;
        folder.set_permissions(Permissions::from_mode(0o700))
    }

    /// Returns whether the user can enter the folder. Asks the system, because access lists count as well as modes.
    pub(super) async fn can_enter(self, folder: &Path) -> bool {
        let mut command = command(Path::new("/bin/sh"), Some(self));
        command.args(["-c", "cd \"$1\"", "sh"]).arg(folder);
        let status = tokio::process::Command::from(command).stderr(Stdio::null()).status();
        status.await.is_ok_and(|status| status.success())
    }
}

/// Creates a command that runs as this user, or as the caller if there is none.
///
/// It inherits neither environment nor working folder nor input: variables such as `PGDATA` and `PGPORT` would
/// change what PostgreSQL does, and a server keeps its working folder busy.
pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(account) = account {
        // This drops root's supplementary groups as well.
        command.uid(account.uid).gid(account.gid);
    }
    command
}
