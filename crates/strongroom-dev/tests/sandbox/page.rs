//! The headers of Connect's page and Link's; tests/browser looks at them.

use crate::support::TestSandbox;

#[tokio::test]
async fn the_named_origin_alone_may_frame_the_page() {
    let test = TestSandbox::start();
    for (query, framed_by) in [
        ("?origin=http://localhost:8080", "http://localhost:8080"),
        ("?origin=https%3A%2F%2Fapp.example", "https://app.example"),
        ("", "'none'"),
    ] {
        for page in ["/connect", "/plaid/link"] {
            let response = test.http.get(test.url(&format!("{page}{query}"))).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.ends_with(&format!("frame-ancestors {framed_by}")), "{policy}");
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }
}

#[tokio::test]
async fn a_page_that_could_not_work_does_not_open() {
    let test = TestSandbox::start();
    for query in ["origin=*", "origin=null", "origin=http://a.example/", "codeLifetime=long"] {
        for page in ["/connect", "/plaid/link"] {
            let response =
                test.http.get(test.url(&format!("{page}?{query}"))).send().await.unwrap();
            assert_eq!(response.status(), 400, "{query}");
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
        }
    }
    let nasty = "/connect?origin=%3Cscript%3Ealert(1)%3C/script%3E";
    let shown = test.http.get(test.url(nasty)).send().await.unwrap().text().await.unwrap();
    assert!(!shown.contains("<script"));
}

#[tokio::test]
async fn the_page_brings_everything_it_needs() {
    let test = TestSandbox::start();
    let shown = async |path: &str| {
        test.http.get(test.url(path)).send().await.unwrap().text().await.unwrap()
    };
    let pages = [shown("/connect").await, shown("/plaid/link").await];
    let scripts = [shown("/connect/connect.js").await, shown("/plaid/link/link.js").await];
    for (path, kind, users) in [
        ("/connect/connect.css", "text/css", &pages[..]),
        ("/connect/connect.js", "text/javascript", &pages[..1]),
        ("/plaid/link/link.js", "text/javascript", &pages[1..]),
        ("/connect/page.js", "text/javascript", &scripts[..]),
    ] {
        assert!(users.iter().all(|user| user.contains(path)), "{path}");
        let response = test.http.get(test.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind));
        let shown = response.text().await.unwrap();
        assert!(!shown.contains("http://") && !shown.contains("https://"), "{path}");
    }
}
