//! Who may do what: every operation of the OpenAPI document, with no token, a bad one, every single
//! scope, and a token of another app. An operation without a row here fails the test.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use strongroom::common::scope::Scope;

use crate::outages::during_a_migration;
use crate::support::{Answer, BOOTSTRAP_ID, TestApp, id};

/// What an operation asks of its caller.
enum Needs {
    /// Nothing.
    Nothing,
    /// Nothing, and it is on another listener than the API.
    Elsewhere,
    /// Client credentials, in OAuth's own way.
    Credentials,
    /// Client id and secret as Dapi's `appSecret`, in Dapi's own shape.
    AppSecret,
    /// Plaid's signature.
    Signature,
    /// Client id and secret as Plaid's, in Plaid's own shape.
    PlaidSecret,
    /// An access token with this scope.
    Scope(Scope),
    /// An access token with this scope, or a connect session.
    ScopeOrSession(Scope),
}

/// One row: method, path as in the document, needs. `{id}` is a connection of the app, `{clientID}` a
/// client that nobody has.
#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, &'static str, Needs)> {
    use Needs::{
        AppSecret, Credentials, Elsewhere, Nothing, PlaidSecret, Scope as S, ScopeOrSession,
        Signature,
    };
    vec![
        ("get", "/healthz", Nothing),
        ("get", "/readyz", Nothing),
        ("get", "/problems/{code}", Nothing),
        ("get", "/metrics", Elsewhere),
        ("get", "/.well-known/oauth-authorization-server", Nothing),
        ("get", "/.well-known/jwks.json", Nothing),
        ("post", "/oauth2/token", Credentials),
        ("post", "/oauth2/revoke", Credentials),
        ("post", "/oauth2/introspect", Credentials),
        ("post", "/hooks/plaid/{app}", Signature),
        ("post", "/dapi", AppSecret),
        ("post", "/dapi/v2/{path}", AppSecret),
        ("post", "/plaid/{path}", PlaidSecret),
        ("get", "/v1/admin/clients", S(Scope::Admin)),
        ("post", "/v1/admin/clients", S(Scope::Admin)),
        ("get", "/v1/admin/clients/{clientID}", S(Scope::Admin)),
        ("patch", "/v1/admin/clients/{clientID}", S(Scope::Admin)),
        ("delete", "/v1/admin/clients/{clientID}", S(Scope::Admin)),
        ("post", "/v1/admin/clients/{clientID}/secrets", S(Scope::Admin)),
        ("delete", "/v1/admin/clients/{clientID}/secrets/{secretID}", S(Scope::Admin)),
        ("get", "/v1/admin/audit-events", S(Scope::Admin)),
        ("get", "/v1/admin/audit-checkpoint", S(Scope::Admin)),
        ("get", "/v1/admin/approvals", S(Scope::Admin)),
        ("get", "/v1/admin/approvals/{id}", S(Scope::Admin)),
        ("post", "/v1/admin/approvals/{id}/withdraw", S(Scope::Admin)),
        ("get", "/v1/admin/connections", S(Scope::Admin)),
        ("get", "/v1/admin/connections/{id}", S(Scope::Admin)),
        ("get", "/v1/admin/stats", S(Scope::Admin)),
        ("get", "/v1/admin/revocations", S(Scope::Admin)),
        ("post", "/v1/admin/revocations", S(Scope::Admin)),
        ("get", "/v1/admin/revocations/{id}", S(Scope::Admin)),
        ("post", "/v1/admin/revocations/{id}/pause", S(Scope::Admin)),
        ("post", "/v1/admin/revocations/{id}/resume", S(Scope::Admin)),
        ("post", "/v1/admin/revocations/{id}/cancel", S(Scope::Admin)),
        ("get", "/v1/events", S(Scope::ConnectionsRead)),
        ("get", "/v1/admin/webhooks", S(Scope::Admin)),
        ("post", "/v1/admin/webhooks", S(Scope::Admin)),
        ("get", "/v1/admin/webhooks/{id}", S(Scope::Admin)),
        ("patch", "/v1/admin/webhooks/{id}", S(Scope::Admin)),
        ("delete", "/v1/admin/webhooks/{id}", S(Scope::Admin)),
        ("post", "/v1/admin/webhooks/{id}/secrets", S(Scope::Admin)),
        ("delete", "/v1/admin/webhooks/{id}/secrets/{secretID}", S(Scope::Admin)),
        ("post", "/v1/admin/webhooks/{id}/test", S(Scope::Admin)),
        ("post", "/v1/admin/webhooks/{id}/replay", S(Scope::Admin)),
        ("get", "/v1/admin/webhooks/{id}/deliveries", S(Scope::Admin)),
        ("delete", "/v1/users/{clientUserID}", S(Scope::UsersErase)),
        ("get", "/v1/users/erasures/{id}", S(Scope::UsersErase)),
        ("post", "/v1/connect-sessions", S(Scope::SessionsCreate)),
        ("get", "/v1/connections", ScopeOrSession(Scope::ConnectionsRead)),
        ("post", "/v1/connections", ScopeOrSession(Scope::ConnectionsWrite)),
        ("post", "/v1/connections/import", S(Scope::ConnectionsWrite)),
        ("get", "/v1/connections/{id}", ScopeOrSession(Scope::ConnectionsRead)),
        ("delete", "/v1/connections/{id}/attention", S(Scope::DapiCall)),
        ("post", "/v1/connections/{id}/token", S(Scope::TokensRead)),
        ("delete", "/v1/connections/{id}/token", S(Scope::TokensRead)),
        ("post", "/v1/connections/{id}/delink", S(Scope::ConnectionsRevoke)),
        ("post", "/v1/connections/{id}/invalidate", S(Scope::ConnectionsRevoke)),
        ("post", "/v1/connections/{id}/dapi/{path}", S(Scope::DapiCall)),
        ("post", "/v1/connections/{id}/plaid/{path}", S(Scope::DapiCall)),
        ("post", "/v1/plaid/link-token", S(Scope::DapiCall)),
        ("post", "/v1/upstreams/{name}/token", S(Scope::UpstreamsUse)),
        ("get", "/v1/upstreams/{name}/proxy/{path}", S(Scope::UpstreamsUse)),
        ("post", "/v1/upstreams/{name}/proxy/{path}", S(Scope::UpstreamsUse)),
        ("put", "/v1/upstreams/{name}/proxy/{path}", S(Scope::UpstreamsUse)),
        ("patch", "/v1/upstreams/{name}/proxy/{path}", S(Scope::UpstreamsUse)),
        ("delete", "/v1/upstreams/{name}/proxy/{path}", S(Scope::UpstreamsUse)),
        ("get", "/v1/admin/upstreams", S(Scope::Admin)),
        ("post", "/v1/admin/upstreams", S(Scope::Admin)),
        ("get", "/v1/admin/upstreams/{name}", S(Scope::Admin)),
        ("patch", "/v1/admin/upstreams/{name}", S(Scope::Admin)),
        ("delete", "/v1/admin/upstreams/{name}", S(Scope::Admin)),
    ]
}

