//! Route × role: what the table says is what happens.

use std::time::Duration;

use strongroom::console::table::{ConsoleRoute, Method, Needs, ROUTES};
use strongroom::operators::Role;

use crate::support::{Answer, Browser, TestApp};

/// Sends a sound request of this browser to a route; what it names may not exist.
async fn ask(browser: &Browser, route: &ConsoleRoute, app: &str) -> Answer {
    let path = route.path.replace("{app}", app);
    let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
    let path = parts.collect::<Vec<_>>().join("/");
    match route.method {
        Method::Get => browser.get(&path).await,
        Method::Post if browser.is_signed_in() => browser.post(&path, &[]).await,
        Method::Post => browser.post_bare(&path, &[]).await,
    }
}

/// Whether an answer is the guard's refusal.
fn is_refused(answer: &Answer) -> bool {
    let by_role = answer.status == 403 && answer.text.contains("Your role does not allow this");
    by_role || is_sent_to_sign_in(answer)
}

fn is_sent_to_sign_in(answer: &Answer) -> bool {
    answer.status == 401 || answer.header("location").starts_with("/sign-in?")
}

#[tokio::test]
async fn each_route_takes_the_roles_that_the_table_says_and_no_others() {
    let app = TestApp::with_console().await;
    let visitor = Browser::new(&app);
    let probe = Browser::of(&app, "probe", Role::Auditor).await;
    let start = probe.get("/").await;
    let app_id = start.header("location").split('/').nth(2).unwrap().to_owned();
    for route in ROUTES {
        let (Needs::Role(needed) | Needs::Fresh(needed)) = route.needs else {
            assert!(!is_refused(&ask(&visitor, route, &app_id).await), "{route:?}");
            continue;
        };
        assert!(is_sent_to_sign_in(&ask(&visitor, route, &app_id).await), "{route:?}");
        for role in Role::ALL {
            // A session of its own for each, since a route may end it.
            let name = format!("{}-{}", role.as_str(), uuid::Uuid::now_v7().simple());
            let browser = Browser::of(&app, &name, role).await;
            let answer = ask(&browser, route, &app_id).await;
            assert_eq!(is_refused(&answer), role < needed, "{role:?} at {route:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_sign_in_of_more_than_five_minutes_ago_serves_all_but_what_the_table_calls_fresh() {
    let app = TestApp::with_console().await;
    let probe = Browser::of(&app, "probe", Role::Auditor).await;
    let app_id = probe.get("/").await.header("location").split('/').nth(2).unwrap().to_owned();
    let mut browsers = Vec::new();
    for (n, route) in ROUTES.iter().enumerate() {
        if !matches!(route.needs, Needs::Nothing) {
            // A session of its own for each, since a route may end it.
            browsers.push((route, Browser::of(&app, &format!("admin-{n}"), Role::Admin).await));
        }
    }
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    for (route, browser) in browsers {
        let answer = ask(&browser, route, &app_id).await;
        let proves = answer.status == 403 && answer.text.contains("Prove again that it is you");
        let refused = proves || is_sent_to_sign_in(&answer);
        assert_eq!(refused, matches!(route.needs, Needs::Fresh(_)), "{route:?}: {answer:?}");
    }
}
