//! `postmaster.pid`, in which a server tells how far it is.
//!
//! Knows nobody.

use std::path::{Path, PathBuf};

/// What the file tells of the server that wrote it last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The folder of its socket, line 5.
    pub(super) socket: PathBuf,
    /// Whether line 8 says `ready`. Where the server was killed it goes on saying so.
    pub(super) ready: bool,
}

impl PidFile {
    /// Whether some server holds the data, or died without letting go of them.
    pub(super) fn exists(data: &Path) -> bool {
        path(data).exists()
    }

    /// `None` while the file is missing or not yet complete.
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path(data)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let socket = lines.nth(4)?;
        let status = lines.nth(2)?;
        Some(Self { socket: PathBuf::from(socket), ready: status.trim() == "ready" })
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_and_the_eighth_line_of_the_pid_file_count() {
        let text = "4711\n/x/data\n1762000000\n5432\n/tmp/s\n\n 1 2\nready   \n";
        let socket = PathBuf::from("/tmp/s");
        assert_eq!(PidFile::parse(text), Some(PidFile { socket: socket.clone(), ready: true }));
        let starting = text.replace("ready   ", "starting");
        assert_eq!(PidFile::parse(&starting), Some(PidFile { socket, ready: false }));
        assert_eq!(PidFile::parse("4711\n/x/data\n1762000000\n5432\n/tmp/s\n\n"), None);
    }
}
