//! An app at Plaid instead of Dapi.

use reqwest::Method;
use serde_json::Value;
use strongroom_dev::sandbox::{self, LinkOptions, Webhook};

use super::{Answer, Builder, Stage, TestApp};

impl Builder {
    /// With one app at Plaid, `plaid`, and none at Dapi.
    pub fn at_plaid(self) -> Self {
        self.set("DAPI_APP_KEY", "")
            .set("DAPI_APP_SECRET", "")
            .set("PLAID_CLIENT_ID", sandbox::DEFAULT_PLAID_CLIENT_ID)
            .set("PLAID_SECRET", sandbox::DEFAULT_PLAID_SECRET)
    }
}

impl Stage {
    /// A result as Link hands it to a frontend, and its item.
    pub fn linked(&self) -> (Value, String) {
        let linked = self.sandbox.plaid().link(&LinkOptions::default()).unwrap();
        let result = serde_json::from_str(&linked.to_json().to_string()).unwrap();
        (result, linked.item_id)
    }
}

impl TestApp {
    /// An active connection of this user, whose accounts are confirmed.
    pub async fn active_item(&self, user: &str) -> (Value, String) {
        let (result, item) = self.linked();
        let connection = self.active_from(user, &result).await;
        for _ in 0..2000 {
            let due = "SELECT count(*) FROM connections WHERE details_due_at IS NOT NULL";
            if self.database.value(due).await == "0" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        (connection, item)
    }

    /// Delivers a webhook to an app as Plaid does.
    pub async fn deliver(&self, app: &str, webhook: &Webhook) -> Answer {
        let request = self.api.request(Method::POST, &format!("/hooks/plaid/{app}"));
        let request = request.header("content-type", "application/json");
        let request = match &webhook.verification {
            Some(jwt) => request.header("Plaid-Verification", jwt),
            None => request,
        };
        self.api.send(request.body(webhook.body.clone())).await
    }
}
