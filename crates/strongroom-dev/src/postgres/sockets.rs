//! The folders that servers put their sockets in: short, private, and swept when a server left one
//! behind.
//!
//! Knows: home, pid file, error.

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

/// It only names the socket's file; nothing listens on a network.
pub(super) const PORT: u16 = 5432;
/// A socket's path may have about 107 bytes, so it cannot lie beside the data.
const PARENT: &str = "/tmp";
const PREFIX: &str = "strongroom-socket-";
/// A younger folder may belong to a server that is just starting.
const SWEPT_AFTER: Duration = Duration::from_mins(1);
/// A server that takes longer to accept a connection counts as none.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Makes a folder for the socket of a new server, of mode 0700.
pub(super) fn make(home: &Home) -> Result<PathBuf, StartError> {
    let template = format!("{PARENT}/{PREFIX}XXXXXX");
    let doing = || StartError::io(format!("making {template}"));
    let folder = nix::unistd::mkdtemp(template.as_str()).map_err(|errno| doing()(errno.into()))?;
    // Nobody can put another in its place: it is ours, in a folder with the sticky bit.
    let handed_over = File::open(&folder).and_then(|handle| home.hand_over(&handle));
    handed_over.map_err(doing())?;
    Ok(folder)
}

/// The socket folder of the server that runs on these data and accepts connections, if one does.
pub(super) async fn answering(data: &Path) -> Option<PathBuf> {
    let file = PidFile::read(data).filter(|file| file.ready)?;
    answers(&file.socket).await.then_some(file.socket)
}

/// Removes the socket folders of this user whose servers are gone.
pub(super) async fn sweep(home: &Home) {
    for entry in std::fs::read_dir(PARENT).into_iter().flatten().flatten() {
        let folder = entry.path();
        if is_old_folder_of(home, &folder) && !answers(&folder).await {
            remove(&folder);
        }
    }
}

fn is_old_folder_of(home: &Home, folder: &Path) -> bool {
    let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let old = |modified| Clock::system().now() - OffsetDateTime::from(modified) > SWEPT_AFTER;
    ours && folder.symlink_metadata().is_ok_and(|metadata| {
        metadata.is_dir()
            && home.may_belong_to(metadata.uid())
            && metadata.modified().is_ok_and(old)
    })
}

/// Removes what a server leaves; a folder that holds anything else stays.
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
