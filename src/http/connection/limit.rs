//! The limit of open files, each connection being one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many files as are ever of use here; the table of them is not to grow beyond.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// The system's.
pub fn raise_limit() -> std::io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(ENOUGH);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

/// How many files this process may have open.
#[must_use]
pub fn open_files() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(soft.min(ENOUGH)).unwrap_or(1024)
}
