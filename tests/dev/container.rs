//! The demo of compose.yaml, as far as it can run without a container: the command and the variables of its service, with a
//! database that is somewhere else.

use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::{Dev, ROOM, strongroom, temporary};

/// The part of compose.yaml that describes the demo.
fn service() -> String {
    let compose = include_str!("../../compose.yaml");
    let rest = compose.split_once("\n  demo:\n").unwrap().1;
    rest.split_once("\n  demo-postgres:\n").unwrap().0.to_owned()
}

/// The value of a line of it.
fn value(service: &str, name: &str) -> String {
    let line = service.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name} in {service}")).to_owned()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// The ports of the demo, and free ones in their place.
fn moved(text: &str, ports: &[(&str, String)]) -> String {
    ports.iter().fold(text.to_owned(), |text, (port, free)| text.replace(port, free))
}

/// A database beside that of another `dev`.
async fn database(other: &tempfile::TempDir) -> String {
    let env = std::fs::read_to_string(other.path().join(ROOM).join("env")).unwrap();
    let line = env.lines().find_map(|line| line.strip_prefix("export DATABASE_URL='")).unwrap();
    let url = line.trim_end_matches('\'').replace("application_name=strongroom-dev", "");
    let mut conn = PgConnection::connect(url.trim_end_matches('&')).await.unwrap();
    conn.execute("CREATE DATABASE demo").await.unwrap();
    url.replace("/postgres?", "/demo?").trim_end_matches('&').to_owned()
}

#[tokio::test]
async fn the_demo_of_compose_goes_from_the_page_to_a_connection() {
    let (other, folder, room) = (temporary(), temporary(), temporary());
    let beside = Dev::start(other.path());
    let ports = ["8000", "8080", "8081", "8082"].map(|port| (port, free_port()));
    let service = service();
    let line: Vec<String> = serde_json::from_str(&value(&service, "command")).unwrap();
    let mut command: Command = strongroom(folder.path(), &[]);
    for argument in line {
        let argument = argument.replace("/demo", room.path().to_str().unwrap());
        command.arg(moved(&argument, &ports));
    }
    for name in [
        "STRONGROOM_LISTEN",
        "STRONGROOM_PUBLIC_URL",
        "STRONGROOM_CONSOLE_LISTEN",
        "STRONGROOM_CONSOLE_URL",
    ] {
        command.env(name, moved(&value(&service, name), &ports));
    }
    command
        .env("DATABASE_URL", database(&other).await)
        .env("STRONGROOM_METRICS_LISTEN", "127.0.0.1:0")
        .env("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0");
    let dev = Dev::of(command);

    let [(_, demo), (_, api), ..] = &ports;
    assert_eq!(dev.url("demoURL"), format!("http://127.0.0.1:{demo}"));
    assert_eq!(dev.url("apiURL"), format!("http://127.0.0.1:{api}"));
    for (published, _) in &ports {
        assert!(service.contains(&format!("\"127.0.0.1:{published}:{published}\"")), "{published}");
    }
    assert!(dev.told["databaseFolder"].is_null(), "{}", dev.told);
    let page = dev.http.get(dev.url("demoURL")).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("Connect your bank"));
    let sandbox = format!("{}/sandbox/connect", dev.url("sandboxURL"));
    let result = dev
        .http
        .post(sandbox)
        .json(&json!({ "clientUserID": strongroom_dev::demo::USER }))
        .send()
        .await
        .unwrap();
    let result: Value = serde_json::from_str(&result.text().await.unwrap()).unwrap();
    // As the page does, from its own origin.
    let session = dev.post("/api/session", &json!({})).await;
    let handed_in = dev.http.post(format!("{}/v1/connections", dev.url("apiURL")));
    let handed_in = handed_in.header("origin", dev.url("demoURL")).json(&result);
    let answer = handed_in.bearer_auth(session["token"].as_str().unwrap()).send().await.unwrap();
    let allowed = answer.headers()["access-control-allow-origin"].to_str().unwrap();
    assert_eq!((answer.status().as_u16(), allowed), (201, dev.url("demoURL")));
    assert!(dev.interrupt().success() && beside.interrupt().success());
}
