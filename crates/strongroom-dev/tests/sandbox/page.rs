//! The headers of Connect's page; its look is not tested.

use crate::support::TestSandbox;

#[tokio::test]
async fn the_named_origin_alone_may_frame_the_page() {
    let test = TestSandbox::start();
    for (query, framed_by) in [
        ("?origin=http://localhost:8080&clientUserID=ada", "http://localhost:8080"),
        ("?origin=https%3A%2F%2Fapp.example", "https://app.example"),
        ("", "'none'"),
    ] {
        let response = test.http.get(test.url(&format!("/connect{query}"))).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.ends_with(&format!("frame-ancestors {framed_by}")), "{policy}");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_page_that_could_not_work_does_not_open() {
    let test = TestSandbox::start();
    for query in ["origin=*", "origin=null", "origin=http://a.example/", "codeLifetime=long"] {
        let response = test.http.get(test.url(&format!("/connect?{query}"))).send().await.unwrap();
        assert_eq!(response.status(), 400, "{query}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
    }
    let nasty = "/connect?origin=%3Cscript%3Ealert(1)%3C/script%3E";
    let shown = test.http.get(test.url(nasty)).send().await.unwrap().text().await.unwrap();
    assert!(!shown.contains("<script"));
}

#[tokio::test]
async fn the_page_brings_everything_it_needs() {
    let test = TestSandbox::start();
    let page = test.http.get(test.url("/connect")).send().await.unwrap().text().await.unwrap();
    for (path, kind) in
        [("/connect/connect.css", "text/css"), ("/connect/connect.js", "text/javascript")]
    {
        assert!(page.contains(path));
        let response = test.http.get(test.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind));
        let shown = response.text().await.unwrap();
        assert!(!shown.contains("http://") && !shown.contains("https://"), "{path}");
    }
}
