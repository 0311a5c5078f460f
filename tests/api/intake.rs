//! Callers who are not known yet take nothing from those who are.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Process, TestApp, id, with};

/// The beginning of a request whose body never ends, from this address as a trusted proxy tells it.
async fn unfinished(api: &Api, path: &str, from: &str, body: usize) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {from}\r\n\
         content-type: application/json\r\ncontent-length: 1000000\r\n\r\n{{\"a\":\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let filling = stream.write_all(" ".repeat(body).as_bytes()).await;
    let _ = filling;
    stream
}

async fn token_from(api: &Api, from: &str) -> u16 {
    let request = api
        .request(Method::POST, "/oauth2/token")
        .basic_auth(BOOTSTRAP_ID, Some(BOOTSTRAP_SECRET))
        .header("x-forwarded-for", from)
        .json(&json!({ "grant_type": "client_credentials" }));
    api.send(request).await.status
}

/// While a flood still arrives, an honest caller may be refused with `Retry-After`: it is served soon after.
async fn served_when_it_comes_back(api: &Api, from: &str) {
    let served = async {
        while token_from(api, from).await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), served).await.expect("served when it comes back");
}

fn a_call(api: &Api, connection: &Value, token: &str) -> reqwest::RequestBuilder {
    let url = format!("/v1/connections/{}/dapi/data/accounts/get", id(connection));
    api.request(Method::POST, &url).bearer_auth(token).json(&json!({}))
}

async fn believing_proxies() -> TestApp {
    TestApp::builder().set("STRONGROOM_TRUSTED_PROXIES", "127.0.0.0/8").spawn().await
}

#[tokio::test]
async fn heads_without_credentials_take_no_place_of_calls() {
    let app = TestApp::spawn().await;
    strongroom::http::connection::raise_limit().unwrap();
    let (active, token) = (app.active("ada").await, app.token().await);
    let mut held = Vec::new();
    for n in 0..1030 {
        let path = ["/dapi", "/dapi/v2/data/accounts/get", "/oauth2/token"][n % 3];
        held.push(unfinished(&app.api, path, "192.0.2.1", 0).await);
    }
    for _ in 0..5 {
        let started = Instant::now();
        assert_eq!(app.api.send(a_call(&app.api, &active, &token)).await.status, 200);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        served_when_it_comes_back(&app.api, "192.0.2.2").await;
    }
}

#[tokio::test]
async fn a_flood_from_many_addresses_holds_up_no_honest_caller() {
    let app = believing_proxies().await;
    let mut held = Vec::new();
    for n in 0..600 {
        let from = format!("198.51.{}.{}", n / 250, n % 250);
        held.push(unfinished(&app.api, "/dapi", &from, 100).await);
        if n % 100 == 99 {
            let started = Instant::now();
            assert_eq!(token_from(&app.api, "203.0.113.1").await, 200);
            assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn many_at_once_from_one_address_are_all_served() {
    let app = believing_proxies().await;
    let connection = app.active("ada").await;
    let calls: Vec<_> = (0..128)
        .map(|_| {
            let api = app.api.clone();
            tokio::spawn(async move { token_from(&api, "203.0.113.1").await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    // With bodies that are worth mentioning, too.
    let body = json!({ "appSecret": format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}") });
    let body = with(&body, json!({ "padding": " ".repeat(100_000), "action": "x" }));
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let request = app.api.request(Method::POST, "/dapi").json(&body);
            let api = app.api.clone();
            tokio::spawn(async move { api.send(request).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().json["type"], "NOT_FOUND");
    }
    let _ = connection;
}

#[tokio::test]
async fn bodies_of_the_unknown_are_held_in_bounded_memory() {
    let stage = TestApp::builder().set("STRONGROOM_TRUSTED_PROXIES", "127.0.0.0/8").stage().await;
    let process = Process::serve(&stage, &[]).await;
    let before = process.memory();
    let mut floods = Vec::new();
    for n in 0..300 {
        let (api, from) = (process.api.clone(), format!("198.51.100.{}", n % 100));
        floods.push(tokio::spawn(async move {
            tokio::time::timeout(Duration::from_secs(2), unfinished(&api, "/dapi", &from, 900_000))
                .await
        }));
    }
    for flood in floods {
        let _ = flood.await.unwrap();
        served_when_it_comes_back(&process.api, "203.0.113.1").await;
    }
    let grown = process.memory() - before;
    assert!(grown < 100 * 1024, "it grew by {grown} KiB");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_told() {
    let app = TestApp::spawn().await;
    let mut stream = unfinished(&app.api, "/oauth2/token", "192.0.2.1", 0).await;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"error\":\"invalid_request\""), "{answer}");
}
