//! Plaid's side of a sandbox, and a caller with its credentials.

use serde_json::{Value, json};
use strongroom_dev::sandbox::{
    DEFAULT_PLAID_CLIENT_ID, DEFAULT_PLAID_SECRET, LinkOptions, LinkResult, Plaid,
};

use crate::support::{Reply, TestSandbox};

impl Reply {
    /// Returns the refusal's status, `error_type` and `error_code`; checks that it has Plaid's form.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, &str, &str) {
        assert!(self.body["error_message"].is_string(), "{self:?}");
        assert!(self.body["request_id"].is_string(), "{self:?}");
        assert!(self.body.get("display_message").is_some(), "{self:?}");
        let text = |name: &str| self.body[name].as_str().unwrap();
        (self.status, text("error_type"), text("error_code"))
    }

    /// Returns the body of a call to Plaid that succeeded.
    #[track_caller]
    pub(crate) fn fine(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(self.body["request_id"].is_string(), "{self:?}");
        self.body
    }
}

impl TestSandbox {
    pub(crate) fn plaid(&self) -> Plaid {
        self.sandbox.plaid()
    }

    pub(crate) fn link(&self) -> LinkResult {
        self.plaid().link(&LinkOptions::default()).unwrap()
    }

    /// Calls Plaid's API with the credentials in the headers.
    pub(crate) async fn call_plaid(&self, path: &str, body: &Value) -> Reply {
        let request = self.http.post(self.url(&format!("/plaid/{path}")));
        let request = request
            .header("PLAID-CLIENT-ID", DEFAULT_PLAID_CLIENT_ID)
            .header("PLAID-SECRET", DEFAULT_PLAID_SECRET)
            .header("Plaid-Version", "2020-09-14");
        let response = request.json(body).send().await.unwrap();
        Reply { status: response.status().as_u16(), body: response.json().await.unwrap() }
    }

    pub(crate) async fn exchange_public(&self, linked: &LinkResult) -> Reply {
        let body = json!({ "public_token": linked.public_token });
        self.call_plaid("item/public_token/exchange", &body).await
    }

    /// Sends a user through Link and exchanges the public token.
    pub(crate) async fn access_token(&self) -> String {
        self.access_token_of(&self.link()).await
    }

    pub(crate) async fn access_token_of(&self, linked: &LinkResult) -> String {
        let body = self.exchange_public(linked).await.fine();
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// Calls Plaid's API with an access token and nothing else.
    pub(crate) async fn with_access(&self, path: &str, access_token: &str) -> Reply {
        self.call_plaid(path, &json!({ "access_token": access_token })).await
    }
}
