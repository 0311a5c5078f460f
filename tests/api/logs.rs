//! Logs: what stands in them, and what becomes of those who do not read them.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::{Api, Process, TestApp, command, id};

#[tokio::test]
async fn a_log_holds_patterns_and_ids_and_nothing_that_a_caller_chose() {
    let stage = TestApp::builder().stage().await;
    let process = Process::serve(&stage, &[("STRONGROOM_LOG", "debug")]).await;
    let (api, token) = (&process.api, process.token().await);
    let active = api.hand_in(&token, "canary@example.com", &stage.connect()).await.json;
    let requests = [
        (Method::DELETE, "/v1/users/canary%40example.com".to_owned()),
        (Method::GET, "/v1/connections?clientUserID=canary%40example.com".to_owned()),
        (Method::GET, "/v1/connections/canary".to_owned()),
        (Method::GET, format!("/v1/connections/{}?canary=1", id(&active))),
        (Method::GET, "/canary/path".to_owned()),
        (Method::GET, "/docs/canary".to_owned()),
        (Method::POST, "/dapi/v2/canary".to_owned()),
        (Method::GET, "/v1/upstreams/canary/proxy/canary?canary".to_owned()),
        (Method::from_bytes(b"CANARY").unwrap(), "/v1/connections".to_owned()),
    ];
    for (method, path) in requests {
        let request = api.request(method, &path).bearer_auth(&token).json(&json!({"canary": 1}));
        api.send(request.header("referer", "https://canary").header("user-agent", "canary")).await;
    }
    let guess = api.request(Method::POST, "/oauth2/token").basic_auth("canary", Some("canary"));
    api.send(guess).await;
    while !process.log().contains("/oauth2/token") || process.log().lines().count() < 12 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = process.log();
    assert!(log.contains("\"route\":\"/v1/users/{clientUserID}\""), "{log}");
    assert!(log.contains("\"route\":\"unmatched\""));
    let told: Vec<_> = log.lines().filter(|l| l.to_lowercase().contains("canary")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn the_queries_of_an_exchange_appear_in_a_trace_by_their_names() {
    let stage = TestApp::builder().stage().await;
    let filter = "info,strongroom::database=trace,sqlx=debug";
    let process = Process::serve(&stage, &[("STRONGROOM_LOG", filter)]).await;
    let token = process.token().await;
    let active = process.api.hand_in(&token, "ada", &stage.connect()).await.json;
    assert_eq!(active["status"], "active", "{active}");
    let is_span = |line: &str, name: &str| {
        let span = &serde_json::from_str::<Value>(line).unwrap()["span"];
        span["db.query.summary"] == name && span["db.system.name"] == "postgresql"
    };
    for name in ["look_up_submission", "add_user", "insert_intent", "activate_under_lease"] {
        let appears = async || {
            while !process.log().lines().any(|line| is_span(line, name)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), appears()).await;
        assert!(in_time.is_ok(), "{name}: {}", process.log());
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_request() {
    let stage = TestApp::builder().stage().await;
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, metrics) = (free(), free());
    let variables = [
        ("STRONGROOM_LISTEN", address.to_string()),
        ("STRONGROOM_METRICS_LISTEN", metrics.to_string()),
        ("STRONGROOM_LOG", "trace".to_owned()),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut child = tokio::process::Command::from(command(&stage, &variables))
        .arg("serve")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let api = Api::new(address);
    while api.request(Method::GET, "/healthz").send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // 64 KiB fill the pipe, and what waits in the process beside it is bounded.
    let dropped = async || {
        let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await;
        let text = text.unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("strongroom_log_lines_dropped_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let started = std::time::Instant::now();
    while dropped().await == 0 {
        let answer = api.request(Method::GET, "/healthz").timeout(Duration::from_secs(5));
        assert_eq!(api.send(answer).await.status, 200);
        assert!(started.elapsed() < Duration::from_secs(120));
    }
    assert_eq!(api.send(api.request(Method::GET, "/readyz")).await.status, 200);
    // It ends in time, though its last lines find no reader either.
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() <= 1024 * 1024);
}
