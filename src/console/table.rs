//! The route table: every route of the console and what it needs.

use std::collections::BTreeSet;

use actix_web::{Route, web};

use super::{
    approvals, assets, audit, clients, connections, home, incident, keys, now, passkeys, people,
    sign_in, upstreams, users, webhooks,
};
use crate::operators::Role;

/// The method of a route. What changes something is a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes something. The guard checks the origin and, in a session, the form's token.
    Post,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Everybody: what leads to a session.
    Nothing,
    /// A signed-in operator of this role or a higher one.
    Role(Role),
    /// The same, who proved within five minutes who they are: what cannot be undone, and the page that asks for it.
    Fresh(Role),
}

/// A route of the console.
#[derive(Debug)]
pub struct ConsoleRoute {
    /// The method.
    pub method: Method,
    /// The path's pattern.
    pub path: &'static str,
    /// Who may use it.
    pub needs: Needs,
    /// Whether an operator asks for it, and no page by itself: that alone keeps a session from going idle.
    pub is_asked: bool,
    handler: fn() -> Route,
}

const fn get(path: &'static str, needs: Needs, handler: fn() -> Route) -> ConsoleRoute {
    ConsoleRoute { method: Method::Get, path, needs, is_asked: true, handler }
}

const fn post(path: &'static str, needs: Needs, handler: fn() -> Route) -> ConsoleRoute {
    ConsoleRoute { method: Method::Post, path, needs, is_asked: true, handler }
}

/// The live part of a page, for whoever may see the page.
const fn live(path: &'static str, handler: fn() -> Route) -> ConsoleRoute {
    ConsoleRoute { method: Method::Get, path, needs: AUDITOR, is_asked: false, handler }
}

/// Reads.
const AUDITOR: Needs = Needs::Role(Role::Auditor);

/// Changes something.
const OPERATOR: Needs = Needs::Role(Role::Operator);

/// Does what cannot be undone, or asks whether to.
const FRESH_OPERATOR: Needs = Needs::Fresh(Role::Operator);
const FRESH_ADMIN: Needs = Needs::Fresh(Role::Admin);

/// Manages clients, keys, upstreams and webhooks.
const ADMIN: Needs = Needs::Role(Role::Admin);

/// Changes how an operator signs in.
const FRESH: Needs = Needs::Fresh(Role::Auditor);

