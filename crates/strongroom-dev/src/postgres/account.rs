//! As whom PostgreSQL's programs run: it refuses to run as root.
//!
//! Knows nobody.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::User;

/// The user that PostgreSQL runs as where the caller is root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
}

impl Account {
    /// The users that a server may run as where the caller is root, the better one first.
    pub(super) fn all() -> Vec<Self> {
        ["postgres", "nobody"]
            .into_iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            .collect()
    }

    /// Makes a folder this user's own.
    pub(super) fn take(self, folder: &File) -> io::Result<()> {
        fchown(folder, Some(self.uid), Some(self.gid))?;
        folder.set_permissions(Permissions::from_mode(0o700))
    }

    /// Asked of the system itself rather than computed from modes: access lists have a say too.
    pub(super) async fn can_enter(self, folder: &Path) -> bool {
        let mut command = command(Path::new("/bin/sh"), Some(self));
        command.args(["-c", "cd \"$1\"", "sh"]).arg(folder);
        let status = tokio::process::Command::from(command).stderr(Stdio::null()).status();
        status.await.is_ok_and(|status| status.success())
    }
}

/// A command that runs as this user, or as the caller where none is given.
///
/// Nothing of the caller's environment, folder or input reaches it: variables such as `PGDATA` and
/// `PGPORT` would change what PostgreSQL does, and a server keeps the folder that it works in busy.
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
