//! From Connect's result to a revoked token, by the page's way and by the banner's lines.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{self, Dev, json as sent, temporary};

/// In what the bank links differ.
struct BankLink {
    name: &'static str,
    /// The beginning of its access tokens.
    token: &'static str,
}

const DAPI: BankLink = BankLink { name: "dapi", token: "ey" };
const PLAID: BankLink = BankLink { name: "plaid", token: "access-sandbox-" };

/// Returns what the bank link's page gives to the page that opened it.
async fn result(dev: &Dev, link: &BankLink) -> Value {
    let (path, options) = match link.name {
        "plaid" => {
            let begun = dev.post("/api/link-token", &json!({})).await;
            ("plaid/link", json!({ "linkToken": begun["link_token"] }))
        }
        _ => ("connect", json!({ "clientUserID": "ada" })),
    };
    let linking = dev.http.post(format!("{}/sandbox/{path}", dev.url("sandboxURL")));
    sent(linking.json(&options)).await
}

/// Hands in a result as the page does.
async fn link(dev: &Dev, link: &BankLink) -> Value {
    let session = dev.post(&format!("/api/session?link={}", link.name), &json!({})).await;
    let result = result(dev, link).await;
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
async fn a_connection_is_made_seen_sealed_called_revealed_and_delinked() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    for bank_link in [DAPI, PLAID] {
        from_link_to_delinked(&dev, &bank_link).await;
    }
}

async fn from_link_to_delinked(dev: &Dev, bank_link: &BankLink) {
    let connection = link(dev, bank_link).await;
    let path = |what: &str| {
        let id = connection["id"].as_str().unwrap();
        format!("/api/connections/{id}/{what}?link={}", bank_link.name)
    };
    assert_eq!([&connection["status"], &connection["provider"]], ["active", bank_link.name]);

    let inside = dev.get(&path("inside")).await;
    let sealed = &inside["sealed"];
    let part = |index: usize| sealed["parts"][index]["hex"].as_str().unwrap().to_owned();
    assert_eq!(sealed["column"], "access_token");
    assert_eq!(part(0), "02");
    assert_eq!(part(1), sealed["dataKeyID"].as_str().unwrap().replace('-', ""));
    assert_eq!([part(2).len(), part(4).len()], [24, 32]);

    let accounts = dev.get(&path("accounts")).await;
    assert!(!accounts["accounts"].as_array().unwrap().is_empty(), "{accounts}");

    let revealed = dev.post(&path("reveal"), &json!({ "reason": "a test" })).await;
    let token = revealed["accessToken"].as_str().unwrap();
    assert!(token.starts_with(bank_link.token), "{token}");
    assert!(!part(3).contains(&hex::encode(token)));
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
async fn a_second_start_opens_the_same_data_with_the_same_keys_and_clients() {
    let folder = temporary();
    let client = || std::fs::read_to_string(folder.path().join("room/plaid-client")).unwrap();
    let first = Dev::start(folder.path());
    let connections = [link(&first, &DAPI).await, link(&first, &PLAID).await];
    let created = client();
    assert!(first.interrupt().success());

    let second = Dev::start(folder.path());
    assert_eq!(client(), created);
    for connection in connections {
        let at = connection["provider"].as_str().unwrap();
        let list = second.get(&format!("/api/connections?link={at}")).await;
        assert_eq!(list["connections"][0]["id"], connection["id"]);
        let id = connection["id"].as_str().unwrap();
        let reveal = format!("/api/connections/{id}/reveal?link={at}");
        let revealed = second.post(&reveal, &json!({ "reason": "after a restart" })).await;
        assert_eq!(revealed["connectionID"], connection["connectionID"]);
    }
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
    let clients: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let of = |app: &str| clients.iter().filter(|client| client["app"] == app).collect::<Vec<_>>();
    assert_eq!(of("default").iter().map(|client| &client["bootstrap"]).collect::<Vec<_>>(), [true]);
    assert_eq!(of("plaid").len(), 1, "{clients:?}");

    // In another shell than the one that set where the console listens.
    let script = format!(". ./{} && \"$0\" operators link dev --output json", dev.url("envFile"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_strongroom")]).current_dir(folder.path());
    let link: Value = serde_json::from_slice(&shell.output().unwrap().stdout).unwrap();
    let console = dev.url("consoleURL");
    assert!(link["url"].as_str().unwrap().starts_with(&format!("{console}/sign-in#")), "{link}");

    let script = format!(
        ". ./{} && curl -s \"$STRONGROOM_PUBLIC_URL/oauth2/token\" -d grant_type=client_credentials \
         -u \"$DEMO_PLAID_CLIENT_ID:$DEMO_PLAID_CLIENT_SECRET\"",
        dev.url("envFile")
    );
    let asked = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output();
    let answer: Value = serde_json::from_slice(&asked.unwrap().stdout).unwrap();
    assert!(answer["access_token"].is_string(), "{answer}");
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
    assert_eq!(link(&dev, &DAPI).await["status"], "active");
}