/// Every route. `tests/api/console_roles.rs` sends a request of each role to each.
pub const ROUTES: &[ConsoleRoute] = &[
    get("/assets/{name}", Needs::Nothing, || web::get().to(assets::asset)),
    get("/sign-in", Needs::Nothing, || web::get().to(sign_in::page)),
    post("/sign-in/link", Needs::Nothing, || web::post().to(sign_in::by_link)),
    get("/sign-in/oidc", Needs::Nothing, || web::get().to(sign_in::oidc::begin)),
    get("/sign-in/oidc/callback", Needs::Nothing, || web::get().to(sign_in::oidc::callback)),
    post("/sign-in/passkey/begin", Needs::Nothing, || web::post().to(sign_in::passkey::begin)),
    post("/sign-in/passkey", Needs::Nothing, || web::post().to(sign_in::passkey::finish)),
    // An added passkey outlives the session: a stolen session cannot add one.
    get("/passkeys", FRESH, || web::get().to(passkeys::page)),
    post("/passkeys/begin", FRESH, || web::post().to(passkeys::begin)),
    post("/passkeys/finish", FRESH, || web::post().to(passkeys::finish)),
    post("/passkeys/remove", FRESH, || web::post().to(passkeys::remove)),
    post("/sign-out", AUDITOR, || web::post().to(sign_in::sign_out)),
    get("/", AUDITOR, || web::get().to(home::page)),
    // What a live page's script asks for while somebody reads it.
    get("/seen", AUDITOR, || web::get().to(home::seen)),
    get("/to/{screen}", AUDITOR, || web::get().to(home::to_screen)),
    get("/apps/{app}/now", AUDITOR, || web::get().to(now::routes::page)),
    live("/apps/{app}/now/live", || web::get().to(now::routes::live)),
    get("/apps/{app}/connections", AUDITOR, || web::get().to(connections::routes::list)),
    get("/apps/{app}/connections/{id}", AUDITOR, || web::get().to(connections::routes::show)),
    get("/apps/{app}/connections/{id}/delink", FRESH_OPERATOR, || {
        web::get().to(connections::routes::ask)
    }),
    post("/apps/{app}/connections/{id}/delink", FRESH_OPERATOR, || {
        web::post().to(connections::routes::end)
    }),
    get("/apps/{app}/connections/{id}/invalidate", FRESH_OPERATOR, || {
        web::get().to(connections::routes::ask)
    }),
    post("/apps/{app}/connections/{id}/invalidate", FRESH_OPERATOR, || {
        web::post().to(connections::routes::end)
    }),
    get("/apps/{app}/connections/{id}/give-up", FRESH_OPERATOR, || {
        web::get().to(connections::routes::ask)
    }),
    post("/apps/{app}/connections/{id}/give-up", FRESH_OPERATOR, || {
        web::post().to(connections::routes::end)
    }),
    get("/apps/{app}/incident", AUDITOR, || web::get().to(incident::routes::list)),
    // Both revoke nothing.
    get("/apps/{app}/incident/new", OPERATOR, || web::get().to(incident::routes::form)),
    post("/apps/{app}/incident/preview", OPERATOR, || web::post().to(incident::routes::preview)),
    post("/apps/{app}/incident", FRESH_OPERATOR, || web::post().to(incident::routes::create)),
    get("/apps/{app}/incident/{order}", AUDITOR, || web::get().to(incident::routes::show)),
    live("/apps/{app}/incident/{order}/live", || web::get().to(incident::routes::live)),
    post("/apps/{app}/incident/{order}/pause", OPERATOR, || {
        web::post().to(incident::routes::pause)
    }),
    post("/apps/{app}/incident/{order}/resume", OPERATOR, || {
        web::post().to(incident::routes::resume)
    }),
    get("/apps/{app}/incident/{order}/cancel", FRESH_OPERATOR, || {
        web::get().to(incident::routes::ask_cancel)
    }),
    post("/apps/{app}/incident/{order}/cancel", FRESH_OPERATOR, || {
        web::post().to(incident::routes::cancel)
    }),
    get("/apps/{app}/approvals", AUDITOR, || web::get().to(approvals::routes::list)),
    get("/apps/{app}/approvals/{id}", AUDITOR, || web::get().to(approvals::routes::show)),
    get("/apps/{app}/approvals/{id}/approve", FRESH_OPERATOR, || {
        web::get().to(approvals::routes::ask)
    }),
    post("/apps/{app}/approvals/{id}/approve", FRESH_OPERATOR, || {
        web::post().to(approvals::routes::approve)
    }),
    post("/apps/{app}/approvals/{id}/reject", OPERATOR, || {
        web::post().to(approvals::routes::reject)
    }),
    post("/apps/{app}/approvals/{id}/withdraw", OPERATOR, || {
        web::post().to(approvals::routes::withdraw)
    }),
    get("/apps/{app}/users/{id}", AUDITOR, || web::get().to(users::routes::show)),
    post("/apps/{app}/users/{id}/end-sessions", OPERATOR, || {
        web::post().to(users::routes::end_sessions)
    }),
    get("/apps/{app}/users/{id}/erase", FRESH_OPERATOR, || web::get().to(users::routes::ask)),
    post("/apps/{app}/users/{id}/erase", FRESH_OPERATOR, || web::post().to(users::routes::erase)),
    get("/apps/{app}/clients", AUDITOR, || web::get().to(clients::routes::list)),
    get("/apps/{app}/clients/{client}", AUDITOR, || web::get().to(clients::routes::show)),
    post("/apps/{app}/clients/{client}/disable", ADMIN, || {
        web::post().to(clients::routes::disable)
    }),
    post("/apps/{app}/clients/{client}/enable", ADMIN, || web::post().to(clients::routes::enable)),
    post("/apps/{app}/clients/{client}/secrets/{secret}/end", FRESH_ADMIN, || {
        web::post().to(clients::routes::end_secret)
    }),
    get("/apps/{app}/keys", AUDITOR, || web::get().to(keys::routes::page)),
    get("/jwks.json", AUDITOR, || web::get().to(keys::routes::jwks)),
    get("/apps/{app}/audit", AUDITOR, || web::get().to(audit::routes::page)),
    get("/apps/{app}/audit/export", AUDITOR, || web::get().to(audit::routes::export)),
    get("/apps/{app}/audit/links", AUDITOR, || web::get().to(audit::routes::links)),
    get("/requests/{request}", AUDITOR, || web::get().to(audit::routes::request)),
    get("/apps/{app}/webhooks", AUDITOR, || web::get().to(webhooks::routes::list)),
    get("/apps/{app}/webhooks/{id}", AUDITOR, || web::get().to(webhooks::routes::show)),
    post("/apps/{app}/webhooks/{id}/test", ADMIN, || web::post().to(webhooks::routes::test)),
    post("/apps/{app}/webhooks/{id}/replay", ADMIN, || web::post().to(webhooks::routes::replay)),
    get("/apps/{app}/upstreams", AUDITOR, || web::get().to(upstreams::routes::list)),
    get("/operators", AUDITOR, || web::get().to(people::page)),
    post("/operators/sessions/{id}/end", ADMIN, || web::post().to(people::end_session)),
];

