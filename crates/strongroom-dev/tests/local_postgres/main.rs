//! `postgres` against the real PostgreSQL of this machine.
//!
//! Run as root, these tests cover the change to another user; run as anybody else, the plain way.

#![expect(
    clippy::expect_used,
    reason = "what a test leans on is there or the test fails; clippy sees no test in a helper"
)]

mod deaths;
mod lives;
mod refusals;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use strongroom_dev::postgres::{Durability, LocalPostgres, Settings};
use tempfile::TempDir;

/// Long enough for a loaded machine; no success takes this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tells the child process of a test which folder to use.
const CHILD_FOLDER: &str = "STRONGROOM_TEST_CHILD_FOLDER";
const CHILD_THROWAWAY: &str = "STRONGROOM_TEST_CHILD_THROWAWAY";

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration to read the environment for it"
)]
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Creates a folder that everybody may enter, so that root's server can be in it.
fn temporary() -> TempDir {
    with_mode(0o755)
}

fn with_mode(mode: u32) -> TempDir {
    tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(mode))
        .tempdir()
        .expect("a temporary folder")
}

fn settings(folder: impl Into<PathBuf>, durability: Durability) -> Settings {
    Settings {
        folder: folder.into(),
        durability,
        programs: environment("PG_BIN").map(PathBuf::from),
        path: environment("PATH"),
    }
}

async fn start(folder: impl Into<PathBuf>, durability: Durability) -> LocalPostgres {
    LocalPostgres::start(settings(folder, durability))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(server: &LocalPostgres) -> PgConnection {
    PgConnection::connect_with(&server.connect_options()).await.expect("a connection")
}

async fn run(server: &LocalPostgres, sql: &'static str) {
    let mut connection = connect(server).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
}

async fn text(server: &LocalPostgres, sql: &'static str) -> String {
    let mut connection = connect(server).await;
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql)
}

/// Returns the pid of the server, line 1 of its file.
fn server_pid(folder: &Path) -> String {
    let file = folder.join("data/postmaster.pid");
    let file = std::fs::read_to_string(file).expect("postmaster.pid");
    file.lines().next().expect("a first line").to_owned()
}

fn socket_folder(server: &LocalPostgres) -> PathBuf {
    let options = server.connect_options();
    options.get_socket().expect("a socket").clone()
}

fn signal(name: &str, pid: &str) -> bool {
    let status = Command::new("kill").args(["-s", name, pid]).stderr(Stdio::null()).status();
    status.expect("kill").success()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

fn is_root(folder: &TempDir) -> bool {
    folder.path().metadata().expect("metadata").uid() == 0
}

/// Runs this test binary again, as a process that owns a server and can be killed.
fn child(folder: &Path, durability: Durability) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "deaths::own_a_server_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .env(CHILD_THROWAWAY, if durability == Durability::Throwaway { "1" } else { "" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// Waits for the child's server and returns its URL.
fn url_of(child: &mut Child) -> String {
    let lines = BufReader::new(child.stdout.as_mut().expect("stdout")).lines();
    lines
        .map_while(Result::ok)
        .find_map(|line| Some(line[line.find("postgres:///")?..].to_owned()))
        .expect("the URL of the child's server")
}

/// Visible with `--nocapture`.
fn eprint_time(what: &str, began: Instant) {
    let _ = writeln!(std::io::stderr(), "{what}, to the first answer: {:?}", began.elapsed());
}
