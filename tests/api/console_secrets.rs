//! No page of the console holds a secret: every one that a link leads to is read.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};
use strongroom::approvals::{self, Kind, NewRequest};
use strongroom::common::actor::Actor;
use strongroom::console::table::{Method, ROUTES};
use strongroom::operators::Role;
use strongroom_dev::sandbox::{self, Effect, Fault};

use crate::support::{BOOTSTRAP_SECRET, Bank, Browser, MASTER_KEY, Receiver, TestApp, id};

/// Pages that a reader could reach in this test, and more than there are.
const MOST_PAGES: usize = 1000;

/// Reads every page that a link or a form's way back leads to from the start; returns the paths and the texts.
async fn read_all(browser: &Browser, start: &str) -> Vec<(String, String)> {
    let mut found: BTreeSet<String> = BTreeSet::from([start.to_owned()]);
    let mut waiting = VecDeque::from([start.to_owned()]);
    let mut read = Vec::new();
    while let Some(path) = waiting.pop_front() {
        assert!(read.len() < MOST_PAGES, "the links have no end: {path}");
        let answer = browser.get(&path).await;
        let mut links = links_in(&answer.text);
        if answer.status == 303 {
            links.push(answer.header("location").to_owned());
        }
        for link in links {
            if found.insert(link.clone()) {
                waiting.push_back(link);
            }
        }
        read.push((path, answer.text));
    }
    read
}

/// The paths in a page's attributes, whatever follows them, but for what a form posts to.
fn links_in(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut before = "";
    for part in page.split("=\"/") {
        if !before.is_empty() && !before.ends_with("action") {
            let path = part.split('"').next().unwrap_or_default().replace("&amp;", "&");
            links.push(format!("/{}", path.split('#').next().unwrap_or_default()));
        }
        before = part;
    }
    links
}

/// Whether a path, without its query, is one of the pattern.
fn is_of(path: &str, pattern: &str) -> bool {
    let path: Vec<_> = path.split('?').next().unwrap().split('/').collect();
    let pattern: Vec<_> = pattern.split('/').collect();
    let same = |(part, given): (&&str, &&str)| part.starts_with('{') || part == given;
    path.len() == pattern.len() && pattern.iter().zip(&path).all(same)
}

/// A day's work, with the name and the text of every secret that passes through it.
async fn a_day(app: &TestApp, receiver: &Receiver) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let token = app.token().await;
    let result = app.connect();
    let active = app.active_from("ada", &result).await;
    let revealed = app.api.reveal(&token, id(&active)).await;
    let pending = app.connect();
    app.sandbox.set_fault(Fault::new(Effect::Drop).on(Bank::Dapi.exchange()).before()).unwrap();
    app.hand_in("bob", &pending).await;
    let client = json!({ "name": "canary", "scopes": ["connections:read"] });
    let client = app.api.post(&token, "/v1/admin/clients", &client).await;
    let webhook = json!({ "url": receiver.url, "description": "canary" });
    let webhook = app.api.post(&token, "/v1/admin/webhooks", &webhook).await;
    let url = &app.sandbox_url;
    let upstream = json!({
        "name": "kaisa", "preset": "kaisa", "clientID": sandbox::SYSTEMS_CLIENT_ID,
        "clientSecret": sandbox::SYSTEMS_CLIENT_SECRET,
        "tokenURL": format!("{url}/kaisa/oauth/token"), "baseURL": format!("{url}/kaisa/api"),
    });
    app.api.post(&token, "/v1/admin/upstreams", &upstream).await;
    let lent = app.api.post_empty(&token, "/v1/upstreams/kaisa/token").await;
    let order =
        json!({ "kind": "invalidate", "reason": "x", "filter": { "clientUserIDs": ["bob"] } });
    let order = app.api.post(&token, "/v1/admin/revocations", &order).await;
    assert_eq!(order.status, 202, "{}", order.text);
    vec![
        ("app secret", sandbox::DEFAULT_APP_SECRET.to_owned()),
        ("bootstrap secret", BOOTSTRAP_SECRET.to_owned()),
        ("master key", MASTER_KEY.split_once(':').unwrap().1.to_owned()),
        ("access token of the API", token),
        ("code", text(&result["accessCode"])),
        ("user secret", text(&result["userSecret"])),
        ("bank token", text(&revealed.json["accessToken"])),
        ("pending code", text(&pending["accessCode"])),
        ("pending user secret", text(&pending["userSecret"])),
        ("client secret", text(&client.json["clientSecret"])),
        ("webhook secret", text(&webhook.json["secret"])),
        ("upstream secret", sandbox::SYSTEMS_CLIENT_SECRET.to_owned()),
        ("upstream token", text(&lent.json["access_token"])),
    ]
}

/// Something waits for a second person, so that its pages are read as well.
async fn a_request_waits(app: &TestApp) {
    let request = json!({ "name": "reader", "role": "admin" });
    let new = NewRequest {
        app: None,
        kind: Kind::Role,
        request: request.to_string(),
        described: request,
        matched: None,
    };
    let mut conn = app.context.pool.acquire().await.unwrap();
    let (vault, actor) = (&app.context.vault, Actor::operator());
    approvals::ask(&mut conn, vault, &actor, true, &new).await.unwrap();
}

#[tokio::test]
async fn no_page_of_the_console_holds_a_secret() {
    let app = TestApp::builder()
        .set("STRONGROOM_CONSOLE_LISTEN", "127.0.0.1:0")
        .set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")
        .set("STRONGROOM_ANSWER_WITHIN", "1")
        .spawn()
        .await;
    let receiver = Receiver::spawn();
    let mut secrets = a_day(&app, &receiver).await;
    let browser = Browser::of(&app, "reader", Role::Admin).await;
    let session = browser.cookie().unwrap().split_once("osess_").unwrap().1.to_owned();
    secrets.push(("console session", session));

    a_request_waits(&app).await;
    let mut pages = read_all(&browser, "/").await;
    // What a form asks for, what a page that goes on follows, and what only a visitor sees.
    let order = pages
        .iter()
        .find(|(path, _)| is_of(path, "/apps/{app}/incident/{order}") && !path.ends_with("/new"));
    let order = order.expect("an incident").0.clone();
    let export = format!("{}/audit/export", order.split("/incident").next().unwrap());
    for path in [format!("{order}/live"), export, "/sign-in".to_owned()] {
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        pages.push((path, answer.text));
    }
    for (path, page) in &pages {
        for (name, secret) in &secrets {
            assert!(!page.contains(secret), "{name} stands on {path}");
        }
    }
    let pages: Vec<_> = pages.iter().map(|(path, _)| path).collect();
    let unseen = ROUTES.iter().filter(|route| route.method == Method::Get);
    let unseen = unseen
        .map(|route| route.path)
        .filter(|pattern| !pages.iter().any(|path| is_of(path, pattern)));
    // The two ways to a provider, and what alerts and problems link to; each leads to pages that were read. And what is empty.
    let elsewhere = ["/sign-in/oidc", "/sign-in/oidc/callback", "/to/{screen}", "/seen"];
    let unseen: Vec<_> = unseen.filter(|pattern| !elsewhere.contains(pattern)).collect();
    assert_eq!(unseen, [""; 0], "no link leads to these pages: {pages:?}");
}