const SECRET_OF_NOBODY: &str = "sec_01999999-0000-7000-8000-000000000000";

struct Operation {
    method: Method,
    path: String,
}

impl Operation {
    fn new(method: &str, path: &str, connection: &str) -> Self {
        let path = path.replace("{id}", connection).replace("{code}", "not_found");
        let path = path.replace("{clientUserID}", "nobody");
        let path = path.replace("{name}", "nobody").replace("{path}", "a/b");
        let path = path.replace("{clientID}", "nobody").replace("{secretID}", SECRET_OF_NOBODY);
        Self { method: method.to_uppercase().parse().unwrap(), path }
    }

    async fn call(&self, app: &TestApp, token: Option<&str>) -> Answer {
        let mut request = app.api.request(self.method.clone(), &self.path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if [Method::POST, Method::PATCH].contains(&self.method) {
            request = request.json(&json!({}));
        }
        app.api.send(request).await
    }
}

#[tokio::test]
async fn every_operation_of_the_document_is_in_the_table_and_the_other_way_round() {
    let document = serde_json::to_value(strongroom::service::document()).unwrap();
    let documented: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods
                .filter(|key| *key != "parameters")
                .map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    let listed = table().into_iter().map(|(method, path, _)| (method.to_owned(), path.to_owned()));
    assert_eq!(documented, listed.collect());
}

#[tokio::test]
async fn without_a_token_there_is_a_challenge_and_no_error() {
    let app = TestApp::spawn().await;
    let connection = app.active("ada").await;
    for (method, path, needs) in table() {
        let answer = Operation::new(method, path, id(&connection)).call(&app, None).await;
        match needs {
            Needs::Nothing => assert_eq!(answer.status, 200, "{path}"),
            Needs::Elsewhere => assert_eq!(answer.problem(), (404, "not_found"), "{path}"),
            Needs::Credentials => {
                assert_eq!((answer.status, &answer.json["error"]), (401, &json!("invalid_client")));
                assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{path}");
            }
            Needs::AppSecret => {
                let told = (answer.status, &answer.json["type"]);
                assert_eq!(told, (401, &json!("INVALID_APP_SECRET")), "{path}");
            }
            Needs::Signature => assert_eq!(answer.problem(), (400, "invalid_request"), "{path}"),
            Needs::PlaidSecret => {
                let told = (answer.status, &answer.json["error_code"]);
                assert_eq!(told, (400, &json!("INVALID_API_KEYS")), "{path}");
            }
            Needs::Scope(_) | Needs::ScopeOrSession(_) => {
                assert_eq!(answer.problem(), (401, "unauthorized"), "{path}");
                assert_eq!(
                    answer.header("www-authenticate"),
                    "Bearer realm=\"strongroom\"",
                    "{path}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_bad_token_is_told_apart_from_none() {
    let app = TestApp::spawn().await;
    let connection = app.active("ada").await;
    let session_of_nobody = format!("cs_{}", "x".repeat(43));
    for (method, path, needs) in table() {
        if !matches!(needs, Needs::Scope(_) | Needs::ScopeOrSession(_)) {
            continue;
        }
        for token in ["x", "a.b.c", &session_of_nobody] {
            let operation = Operation::new(method, path, id(&connection));
            let answer = operation.call(&app, Some(token)).await;
            assert_eq!(answer.problem(), (401, "unauthorized"), "{path}");
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains("error=\"invalid_token\""), "{path}: {challenge}");
        }
    }
}

#[tokio::test]
async fn each_scope_opens_what_it_is_for_and_nothing_else() {
    let app = TestApp::spawn().await;
    let connection = app.active("ada").await;
    for scope in Scope::ALL {
        let token = app.token_for(scope.as_str()).await;
        for (method, path, needs) in table() {
            let operation = Operation::new(method, path, id(&connection));
            let (Needs::Scope(needed) | Needs::ScopeOrSession(needed)) = needs else { continue };
            let answer = operation.call(&app, Some(&token)).await;
            if scope == needed {
                assert!(
                    ![401, 403].contains(&answer.status),
                    "{scope} {method} {path}: {}",
                    answer.text
                );
            } else {
                assert_eq!(
                    answer.problem(),
                    (403, "insufficient_scope"),
                    "{scope} {method} {path}"
                );
                assert_eq!(answer.json["scope"], needed.as_str());
                let challenge = answer.header("www-authenticate");
                let expected = format!("error=\"insufficient_scope\", scope=\"{needed}\"");
                assert!(challenge.contains(&expected), "{challenge}");
            }
        }
    }
}

#[tokio::test]
async fn no_operation_fails_because_a_migration_holds_its_tables() {
    let app = TestApp::spawn().await;
    let (connection, token) = (app.active("ada").await, app.token().await);
    let operations = table().into_iter().map(|(method, path, _)| {
        let operation = Operation::new(method, path, id(&connection));
        let (app, token) = (&app, &token);
        async move { (method, path, operation.call(app, Some(token)).await) }
    });
    for (method, path, answer) in during_a_migration(&app, join_all(operations)).await {
        assert!(answer.status < 500, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_session_opens_only_what_a_browser_needs() {
    let app = TestApp::spawn().await;
    let connection = app.active("ada").await;
    let session = app.api.session(&app.token().await, "ada").await;
    for (method, path, needs) in table() {
        let operation = Operation::new(method, path, id(&connection));
        match needs {
            Needs::Scope(_) => {
                let answer = operation.call(&app, Some(&session)).await;
                assert_eq!(answer.problem(), (403, "insufficient_scope"), "{method} {path}");
            }
            Needs::ScopeOrSession(_) => {
                let answer = operation.call(&app, Some(&session)).await;
                assert!(![401, 403].contains(&answer.status), "{method} {path}: {}", answer.text);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn to_another_app_what_exists_looks_like_what_does_not() {
    let app = TestApp::spawn().await;
    let connection = app.active("ada").await;
    let stranger = app.token_of_another_app().await;
    let nothing = "conn_01999999-0000-7000-8000-000000000000";
    let owned = |path: &str| path.contains("{id}") || path.contains("{clientID}");
    for (method, path, _) in table().into_iter().filter(|(_, path, _)| owned(path)) {
        let request = |id: &str, client: &str| {
            let path = path.replace("{id}", id).replace("{clientID}", client);
            let path = path.replace("{secretID}", SECRET_OF_NOBODY);
            let request = app.api.request(method.to_uppercase().parse().unwrap(), &path);
            request.bearer_auth(&stranger).json(&json!({ "reason": "x", "disabled": true }))
        };
        let mut foreign = app.api.send(request(id(&connection), BOOTSTRAP_ID)).await;
        let mut unknown = app.api.send(request(nothing, "nobody")).await;
        assert_eq!(foreign.problem(), (404, "not_found"), "{method} {path}");
        foreign.json["requestID"].take();
        unknown.json["requestID"].take();
        assert_eq!(foreign.json, unknown.json, "{method} {path}");
    }
}
