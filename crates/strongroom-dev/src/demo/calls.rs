//! The demo backend's HTTP clients: of Strongroom, as any app calls it, and of the sandbox's control API.
//!
//! May import: reqwest, connection id, link, problem.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::connection_id::ConnectionId;
use super::link::Link;
use super::problem::Failed;
use super::{AppClient, USER};
use strongroom_common::clock::Clock;
use strongroom_common::secret::SecretText;

/// The scopes that this backend asks for; its clients have more.
const SCOPE: &str = "sessions:create+connections:read+connections:revoke+tokens:read+dapi:call";
/// How long before its end a token is replaced.
const EARLY: Duration = Duration::from_secs(30);
/// Longer than Strongroom waits for a bank link before it answers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Builds the HTTP client. Both servers are on this machine, so no proxy is used.
pub(super) fn http() -> reqwest::Result<reqwest::Client> {
    #[expect(clippy::disallowed_methods, reason = "this is where the demo calls out")]
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
}

/// A server's answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

async fn send(who: &'static str, request: reqwest::RequestBuilder) -> Result<Answer, Failed> {
    let unreachable = |error: reqwest::Error| Failed::Unreachable { who, what: last_cause(&error) };
    let response = request.send().await.map_err(unreachable)?;
    let status =
        StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    Ok(Answer { status, body: response.bytes().await.map_err(unreachable)? })
}

/// Returns the last cause of an error; the others only repeat that there is one.
fn last_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// An access token and when to replace it.
struct Token {
    text: SecretText,
    until: Instant,
}

/// The answer of the token endpoint (RFC 6749 §5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretText,
    expires_in: u64,
}

/// The client of Strongroom for one app, with client credentials.
pub(super) struct Strongroom {
    http: reqwest::Client,
    base: String,
    client: AppClient,
    clock: Clock,
    token: Mutex<Option<Token>>,
}

impl Strongroom {
    pub(super) fn new(
        http: reqwest::Client,
        base: String,
        client: AppClient,
        clock: Clock,
    ) -> Self {
        Self { http, base, client, clock, token: Mutex::new(None) }
    }

    /// Returns the app's name.
    pub(super) fn app(&self) -> &'static str {
        self.client.app
    }

    /// Creates a connect session for the demo's user.
    pub(super) async fn connect_session(&self) -> Result<Answer, Failed> {
        let body = json!({ "clientUserID": USER });
        self.call(Method::POST, "/v1/connect-sessions", Some(&body)).await
    }

    /// Creates a link token, with which the page opens Link. The backend needs no secret of Plaid's for it.
    pub(super) async fn link_token(&self) -> Result<Answer, Failed> {
        let body = json!({
            "clientUserID": USER,
            "client_name": "This app",
            "language": "en",
            "country_codes": ["US"],
            "products": ["transactions"],
        });
        self.call(Method::POST, "/v1/plaid/link-token", Some(&body)).await
    }

    /// Lists the user's newest connections.
    pub(super) async fn connections(&self) -> Result<Answer, Failed> {
        let path = format!("/v1/connections?clientUserID={USER}&limit=20");
        self.call(Method::GET, &path, None).await
    }

    /// Reveals a token.
    pub(super) async fn reveal(&self, id: ConnectionId, reason: &str) -> Result<Answer, Failed> {
        let body = json!({ "reason": reason });
        self.call(Method::POST, &format!("/v1/connections/{id}/token"), Some(&body)).await
    }

    /// Reads the accounts through the relay, which holds the token.
    pub(super) async fn accounts(&self, link: Link, id: ConnectionId) -> Result<Answer, Failed> {
        let path = format!("/v1/connections/{id}/{}", link.accounts());
        self.call(Method::POST, &path, Some(&json!({}))).await
    }

    pub(super) async fn delink(&self, id: ConnectionId) -> Result<Answer, Failed> {
        self.call(Method::POST, &format!("/v1/connections/{id}/delink"), None).await
    }

    /// Calls with an access token, and retries with a new one if it is refused.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failed> {
        for fresh in [false, true] {
            let token = self.access_token(fresh).await?;
            let request = self.http.request(method.clone(), format!("{}{path}", self.base));
            let request = request.bearer_auth(token.expose());
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            let answer = send("Strongroom", request).await?;
            match answer.status {
                StatusCode::UNAUTHORIZED if !fresh => {}
                status if status.is_success() => return Ok(answer),
                status => return Err(Failed::Refused { status, body: answer.body }),
            }
        }
        Err(Failed::Unreachable { who: "Strongroom", what: "it refused two tokens".to_owned() })
    }

    /// Returns an access token by client credentials (RFC 6749 §4.4), cached until shortly before it ends.
    async fn access_token(&self, fresh: bool) -> Result<SecretText, Failed> {
        let mut kept = self.token.lock().await;
        let now = self.clock.instant();
        if let Some(token) = kept.as_ref().filter(|token| !fresh && now < token.until) {
            return Ok(token.text.clone());
        }
        let request = self
            .http
            .post(format!("{}/oauth2/token", self.base))
            .basic_auth(&self.client.id, Some(self.client.secret.expose()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&scope={SCOPE}"));
        let Answer { status, body } = send("Strongroom", request).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
            let what =
                format!("no access token for the demo's client of {} ({status})", self.app());
            Failed::Unreachable { who: "Strongroom", what }
        })?;
        let life = Duration::from_secs(answer.expires_in).saturating_sub(EARLY);
        let until = now.checked_add(life).unwrap_or(now);
        let token = kept.insert(Token { text: answer.access_token, until });
        Ok(token.text.clone())
    }
}

/// The client of the sandbox's control API.
pub(super) struct Sandbox {
    http: reqwest::Client,
    base: String,
}

/// The fields of Connect's result that the demo reads.
#[derive(Deserialize)]
struct Linked {
    #[serde(rename = "connectionID")]
    connection_id: String,
}

impl Sandbox {
    pub(super) fn new(http: reqwest::Client, base: String) -> Self {
        Self { http, base }
    }

    /// Checks that Connect's page can be opened.
    pub(super) async fn is_there(&self) -> Result<(), Failed> {
        let request = self.http.get(format!("{}/connect", self.base));
        send("the sandbox", request).await.map(|_| ())
    }

    /// Lists the bank logins with their banks, which no answer of Dapi's names.
    pub(super) async fn logins(&self) -> Result<Answer, Failed> {
        let request = self.http.get(format!("{}/sandbox/logins?limit=1000", self.base));
        send("the sandbox", request).await
    }

    /// Links a login whose code lives for `seconds` and is never exchanged: the sandbox answers 503 to each
    /// attempt. Other logins are unaffected.
    pub(super) async fn unlucky_login(&self, seconds: u32) -> Result<Answer, Failed> {
        let login = json!({ "clientUserID": USER, "bank": "quince", "codeLifetime": seconds });
        let result = self.post("/sandbox/connect", &login).await?;
        let linked: Linked = serde_json::from_slice(&result.body)
            .map_err(|error| Failed::Unreachable { who: "the sandbox", what: error.to_string() })?;
        let fault = json!({
            "path": "auth/ExchangeToken",
            "connectionID": linked.connection_id,
            "when": "before",
            "effect": { "status": { "code": 503, "body": "out of order, for the demo\n" } },
            // More than the attempts of one code's window, yet finite.
            "times": 100,
        });
        self.post("/sandbox/faults", &fault).await?;
        Ok(result)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failed> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let answer = send("the sandbox", request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(Failed::Unreachable { who: "the sandbox", what: format!("it says {}", answer.status) })
    }
}
