//! The folders of servers' sockets: short, private, and removed when a server left one behind.
//!
//! May import: home, pid file, error.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::UnixStream;

use super::error::StartError;
use super::home::Home;
use super::pid_file::PidFile;
use strongroom_common::clock::Clock;

/// Only part of the socket file's name; nothing listens on a network.
pub(super) const PORT: u16 = 5432;
/// A socket's path is limited to about 107 bytes, so it cannot be in the data folder.
const PARENT: &str = "/tmp";
const PREFIX: &str = "strongroom-socket-";
/// A younger folder may belong to a server that is just starting.
const REMOVED_AFTER: Duration = Duration::from_mins(1);
/// A server that takes longer to accept a connection counts as absent.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Creates a folder for the socket of a new server, with mode 0700.
pub(super) fn make(home: &Home) -> Result<PathBuf, StartError> {
    let template = format!("{PARENT}/{PREFIX}XXXXXX");
    let doing = || StartError::io(format!("making {template}"));
    let folder = nix::unistd::mkdtemp(template.as_str()).map_err(|errno| doing()(errno.into()))?;
    // No other user can replace it: it is ours, in a folder with the sticky bit.
    let handed_over = File::open(&folder).and_then(|handle| home.hand_over(&handle));
    handed_over.map_err(doing())?;
    Ok(folder)
}

/// Returns the socket folder of the server on these data, if one accepts connections.
pub(super) async fn answering(data: &Path) -> Option<PathBuf> {
    let file = PidFile::read(data).filter(|file| file.ready)?;
    answers(&file.socket).await.then_some(file.socket)
}

/// Removes this user's socket folders whose servers are gone.
pub(super) async fn remove_abandoned(home: &Home) {
    for entry in std::fs::read_dir(PARENT).into_iter().flatten().flatten() {
        let folder = entry.path();
        if is_old_folder_of(home, &folder) && !answers(&folder).await {
            remove(&folder);
        }
    }
}

fn is_old_folder_of(home: &Home, folder: &Path) -> bool {
    let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let old = |modified| Clock::system().now() - OffsetDateTime::from(modified) > REMOVED_AFTER;
    ours && folder.symlink_metadata().is_ok_and(|metadata| {
        metadata.is_dir()
            && home.may_belong_to(metadata.uid())
            && metadata.modified().is_ok_and(old)
    })
}

/// Removes a server's files; keeps a folder that holds anything else.
fn remove(folder: &Path) {
    let socket = socket(folder);
    let lock = socket.with_extension(format!("{PORT}.lock"));
    for file in [socket, lock] {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_dir(folder);
}

async fn answers(folder: &Path) -> bool {
    let connection = UnixStream::connect(socket(folder));
    matches!(tokio::time::timeout(ANSWER_LIMIT, connection).await, Ok(Ok(_)))
}

fn socket(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}
