//! From Connect's result to a revoked token, by the page's way and by the banner's lines.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{self, Dev, json as sent, temporary};

/// Hands in a result as the page does.
async fn link(dev: &Dev) -> Value {
    let session = dev.post("/api/session", &json!({})).await;
    let linking = dev.http.post(format!("{}/sandbox/connect", dev.url("sandboxURL")));
    let result = sent(linking.json(&json!({ "clientUserID": "ada" }))).await;
    let handing_in = dev
        .http
        .post(format!("{}/v1/connections", dev.url("apiURL")))
        .header("origin", dev.url("demoURL"))
        .bearer_auth(session["token"].as_str().expect("a session"))
        .json(&result);
    let response = handing_in.send().await.expect("an answer");
    let allowed = response.headers().get("access-control-allow-origin").cloned();
    assert_eq!(allowed.expect("CORS"), dev.url("demoURL"));
    assert_eq!(response.status(), 201);
    serde_json::from_str(&response.text().await.expect("a body")).expect("a connection")
}

#[tokio::test]
async fn a_connection_is_made_seen_sealed_revealed_and_delinked() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let connection = link(&dev).await;
    let path =
        |what: &str| format!("/api/connections/{}/{what}", connection["id"].as_str().unwrap());
    assert_eq!(connection["status"], "active");

    let inside = dev.get(&path("inside")).await;
    let sealed = &inside["sealed"];
    let part = |index: usize| sealed["parts"][index]["hex"].as_str().unwrap().to_owned();
    assert_eq!(sealed["column"], "access_token");
    assert_eq!(part(0), "02");
    assert_eq!(part(1), sealed["dataKeyID"].as_str().unwrap().replace('-', ""));
    assert_eq!([part(2).len(), part(4).len()], [24, 32]);

    let revealed = dev.post(&path("reveal"), &json!({ "reason": "a test" })).await;
    let token = revealed["accessToken"].as_str().unwrap();
    assert!(!part(3).contains(&strongroom_dev::folder::hex(token.as_bytes())));
    let audit = dev.get(&path("inside")).await["audit"].clone();
    let event = audit.as_array().unwrap().last().unwrap().clone();
    assert_eq!([&event["action"], &event["reason"]], ["token.revealed", "a test"]);

    let delinked = dev.post(&path("delink"), &json!({})).await;
    assert_eq!(delinked["status"], "delinked");
    assert_eq!(dev.get(&path("inside")).await["sealed"], Value::Null);
    let refused =
        dev.ask(reqwest::Method::POST, &path("reveal")).json(&json!({ "reason": "late" }));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("connection_not_active"));
}

#[tokio::test]
async fn a_second_start_opens_the_same_data_with_the_same_keys_and_client() {
    let folder = temporary();
    let first = Dev::start(folder.path());
    let connection = link(&first).await;
    assert!(first.interrupt().success());

    let second = Dev::start(folder.path());
    let list = second.get("/api/connections").await;
    assert_eq!(list["connections"][0]["id"], connection["id"]);
    let reveal = format!("/api/connections/{}/reveal", connection["id"].as_str().unwrap());
    let revealed = second.post(&reveal, &json!({ "reason": "after a restart" })).await;
    assert_eq!(revealed["connectionID"], connection["connectionID"]);
}

#[tokio::test]
async fn the_lines_of_the_banner_do_what_they_say_one_after_another() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let told: strongroom_dev::banner::Addresses = serde_json::from_value(dev.told.clone()).unwrap();
    let banner = told.banner("ada");
    let after = banner.split("in another terminal:\n\n").nth(1).unwrap();
    let lines = after.split("\n\n").next().unwrap();
    let ran = Command::new("sh").args(["-e", "-c", lines]).current_dir(folder.path()).output();
    let ran = ran.unwrap();
    let (said, wrong) = (String::from_utf8(ran.stdout).unwrap(), ran.stderr);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&wrong));
    let answers: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [list, token, delinked] = answers.as_slice() else { panic!("{said}") };
    assert_eq!(list["connections"][0]["status"], "active");
    assert!(token["accessToken"].as_str().unwrap().starts_with("ey"));
    assert_eq!(delinked["status"], "delinked");
}

#[tokio::test]
async fn the_env_file_serves_the_other_commands() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let script = format!(". ./{} && \"$0\" clients list --output json", dev.url("envFile"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_strongroom")]).current_dir(folder.path());
    let listed = shell.output().unwrap();
    let clients: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(clients[0]["bootstrap"], true);
}

#[tokio::test]
async fn a_code_of_twenty_seconds_stays_pending_while_the_sandbox_answers_503() {
    let folder = temporary();
    let dev = Dev::with(folder.path(), &[("STRONGROOM_ANSWER_WITHIN", "1")]);
    let session = dev.post("/api/session", &json!({})).await;
    let result = dev.post("/api/expiry", &json!({})).await;
    let handing_in = dev
        .http
        .post(format!("{}/v1/connections", dev.url("apiURL")))
        .bearer_auth(session["token"].as_str().unwrap())
        .json(&result);
    let pending = support::json(handing_in).await;
    assert_eq!(pending["status"], "pending");
    let inside = format!("/api/connections/{}/inside", pending["id"].as_str().unwrap());
    assert_eq!(dev.get(&inside).await["sealed"]["column"], "code");
    // A login of the user's own is not struck by it.
    assert_eq!(link(&dev).await["status"], "active");
}