/// Returns the route of a method and a pattern.
#[must_use]
pub fn find(method: &actix_web::http::Method, pattern: &str) -> Option<&'static ConsoleRoute> {
    let method = match method.as_str() {
        "GET" => Method::Get,
        "POST" => Method::Post,
        _ => return None,
    };
    ROUTES.iter().find(|route| route.method == method && route.path == pattern)
}

/// Returns the page that leads to a form's route: the nearest at or above its path. A form that begins something has its page
/// beside it.
#[must_use]
pub fn page_of(route: &ConsoleRoute, path: &str) -> String {
    let is_page = |pattern: &str| {
        ROUTES.iter().any(|page| page.method == Method::Get && page.path == pattern)
    };
    let form = format!("{}/new", route.path);
    if is_page(&form) {
        return format!("{path}/new");
    }
    let first =
        |text: &str, count: usize| text.split('/').take(count).collect::<Vec<_>>().join("/");
    let page =
        (2..=path.split('/').count()).rev().find(|count| is_page(&first(route.path, *count)));
    page.map_or_else(|| "/".to_owned(), |count| first(path, count))
}

/// Registers every route of the table.
pub fn configure(config: &mut web::ServiceConfig) {
    let paths: BTreeSet<_> = ROUTES.iter().map(|route| route.path).collect();
    for path in paths {
        let routes = ROUTES.iter().filter(|route| route.path == path);
        let resource =
            routes.fold(web::resource(path), |resource, route| resource.route((route.handler)()));
        config.service(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_s_page_is_the_nearest_one_above_it() {
        let page = |pattern: &str, path: &str| {
            let route =
                ROUTES.iter().find(|route| route.path == pattern && route.method == Method::Post);
            page_of(route.unwrap(), path)
        };
        let erase = "/apps/{app}/users/{id}/erase";
        assert_eq!(page(erase, "/apps/a/users/u/erase"), "/apps/a/users/u/erase");
        let preview = "/apps/{app}/incident/preview";
        assert_eq!(page(preview, "/apps/a/incident/preview"), "/apps/a/incident");
        assert_eq!(page("/apps/{app}/incident", "/apps/a/incident"), "/apps/a/incident/new");
        let end = "/apps/{app}/clients/{client}/secrets/{secret}/end";
        assert_eq!(page(end, "/apps/a/clients/c/secrets/s/end"), "/apps/a/clients/c");
        assert_eq!(page("/operators/sessions/{id}/end", "/operators/sessions/x/end"), "/operators");
        assert_eq!(page("/sign-out", "/sign-out"), "/");
    }

    #[test]
    fn no_two_rows_are_for_the_same_route() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((format!("{:?}", route.method), route.path)), "{route:?}");
        }
    }
}
