//! Who the demo answers, and with what.

use reqwest::Method;
use reqwest::header::{HOST, LOCATION, ORIGIN};
use serde_json::json;

use crate::support::{Dev, temporary};

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let demo = dev.url("demoURL");
    let port = demo.rsplit(':').next().unwrap();
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status();

    for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1:1", ""] {
        let rebound = dev.http.get(format!("{demo}/api/connections")).header(HOST, host);
        assert_eq!(status(rebound).await, 421, "{host}");
    }
    for origin in ["https://evil.example", "null", dev.url("sandboxURL")] {
        for (method, path) in [
            (Method::POST, "/api/session"),
            (Method::POST, "/api/link-token"),
            (Method::GET, "/api/connections?link=plaid"),
        ] {
            let forged = dev.http.request(method, format!("{demo}{path}")).header(ORIGIN, origin);
            assert_eq!(status(forged).await, 403, "{path} from {origin}");
        }
    }
    let without_origin = dev.http.post(format!("{demo}/api/session")).json(&json!({}));
    assert_eq!(status(without_origin).await, 403);
    assert_eq!(status(dev.http.get(demo)).await, 200);
}

#[tokio::test]
async fn localhost_leads_to_the_name_that_the_demo_has() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let port = dev.url("demoURL").rsplit(':').next().unwrap();
    let asked = dev.http.get(dev.url("demoURL")).header(HOST, format!("localhost:{port}"));
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()[LOCATION], format!("{}/", dev.url("demoURL")));
}

#[tokio::test]
async fn the_page_knows_its_neighbours_and_holds_no_secret() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let answer = dev.http.get(dev.url("demoURL")).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for part in [
        "default-src 'none'".to_owned(),
        format!("connect-src 'self' {};", dev.url("apiURL")),
        format!("frame-src {};", dev.url("sandboxURL")),
        "frame-ancestors 'none'".to_owned(),
    ] {
        assert!(policy.contains(&part), "{part} in {policy}");
    }
    let page = answer.text().await.unwrap();
    assert!(page.contains(dev.url("apiURL")) && page.contains(dev.url("sandboxURL")));
    assert!(!page.contains('{'), "a place was not filled in");
    for file in ["secrets", "plaid-client"] {
        let kept = std::fs::read_to_string(folder.path().join("room").join(file)).unwrap();
        for value in kept.lines().skip(1).filter_map(|line| line.split('\'').nth(1)) {
            assert!(!page.contains(value));
        }
    }
}

#[tokio::test]
async fn a_connection_of_nobodys_is_not_found() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    for id in ["nonsense", "conn_01890a5d-ac96-774b-bcce-b302099a8057"] {
        let path = format!("/api/connections/{id}/inside");
        let answer = dev.ask(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{id}");
    }
}

#[tokio::test]
async fn whoever_sends_codes_elsewhere_is_told_that_the_demo_cannot_follow() {
    for (variable, told, attribute, other) in [
        ("DAPI_BASE_URL", "foreignDapiURL", "data-foreign-dapi", "data-foreign-plaid"),
        ("PLAID_BASE_URL", "foreignPlaidURL", "data-foreign-plaid", "data-foreign-dapi"),
    ] {
        let folder = temporary();
        let elsewhere = "http://127.0.0.1:1/v2";
        let dev = Dev::with(folder.path(), &[(variable, elsewhere)]);
        assert_eq!(dev.url(told), elsewhere);
        let page = dev.http.get(dev.url("demoURL")).send().await.unwrap().text().await.unwrap();
        assert!(page.contains(&format!("{attribute}=\"{elsewhere}\"")));
        assert!(page.contains(&format!("{other}=\"\"")));
    }
}

#[tokio::test]
async fn a_bank_link_that_does_not_exist_is_refused() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let answer = dev.ask(Method::GET, "/api/connections?link=other").send().await.unwrap();
    assert_eq!(answer.status(), 400);
}
