//! The real binary as a process of its own, to be killed, stopped and terminated.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::{Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Stage};

/// `strongroom serve`, or another of its commands.
pub struct Process {
    child: Child,
    pub api: Api,
    log: Arc<Mutex<String>>,
}

#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "only the crash tests kill"))]
impl Process {
    /// Starts `strongroom serve` on this stage, with further variables, and waits until it serves.
    pub async fn serve(stage: &Stage, variables: &[(&str, &str)]) -> Self {
        Self::started(command(stage, variables).arg("serve").spawn().unwrap()).await
    }

    /// The same, with so many files at most, and no way of having more.
    pub async fn serve_with_files(stage: &Stage, files: u32) -> Self {
        let service = command(stage, &[]);
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" serve")]);
        limited.arg(service.get_program()).env_clear().stdout(Stdio::piped());
        limited.envs(service.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::started(limited.spawn().unwrap()).await
    }

    async fn started(mut child: Child) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let (lines, kept) =
            (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "serving"
                    && let Some(found) = found.take()
                {
                    let _ = found.send(event["address"].as_str().unwrap().parse().unwrap());
                }
                kept.lock().unwrap().push_str(&line);
                kept.lock().unwrap().push('\n');
            }
        });
        let address = tokio::time::timeout(Duration::from_secs(60), address).await;
        let address = address.expect("it does not start").expect("it ended");
        Self { child, api: Api::new(address), log }
    }

    /// Everything that it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub async fn token(&self) -> String {
        self.api.token(BOOTSTRAP_ID, BOOTSTRAP_SECRET, None).await
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// SIGKILL: the process has no say in it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: the process sleeps and does not know it.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What the system says about it, such as `VmRSS`, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> ExitStatus {
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with the environment of this stage and nothing else.
pub fn command(stage: &Stage, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::inherit());
    for prefix in ["STRONGROOM_", "DAPI_", "PLAID_", "DATABASE_", "AWS_"] {
        for name in stage.environment.names(prefix) {
            command.env(name, stage.environment.get(name).unwrap());
        }
    }
    command.envs(variables.iter().copied());
    command
}

/// Runs a command with JSON as its output: its status, what it wrote, and its errors.
pub async fn run_command(
    stage: &Stage,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (i32, Value, String) {
    let mut command = command(stage, variables);
    command.args(arguments).args(["--output", "json"]).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let written = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), written, errors)
}
