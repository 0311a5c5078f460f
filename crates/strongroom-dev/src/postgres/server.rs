//! PostgreSQL's programs as processes: each runs under a small shell that outlives this process just long
//! enough to stop it.
//!
//! May import: home, programs, sockets, pid file, error.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};

use tokio::time::{Instant, sleep};

use super::error::StartError;
use super::home::{Home, UNFINISHED};
use super::pid_file::PidFile;
use super::programs::Programs;
use super::{Durability, STEP, sockets};

/// Runs a program for a parent that may die at any moment, even by SIGKILL. The parent holds the other end of
/// standard input and writes nothing; end of input means that it released the program or is gone. The shell then
/// sends SIGNAL to the program and afterwards removes what should not remain.
///
/// Arguments: LOG SIGNAL LITTER LITTER PROGRAM [ARGUMENT ...]
///
/// - The signal is repeated: a program that a shell runs in the background ignores some signals until it has
///   installed its handlers, and an early one would be lost.
/// - A program that fails by itself leaves the litter, because the parent still needs the log; one that was
///   killed does not.
/// - SIGUSR1 ends the watcher if the program ended first, so that it cannot signal a process that has reused the
///   pid. Only a watcher that saw end of input exits with status 0.
const SUPERVISOR: &str = r#"
trap '' HUP INT TERM
umask 077
log=$1 signal=$2 litter=$3 more_litter=$4
shift 4
: >"$log"
exec 3<&0 </dev/null >>"$log" 2>&1
"$@" 3<&- &
program=$!
(
  read -r line <&3
  nap=
  trap 'kill -s KILL $nap; exit 0' USR1
  exec 2>/dev/null
  while kill -s "$signal" "$program"; do
    sleep 1 &
    nap=$!
    wait "$nap"
  done
) &
watcher=$!
exec 3<&-
wait "$program"
status=$?
kill -s USR1 "$watcher"
wait "$watcher" 2>/dev/null
if [ $? -eq 0 ] || [ "$status" -gt 128 ]; then
  rm -rf -- "$litter" "$more_litter"
fi
exit "$status"
"#;

/// A program under its supervisor.
#[derive(Debug)]
pub(super) struct Server {
    supervisor: Child,
    /// Closing it stops the program.
    leash: Option<ChildStdin>,
}

/// How a start ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ready,
    Exited,
    TooSlow,
}

impl Server {
    /// Starts the server on the home's data.
    pub(super) fn spawn(
        home: &Home,
        programs: &Programs,
        socket: &Path,
        durability: Durability,
    ) -> Result<Self, StartError> {
        let (signal, litter) = match durability {
            // "Fast" shutdown: closes the connections and writes a checkpoint.
            Durability::Durable => ("INT", socket),
            // "Immediate" shutdown: nothing is worth writing.
            Durability::Throwaway => ("QUIT", home.folder()),
        };
        let arguments = arguments(&home.data(), socket, durability);
        let program = programs.program("postgres");
        Self::supervise(home, signal, [socket, litter], &program, &arguments)
    }

    fn supervise(
        home: &Home,
        signal: &str,
        litter: [&Path; 2],
        program: &Path,
        arguments: &[OsString],
    ) -> Result<Self, StartError> {
        let mut supervisor = home
            .command(Path::new("/bin/sh"))
            .args(["-c", SUPERVISOR, "strongroom-postgres"])
            .arg(home.log())
            .arg(signal)
            .args(litter)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            // Outside of the terminal's process group: after Ctrl-C the service drains before its database stops.
            .process_group(0)
            .spawn()
            .map_err(StartError::io(format!("running {}", program.display())))?;
        let leash = supervisor.stdin.take();
        Ok(Self { supervisor, leash })
    }

    /// Waits until the server accepts connections on this socket.
    ///
    /// An earlier server's file may still say `ready`, hence the check of the socket's folder.
    pub(super) async fn ready(&mut self, data: &Path, socket: &Path, deadline: Instant) -> Ending {
        loop {
            if PidFile::read(data).is_some_and(|file| file.ready && file.socket == socket) {
                return Ending::Ready;
            }
            if self.status().is_some() {
                return Ending::Exited;
            }
            if Instant::now() > deadline {
                return Ending::TooSlow;
            }
            sleep(STEP).await;
        }
    }

    /// Makes the supervisor stop the program.
    pub(super) fn let_go(&mut self) {
        self.leash = None;
    }

    /// Waits for the program's end; returns `None` if the deadline passes first.
    ///
    /// Polls instead of using the runtime, so that a server may be stopped on another runtime than the one that
    /// started it.
    pub(super) async fn ended(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            let status = self.status();
            if status.is_some() || Instant::now() > deadline {
                return status;
            }
            sleep(STEP).await;
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.supervisor.try_wait().ok().flatten()
    }
}

/// Creates the data under a temporary name and renames them when complete: half of them would look like a
/// database to the next start.
pub(super) async fn make_data(
    home: &Home,
    programs: &Programs,
    durability: Durability,
    deadline: Instant,
) -> Result<(), StartError> {
    remove_unfinished(home);
    let unfinished = home.folder().join(format!("{UNFINISHED}{}", std::process::id()));
    let mut arguments = Vec::from([OsStr::new("-D"), unfinished.as_os_str()].map(OsString::from));
    let options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"];
    arguments.extend(options.map(OsString::from));
    let litter = match durability {
        Durability::Durable => unfinished.as_path(),
        Durability::Throwaway => {
            arguments.push("--no-sync".into());
            home.folder()
        }
    };
    let initdb = programs.program("initdb");
    let mut made = Server::supervise(home, "TERM", [litter; 2], &initdb, &arguments)?;
    match made.ended(deadline).await {
        Some(status) if status.success() => {}
        Some(_) => {
            return Err(StartError::NotMade { log: home.log_tail() });
        }
        None => return Err(StartError::too_slow(home)),
    }
    let doing = StartError::io(format!("renaming {}", unfinished.display()));
    std::fs::rename(&unfinished, home.data()).map_err(doing)
}

/// Removes what interrupted starts left. The caller holds the lock, so none of it is in use.
fn remove_unfinished(home: &Home) {
    let entries = std::fs::read_dir(home.folder()).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn arguments(data: &Path, socket: &Path, durability: Durability) -> Vec<OsString> {
    let port = sockets::PORT.to_string();
    let mut arguments = vec![
        OsStr::new("-D"),
        data.as_os_str(),
        OsStr::new("-k"),
        socket.as_os_str(),
        OsStr::new("-p"),
        OsStr::new(&port),
        OsStr::new("-c"),
        OsStr::new("listen_addresses="),
    ];
    if durability == Durability::Throwaway {
        for setting in
            ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off"]
        {
            arguments.extend([OsStr::new("-c"), OsStr::new(setting)]);
        }
    }
    arguments.into_iter().map(OsStr::to_owned).collect()
}
