//! A `strongroom dev` under test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a loaded machine; nothing that works takes it.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Where it keeps what it makes, below the folder that it runs in.
pub const ROOM: &str = "room";

/// A folder that everybody may enter, so that root's PostgreSQL can lie in it.
pub fn temporary() -> TempDir {
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary folder")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration to read the environment for it"
)]
fn inherited(command: &mut Command) {
    for name in ["PATH", "PG_BIN", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// `strongroom` in this folder, with these variables and nothing else that would change it.
pub fn strongroom(folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    inherited(&mut command);
    command.envs(variables.iter().copied());
    command
}

/// `strongroom dev` on free ports, in this folder.
pub fn command(folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = strongroom(folder, &[]);
    command
        .args(["dev", "--folder", ROOM, "--demo-listen", "127.0.0.1:0"])
        .args(["--sandbox-listen", "127.0.0.1:0"])
        .env("STRONGROOM_LISTEN", "127.0.0.1:0")
        .env("STRONGROOM_METRICS_LISTEN", "127.0.0.1:0")
        .env("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied());
    command
}

/// What a `dev` says that does not come to run.
pub fn fails(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("it runs");
    (status.code(), String::from_utf8(stderr).expect("UTF-8"))
}

/// A `dev` that runs. It is killed when it is dropped.
pub struct Dev {
    child: Child,
    /// What it printed when it was ready.
    pub told: Value,
    pub http: reqwest::Client,
}

impl Dev {
    pub fn start(folder: &Path) -> Self {
        Self::with(folder, &[])
    }

    /// Starts it with further variables and waits until it is ready.
    pub fn with(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::of(command(folder, variables))
    }

    /// Starts this command and waits until it is ready.
    pub fn of(mut command: Command) -> Self {
        command.args(["--output", "json"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.as_mut().expect("stdout")).lines();
        let mut text = String::new();
        for line in lines.map_while(Result::ok) {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let told = serde_json::from_str(&text).unwrap_or_else(|_| panic!("it said {text:?}"));
        Self { child, told, http: http() }
    }

    /// One of the addresses that it told.
    pub fn url(&self, name: &str) -> &str {
        self.told[name].as_str().expect(name)
    }

    /// A request of the page's to its backend.
    pub fn ask(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let demo = self.url("demoURL");
        self.http.request(method, format!("{demo}{path}")).header("origin", demo)
    }

    pub async fn get(&self, path: &str) -> Value {
        json(self.ask(reqwest::Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        json(self.ask(reqwest::Method::POST, path).json(body)).await
    }

    /// Ctrl-C, and the end that it comes to.
    pub fn interrupt(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.expect("kill").success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                let mut rest = String::new();
                let stdout = self.child.stdout.as_mut().expect("stdout");
                stdout.read_to_string(&mut rest).expect("UTF-8");
                assert_eq!(rest, "", "standard output is for the result alone");
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the test's own browser")]
fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy();
    client.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// Sends it; it has to succeed.
pub async fn json(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer");
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).expect("JSON")
}
