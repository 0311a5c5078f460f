//! The limit on open files; each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More files than this are never needed, and the kernel's table of them should not grow beyond.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit on open files to the hard one.
///
/// # Errors
/// The operating system's.
pub fn raise_limit() -> std::io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(ENOUGH);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

/// Returns how many files this process may open.
#[must_use]
pub fn open_files() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(soft.min(ENOUGH)).unwrap_or(1024)
}
