//! What `dev` leaves for its user to work with: the log, the shell's variables, requests to try, the pages of the document.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Dev, ROOM, command, temporary};

fn text_of(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(ROOM).join(name)).unwrap()
}

#[tokio::test]
async fn requests_are_logged_to_a_file_and_on_the_screen_if_asked() {
    for (verbose, on_screen) in [(false, false), (true, true)] {
        let folder = temporary();
        let screen = folder.path().join("screen");
        let mut command = command(folder.path(), &[]);
        command.stderr(File::create(&screen).unwrap()).args(verbose.then_some("--verbose"));
        let dev = Dev::of(command);
        dev.get("/api/connections").await;
        assert!(dev.interrupt().success());
        let line = |text: &str| {
            text.lines().any(|it| it.contains("/v1/connections") && it.contains("200"))
        };
        assert!(line(&text_of(folder.path(), "log")), "{}", text_of(folder.path(), "log"));
        let screen = std::fs::read_to_string(screen).unwrap();
        assert_eq!(line(&screen), on_screen, "{screen}");
    }
}

#[tokio::test]
async fn a_warning_is_on_the_screen_as_well() {
    let folder = temporary();
    let screen = folder.path().join("screen");
    let mut command = command(folder.path(), &[("STRONGROOM_LISTENN", "1")]);
    command.stderr(File::create(&screen).unwrap());
    assert!(Dev::of(command).interrupt().success());
    let screen = std::fs::read_to_string(screen).unwrap();
    assert!(screen.contains("STRONGROOM_LISTENN"), "{screen}");
}

#[tokio::test]
async fn the_env_file_puts_the_program_on_the_path_and_names_the_metrics() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let script = format!(
        ". ./{} && strongroom --version && curl -fsS \"$METRICS_URL\" | grep -c strongroom_ && echo \"$STRONGROOM_ALLOW_PRIVATE_ADDRESSES\"",
        dev.url("envFile")
    );
    let mut shell = Command::new("sh");
    let ran = shell.args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{text}");
    assert!(text.starts_with("strongroom 0.") && text.ends_with("true\n"), "{text}");
}

/// Puts the values into a text of the collection.
fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

/// Sends a request of the collection as Postman does, and returns the answer's body.
async fn sent(dev: &Dev, request: &Value, values: &BTreeMap<String, String>) -> String {
    let text = |value: &Value| filled(value.as_str().unwrap(), values);
    let method = request["method"].as_str().unwrap().parse().unwrap();
    let mut sent = dev.http.request(method, text(&request["url"]));
    sent = match request["auth"]["type"].as_str().unwrap() {
        "basic" => {
            let part = |index: usize| text(&request["auth"]["basic"][index]["value"]);
            sent.basic_auth(part(0), Some(part(1)))
        }
        "bearer" => sent.bearer_auth(text(&request["auth"]["bearer"][0]["value"])),
        _ => sent,
    };
    if request["body"].is_object() {
        sent = sent.header("content-type", text(&request["header"][0]["value"]));
        sent = sent.body(text(&request["body"]["raw"]));
    }
    let answer = sent.send().await.unwrap();
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{request}: {status} {body}");
    body
}

#[tokio::test]
async fn the_requests_to_try_work_from_top_to_bottom() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let collection: Value = serde_json::from_str(&text_of(folder.path(), "postman.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables = collection["variable"].as_array().unwrap().iter();
    let mut values: BTreeMap<_, _> =
        variables.map(|it| (text(&it["key"]), text(&it["value"]))).collect();
    for item in collection["item"].as_array().unwrap() {
        let body = sent(&dev, &item["request"], &values).await;
        let Some(script) = item["event"][0]["script"]["exec"][0].as_str() else { continue };
        let name = script.split('\'').nth(1).unwrap().to_owned();
        let value = match script.split_once("json().") {
            Some((_, member)) => {
                let member = member.trim_end_matches(");");
                text(&serde_json::from_str::<Value>(&body).unwrap()[member])
            }
            None => body,
        };
        values.insert(name, value);
    }
    let file = text_of(folder.path(), "requests.http");
    let requests =
        file.lines().filter(|line| line.starts_with("POST ") || line.starts_with("GET "));
    assert_eq!(requests.count(), collection["item"].as_array().unwrap().len());
}

#[tokio::test]
async fn the_pages_of_the_document_know_the_client() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let setup = dev.http.get(format!("{}swagger-initializer.js", dev.url("docsURL")));
    let setup = setup.send().await.unwrap().text().await.unwrap();
    let env = text_of(folder.path(), "env");
    for name in ["STRONGROOM_BOOTSTRAP_CLIENT_ID", "STRONGROOM_BOOTSTRAP_CLIENT_SECRET"] {
        let value = env.split_once(&format!("{name}='")).unwrap().1.split('\'').next().unwrap();
        assert!(setup.contains(value), "{setup}");
    }
}

#[tokio::test]
async fn traces_of_the_service_go_where_the_users_variables_say() {
    let (folder, listener) = (temporary(), TcpListener::bind("127.0.0.1:0").unwrap());
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let dev = Dev::with(folder.path(), &variables);
    dev.get("/api/connections").await;
    let head = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 21];
        stream.read_exact(&mut head).unwrap();
        head
    });
    assert_eq!(&head.join().unwrap(), b"POST /v1/traces HTTP/");
    assert!(dev.interrupt().success());
}
