//! `postmaster.pid`, in which a server reports its state.
//!
//! Imports no other module.

use std::path::{Path, PathBuf};

/// The contents of the file, written by the last server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The folder of its socket, line 5.
    pub(super) socket: PathBuf,
    /// Whether line 8 says `ready`. It still does after the server was killed.
    pub(super) ready: bool,
}

impl PidFile {
    /// Returns whether a server holds the data, or died without releasing them.
    pub(super) fn exists(data: &Path) -> bool {
        path(data).exists()
    }

    /// Reads the file; returns `None` while it is missing or incomplete.
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
