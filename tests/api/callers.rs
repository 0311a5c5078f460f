//! Callers' connections: idle ones give way, those that stand still end, and what was asked for whole is done.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Api, Process, TestApp, for_user, id};

const ACCOUNTS: &str = "data/accounts/get";
const CARDS: &str = "data/cards/get";
const WAITING: &str = "SELECT count(*) FROM token_lease_queue";

fn post(path: &str, token: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn send(api: &Api, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it does not end");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn until(app: &TestApp, sql: &'static str, expected: &str) {
    for _ in 0..3000 {
        if app.database.value(sql).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{sql} is never {expected}");
}

async fn health_is_quick(api: &Api) {
    let started = Instant::now();
    let mut stream =
        send(api, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn idle_connections_give_way_to_new_ones_however_few_files_there_are() {
    strongroom::http::connection::raise_limit().unwrap();
    let stage = TestApp::builder().stage().await;
    let process = Process::serve_with_files(&stage, 1024).await;
    let heads: [&[u8]; 4] = [
        b"",
        b"GET /healthz HTTP/1.1\r\nhost:",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /dapi HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
    ];
    for head in heads {
        let mut held = Vec::new();
        for n in 0..1100 {
            held.push(send(&process.api, head).await);
            if n % 100 == 99 {
                health_is_quick(&process.api).await;
            }
        }
        for _ in 0..5 {
            health_is_quick(&process.api).await;
            let ready = process.api.send(process.api.request(Method::GET, "/readyz")).await;
            assert_eq!(ready.status, 200);
        }
        let token = process.token().await;
        let listed = process.api.get(&token, "/v1/connections").await;
        assert_eq!(listed.status, 200);
    }
}

#[tokio::test]
async fn a_second_head_that_never_ends_is_cut_as_a_first_one_is() {
    let app = TestApp::spawn().await;
    let mut stream = send(&app.api, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let started = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nho").await.unwrap();
    rest(&mut stream).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_caller_who_takes_nothing_is_dropped() {
    let app = TestApp::spawn().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(app.api.address).await.unwrap();
    let asking = async {
        // Until neither side takes any more.
        loop {
            let wishes = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(16);
            if stream.write_all(&wishes).await.is_err() {
                return;
            }
        }
    };
    let dropped = tokio::time::timeout(Duration::from_secs(100), asking).await;
    assert!(dropped.is_ok(), "it is held for ever");
    let why = "strongroom_http_connections_ended_total{why=\"unread\"}";
    assert_eq!(app.metric(why).await, 1.0);
}

#[tokio::test]
async fn a_caller_who_closes_their_half_gets_the_answer() {
    let app = TestApp::spawn().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let get = format!(
        "GET /v1/connections/{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n",
        id(&active)
    );
    let relayed = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(&active));
    for request in [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        get.into_bytes(),
        post(&relayed, &token, &json!({})),
        post("/v1/connections", &token, &for_user(&app.connect(), "bob")),
    ] {
        let mut stream = send(&app.api, &request).await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        assert!(answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn a_caller_who_closes_their_half_waits_in_line_and_one_who_closes_it_all_does_not() {
    let app = TestApp::spawn().await;
    let (active, token) = (app.active("ada").await, app.token().await);
    let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let relayed = |path: &str| {
        let url = format!("/v1/connections/{}/dapi/{path}", id(&active));
        post(&url, &token, &json!({}))
    };
    let _first = send(&app.api, &relayed(ACCOUNTS)).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let mut half = send(&app.api, &relayed(CARDS)).await;
    let whole = send(&app.api, &relayed(CARDS)).await;
    let reset = send(&app.api, &relayed(CARDS)).await;
    until(&app, WAITING, "3").await;
    half.shutdown().await.unwrap();
    drop(whole);
    until(&app, WAITING, "2").await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    until(&app, WAITING, "1").await;
    app.sandbox.clear_faults();
    let answer = rest(&mut half).await;
    let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
    assert!(last.starts_with("200 OK"), "{answer}");
    assert_eq!(app.sandbox.calls_to(CARDS), 1);
}

#[tokio::test]
async fn a_result_that_arrived_whole_is_received_whatever_becomes_of_the_page() {
    let app = TestApp::spawn().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let token = app.token().await;
    for n in 0..20 {
        let body = for_user(&app.connect(), if n % 2 == 0 { "ada" } else { "bob" });
        let by = if n % 4 == 0 { &session } else { &token };
        let stream = send(&app.api, &post("/v1/connections", by, &body)).await;
        if n % 3 == 0 {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
    }
    until(&app, "SELECT count(*) FROM connections WHERE status = 'active'", "20").await;
}

#[tokio::test]
async fn a_change_that_arrived_whole_is_made_though_the_caller_has_gone() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let gone = async |request: &[u8]| {
        let stream = send(&app.api, request).await;
        stream.set_zero_linger().unwrap();
    };
    let active = app.active("ada").await;
    let import = json!({
        "clientUserID": "eve", "connectionID": "login-of-eve", "accessToken": "token-of-eve",
        "userSecret": "secret-of-eve",
    });
    gone(&post("/v1/connections/import", &token, &import)).await;
    until(&app, "SELECT count(*) FROM connections WHERE login_id = 'login-of-eve'", "1").await;
    gone(&post(&format!("/v1/connections/{}/delink", id(&active)), &token, &json!({}))).await;
    until(&app, "SELECT count(*) FROM connections WHERE status = 'delinked'", "1").await;
    let order =
        json!({ "kind": "delink", "reason": "test", "filter": { "clientUserIDs": ["eve"] } });
    gone(&post("/v1/admin/revocations", &token, &order)).await;
    until(&app, "SELECT count(*) FROM audit_events WHERE action = 'revocations.ordered'", "1")
        .await;
    let erasure = format!(
        "DELETE /v1/users/ada HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    gone(erasure.as_bytes()).await;
    until(&app, "SELECT count(*) FROM users WHERE client_user_id = 'ada'", "0").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_after_the_other() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let body = json!({ "reason": "x", "more": "x".repeat(5000) });
    let mut requests = Vec::new();
    for _ in 0..50 {
        requests.extend(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        requests.extend(post(
            "/v1/connections/conn_01999999-0000-7000-8000-000000000000/token",
            &token,
            &body,
        ));
    }
    let mut stream = send(&app.api, &requests).await;
    stream.shutdown().await.unwrap();
    let answers = rest(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 50);
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 50);
}

#[tokio::test]
async fn pipelined_requests_whose_answers_are_not_taken_cost_little_memory() {
    let stage = TestApp::builder().stage().await;
    let process = Process::serve(&stage, &[]).await;
    health_is_quick(&process.api).await;
    let before = process.memory();
    let mut held = Vec::new();
    for _ in 0..50 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(process.api.address).await.unwrap();
        let requests = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(10_000);
        let sending = stream.write_all(&requests);
        let _ = tokio::time::timeout(Duration::from_millis(200), sending).await;
        held.push(stream);
    }
    health_is_quick(&process.api).await;
    let grown = process.memory() - before;
    assert!(grown < 50 * 1024, "it grew by {grown} KiB");
}
