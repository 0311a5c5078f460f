//! A database that does not accept connections: what passes is waited for, what does not ends a command at once.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Stage, TestApp, command};

/// A server that speaks PostgreSQL just enough to refuse: with these SQLSTATEs, one a connection, the last from then on.
struct Refusing {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Refusing {
    async fn with(states: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, connections) =
            (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let state = states.get(number).or(states.last()).unwrap();
                // A client that goes away in the middle is no matter.
                let _ = refuse(stream, state).await;
            }
        });
        Self { port, connections }
    }

    fn url(&self, more: &str) -> String {
        format!("postgres://ada:canary-password@127.0.0.1:{}/db?{more}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Answers a request for TLS by "no", and a start by an error (PostgreSQL's documentation, 55.2 and 55.8).
async fn refuse(mut stream: TcpStream, state: &str) -> std::io::Result<()> {
    const TLS: u32 = 80_877_103;
    loop {
        let length = usize::try_from(stream.read_u32().await?).unwrap();
        let mut rest = vec![0; length - 4];
        stream.read_exact(&mut rest).await?;
        if rest[..4] == TLS.to_be_bytes() {
            stream.write_all(b"N").await?;
            continue;
        }
        let fields = format!("SFATAL\0VFATAL\0C{state}\0Mrefused as {state}\0\0");
        let mut message = vec![b'E'];
        message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
        message.extend(fields.as_bytes());
        stream.write_all(&message).await?;
        return stream.shutdown().await;
    }
}

/// Runs a command to its end; returns its exit status and what it says on standard error.
async fn run(stage: &Stage, line: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = tokio::process::Command::from(command(stage, variables));
    let command = command.args(line).stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let Output { status, stderr, .. } = ended.expect("it ends").unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(!said.contains("canary-password"), "{said}");
    (status.code().unwrap(), said)
}

const COMMANDS: [&[&str]; 2] = [&["serve"], &["apps", "list"]];

#[tokio::test]
async fn what_an_operator_has_to_change_ends_a_command_at_once() {
    let stage = TestApp::builder().stage().await;
    for (states, advice) in [
        (&["28P01"], "The password is wrong"),
        (&["28000"], "The role does not exist, may not log in, or is not admitted"),
        (&["3D000"], "There is no database of this name"),
        (&["42501"], "lacks the privilege CONNECT"),
    ] {
        for line in COMMANDS {
            let server = Refusing::with(states).await;
            let url = server.url("sslmode=disable");
            let (status, said) = run(&stage, line, &[("DATABASE_URL", &url)]).await;
            assert_eq!(status, 2, "{said}");
            assert!(said.contains(advice) && said.contains("DATABASE_URL"), "{said}");
            assert!(said.contains(&format!("refused as {}", states[0])), "{said}");
            assert_eq!(server.connections(), 1, "{line:?} retried {states:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_starting_is_waited_for() {
    let stage = TestApp::builder().stage().await;
    for line in COMMANDS {
        // The third answer ends the wait, so that the test need not last.
        let server = Refusing::with(&["57P03", "53300", "28P01"]).await;
        let url = server.url("sslmode=disable");
        let (status, said) = run(&stage, line, &[("DATABASE_URL", &url)]).await;
        assert_eq!((status, server.connections()), (2, 3), "{said}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_at_once_if_the_url_asks_for_it() {
    let stage = TestApp::builder().stage().await;
    let server = Refusing::with(&["57P03"]).await;
    let url = server.url("sslmode=require");
    let (status, said) = run(&stage, &["apps", "list"], &[("DATABASE_URL", &url)]).await;
    assert_eq!((status, server.connections()), (2, 1), "{said}");
    assert!(said.contains("`sslmode`"), "{said}");
}

#[tokio::test]
async fn of_several_hosts_one_that_may_yet_accept_is_waited_for() {
    let stage = TestApp::builder().stage().await;
    let starting = Refusing::with(&["57P03", "28P01"]).await;
    let refusing = Refusing::with(&["28P01"]).await;
    let url = format!(
        "postgres://ada:canary-password@127.0.0.1:{},127.0.0.1:{}/db?sslmode=disable\
         &target_session_attrs=primary",
        starting.port, refusing.port
    );
    let (status, said) = run(&stage, &["apps", "list"], &[("DATABASE_URL", &url)]).await;
    assert_eq!((status, starting.connections()), (2, 2), "{said}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_not_waited_for() {
    let stage = TestApp::builder().stage().await;
    // An empty label: no name server is asked.
    let url = "postgres://ada:canary-password@no..such/db";
    for line in COMMANDS {
        let (status, said) = run(&stage, line, &[("DATABASE_URL", url)]).await;
        assert_eq!(status, 2, "{said}");
        assert!(said.contains("No host has this name") && said.contains("no..such"), "{said}");
        assert!(!said.contains("waiting for PostgreSQL"), "{said}");
    }
}

#[tokio::test]
async fn a_real_server_says_which_name_it_does_not_know() {
    let stage = TestApp::builder().stage().await;
    let url = stage.database.url();
    let (before, query) = url.split_once('?').unwrap();
    let elsewhere = format!("postgres:///no_such_database?{query}");
    let (status, said) = run(&stage, &["apps", "list"], &[("DATABASE_URL", &elsewhere)]).await;
    assert_eq!(status, 2, "{before}: {said}");
    assert!(said.contains("no_such_database") && said.contains("There is no database"), "{said}");
}

#[tokio::test]
async fn the_owners_url_is_named_if_it_is_the_one_that_is_refused() {
    let stage = TestApp::builder().stage().await;
    let server = Refusing::with(&["28P01"]).await;
    let owner = [("STRONGROOM_MIGRATE_DATABASE_URL", server.url("sslmode=disable"))];
    let owner = owner.each_ref().map(|(name, url)| (*name, url.as_str()));
    let (status, said) = run(&stage, &["migrate"], &owner).await;
    assert_eq!((status, server.connections()), (2, 1), "{said}");
    assert!(said.contains("accepts no connection by STRONGROOM_MIGRATE_DATABASE_URL"), "{said}");
}
