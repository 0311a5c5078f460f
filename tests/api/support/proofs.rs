//! What a client with a key sends: assertions and DPoP proofs.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Api, Keypair, TestApp, base64, with};

pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub const PUBLIC_URL: &str = "http://strongroom.test";

impl TestApp {
    /// Creates a client of the environment's app over the API, with these members beside a name and a scope. Returns its
    /// id.
    pub async fn keyed_client(&self, members: Value) -> String {
        let answer = self.create_client(members).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json["clientID"].as_str().unwrap().to_owned()
    }

    pub async fn create_client(&self, members: Value) -> Answer {
        let body = with(&json!({ "name": "keyed", "scopes": ["connections:read"] }), members);
        self.api.post(&self.token().await, "/v1/admin/clients", &body).await
    }

    pub async fn change_client(&self, id: &str, change: &Value) -> Answer {
        let path = format!("/v1/admin/clients/{id}");
        let request = self.api.request(Method::PATCH, &path).bearer_auth(self.token().await);
        self.api.send(request.json(change)).await
    }

    /// The claims of a client's own assertion, with these changed; `null` leaves one out.
    pub fn claims(&self, id: &str, changes: Value) -> Value {
        let now = self.clock.unix_seconds();
        let claims = json!({ "iss": id, "sub": id, "aud": PUBLIC_URL, "iat": now,
            "exp": now + 60, "jti": Uuid::new_v4() });
        with(&claims, changes)
    }

    /// A DPoP proof for a request, with these claims changed; `null` leaves one out.
    pub fn proof(&self, key: &Keypair, method: &str, path: &str, changes: Value) -> String {
        let claims = json!({ "jti": Uuid::new_v4(), "htm": method, "htu": format!("{PUBLIC_URL}{path}"),
            "iat": self.clock.unix_seconds() });
        let claims = with(&claims, changes);
        key.sign(&json!({ "typ": "dpop+jwt", "jwk": key.jwk }), &claims)
    }
}

/// The hash of an access token in a proof.
pub fn ath(token: &str) -> Value {
    json!(base64(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes())))
}

/// A form with an assertion, and further parameters.
pub fn with_assertion(assertion: &str, more: &str) -> String {
    format!("client_assertion_type={JWT_BEARER}&client_assertion={assertion}{more}")
}

impl Api {
    pub async fn form(&self, path: &str, form: String) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        self.send(request).await
    }

    /// What the token endpoint answers to an assertion.
    pub async fn assert(&self, assertion: &str) -> Answer {
        self.form("/oauth2/token", with_assertion(assertion, "&grant_type=client_credentials"))
            .await
    }

    /// The same with a `client_id`.
    pub async fn assert_as(&self, id: &str, assertion: &str) -> Answer {
        let more = format!("&grant_type=client_credentials&client_id={id}");
        self.form("/oauth2/token", with_assertion(assertion, &more)).await
    }
}

/// Status and `error` of an OAuth endpoint's refusal.
pub fn refusal(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.json["error"].as_str().unwrap_or_else(|| panic!("{}", answer.text)))
}
