//! `strongroom health`: whether the service at the configured address is ready or alive, by an exit status.

use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Cut, Proxy, TestApp, TestDatabase};

/// Runs `strongroom health` with these arguments and this `STRONGROOM_LISTEN`, and nothing else in its environment.
/// Returns its exit status and what it printed.
async fn health(listen: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.env_clear().env("STRONGROOM_LISTEN", listen).stdin(Stdio::null());
    command.arg("health").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// A server that gives one caller after the other these answers, and the last one to all others; `None` is silence.
async fn server(answers: &[Option<&'static str>]) -> String {
    let (listener, answers) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), answers.to_vec());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for at in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Some(answer) = answers[at.min(answers.len() - 1)] {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            } else {
                kept.push(stream);
            }
        }
    });
    address.to_string()
}

#[tokio::test]
async fn a_service_that_is_ready_is_found_however_its_listener_is_written() {
    let app = TestApp::spawn().await;
    let port = app.api.address.port();
    for listen in ["127.0.0.1", "0.0.0.0", "[::]"].map(|ip| format!("{ip}:{port}")) {
        let (status, text) = health(&listen, &["--timeout", "60"]).await;
        assert_eq!(status, 0, "{listen}: {text}");
        assert!(text.starts_with("ready: http://") && text.lines().count() == 1, "{text}");
    }
    let url = format!("http://{}", app.api.address);
    let (status, text) = health("0.0.0.0:0", &["--live", "--timeout", "60", "--url", &url]).await;
    assert_eq!((status, text.as_str()), (0, &*format!("alive: {url}/healthz answers 200\n")));
}

#[tokio::test]
async fn a_service_without_its_database_is_alive_and_not_ready() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder = TestApp::builder().set("DATABASE_URL", proxy.url());
    let app = builder.on(database).spawn().await;
    proxy.cut(Cut::Now);
    let listen = app.api.address.to_string();
    let (status, text) = health(&listen, &["--timeout", "60"]).await;
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("not ready") && text.contains("answers 503: The database"), "{text}");
    assert_eq!(health(&listen, &["--live", "--timeout", "60"]).await.0, 0);
}

#[tokio::test]
async fn what_does_not_answer_as_the_service_does_is_not_healthy() {
    let cases = [
        ("127.0.0.1:1".to_owned(), "no answer from"),
        (server(&[None]).await, "within 1 s"),
        (server(&[Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")]).await, "no answer from"),
        (server(&[Some("220 mail.example ESMTP\r\n")]).await, "no answer from"),
        (
            server(&[Some("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")]).await,
            "answers 302",
        ),
    ];
    for (listen, said) in cases {
        let seconds = if said.starts_with("within") { "1" } else { "60" };
        let (status, text) = health(&listen, &["--timeout", seconds]).await;
        assert_eq!(status, 1, "{text}");
        assert!(text.contains(said) && text.lines().count() == 1, "{said}: {text}");
    }
}

#[tokio::test]
async fn an_address_that_says_nothing_is_a_mistake_of_the_configuration() {
    for (listen, arguments, said) in [
        ("127.0.0.1:0", &[][..], "STRONGROOM_LISTEN"),
        ("8080", &[], "STRONGROOM_LISTEN"),
        ("127.0.0.1:8080", &["--url", "ftp://127.0.0.1"], "--url"),
        ("127.0.0.1:8080", &["--url", "http://127.0.0.1/readyz"], "--url"),
        ("127.0.0.1:8080", &["--timeout", "0"], "--timeout"),
    ] {
        let (status, text) = health(listen, arguments).await;
        assert_eq!(status, 2, "{listen} {arguments:?}: {text}");
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_start_can_be_waited_for() {
    const STARTING: &str = "HTTP/1.1 503 Starting\r\ncontent-length: 0\r\n\r\n";
    const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let answers = [Some(STARTING), Some(STARTING), Some(READY)];
    assert_eq!(health(&server(&answers).await, &[]).await.0, 1);
    let (status, text) = health(&server(&answers).await, &["--wait", "600"]).await;
    assert_eq!(status, 0, "{text}");
    assert_eq!(health(&server(&answers[..1]).await, &["--wait", "1"]).await.0, 1);
}
