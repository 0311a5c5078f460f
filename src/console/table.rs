//! The route table: every route of the console and what it needs.

use std::collections::BTreeSet;

use actix_web::{Route, web};

use super::{assets, home, now, passkeys, sign_in};
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
    handler: fn() -> Route,
}

const fn get(path: &'static str, needs: Needs, handler: fn() -> Route) -> ConsoleRoute {
    ConsoleRoute { method: Method::Get, path, needs, handler }
}

const fn post(path: &'static str, needs: Needs, handler: fn() -> Route) -> ConsoleRoute {
    ConsoleRoute { method: Method::Post, path, needs, handler }
}

/// Reads.
const AUDITOR: Needs = Needs::Role(Role::Auditor);

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
    get("/apps/{app}/now", AUDITOR, || web::get().to(now::page)),
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
    fn no_two_rows_are_for_the_same_route() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((format!("{:?}", route.method), route.path)), "{route:?}");
        }
    }
}
