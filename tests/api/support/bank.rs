//! The bank links as tests see them: what differs from one to the other, so that a promise that holds for both is
//! written once.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::providers::Provider;
use strongroom_dev::sandbox::{self, ConnectOptions, Effect, Fault, LinkOptions, Refuse};

use uuid::Uuid;

use super::{Answer, Api, Builder, Stage, TestApp, id};

/// A bank link, in the place of which the sandbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    Dapi,
    Plaid,
}

/// Makes two tests of each of these functions, `dapi::NAME` and `plaid::NAME`. An attribute before a name takes the
/// place of `#[tokio::test]`. A function that is not listed is dead code, and the compiler says so.
#[macro_export]
macro_rules! for_each_bank {
    ($($(#[$test:meta])? $name:ident),+ $(,)?) => {
        mod dapi {
            $($crate::bank_test!($(#[$test])? $name Dapi);)+
        }
        mod plaid {
            $($crate::bank_test!($(#[$test])? $name Plaid);)+
        }
    };
}

/// One test of [`for_each_bank`].
#[macro_export]
macro_rules! bank_test {
    ($name:ident $bank:ident) => {
        $crate::bank_test!(#[tokio::test] $name $bank);
    };
    (#[$test:meta] $name:ident $bank:ident) => {
        #[$test]
        async fn $name() {
            super::$name($crate::support::Bank::$bank).await;
        }
    };
}

impl Bank {
    pub const fn provider(self) -> Provider {
        match self {
            Self::Dapi => Provider::Dapi,
            Self::Plaid => Provider::Plaid,
        }
    }

    /// The name of the app that the environment describes.
    pub const fn app(self) -> &'static str {
        match self {
            Self::Dapi => "default",
            Self::Plaid => "plaid",
        }
    }

    /// The sandbox's name of the exchange.
    pub const fn exchange(self) -> &'static str {
        match self {
            Self::Dapi => "auth/ExchangeToken",
            Self::Plaid => "plaid/item/public_token/exchange",
        }
    }

    /// The sandbox's name of the revocation.
    pub const fn revoke(self) -> &'static str {
        match self {
            Self::Dapi => "users/DelinkUser",
            Self::Plaid => "plaid/item/remove",
        }
    }

    /// The sandbox's name of a call with a token, one that Strongroom does not make by itself.
    pub const fn read(self) -> &'static str {
        match self {
            Self::Dapi => "data/accounts/get",
            Self::Plaid => "plaid/auth/get",
        }
    }

    /// The same call of this connection, relayed.
    pub fn relayed(self, connection: &Value) -> String {
        let id = id(connection);
        match self {
            Self::Dapi => format!("/v1/connections/{id}/dapi/data/accounts/get"),
            Self::Plaid => format!("/v1/connections/{id}/plaid/auth/get"),
        }
    }

    /// The member of an answer that names why it is a refusal.
    pub const fn error(self) -> &'static str {
        match self {
            Self::Dapi => "type",
            Self::Plaid => "error_code",
        }
    }

    /// The refusals of a token that is gone, to a revocation and to a call alike.
    pub const fn gone(self) -> [&'static str; 2] {
        match self {
            Self::Dapi => ["USER_DELINKED", "INVALID_CONNECTION"],
            Self::Plaid => ["ITEM_NOT_FOUND", "INVALID_ACCESS_TOKEN"],
        }
    }

    /// The refusal of a call whose user has to link the login again.
    pub const fn needs_attention(self) -> &'static str {
        match self {
            Self::Dapi => "INVALID_CREDENTIALS",
            Self::Plaid => "ITEM_LOGIN_REQUIRED",
        }
    }

    /// The refusal of a code.
    pub const fn bad_code(self) -> &'static str {
        match self {
            Self::Dapi => "CODE_UNKNOWN",
            Self::Plaid => "INVALID_PUBLIC_TOKEN",
        }
    }

    /// A refusal of this kind, everywhere.
    #[expect(
        clippy::unused_self,
        reason = "reads like the others, and both providers refuse alike here"
    )]
    pub fn refusal(self, kind: &str) -> Fault {
        let refuse = Refuse { kind: kind.to_owned(), msg: "no".to_owned(), status: 400 };
        Fault::new(Effect::Refuse(refuse))
    }

    /// Every code is refused.
    pub fn code_refused(self) -> Fault {
        self.refusal(self.bad_code()).on(self.exchange())
    }

    /// A variable of the environment about this bank link.
    pub fn variable(self, name: &str) -> String {
        format!("{}_{name}", self.provider().as_str().to_ascii_uppercase())
    }

    pub fn builder(self) -> Builder {
        TestApp::builder_at(self)
    }

    /// A service with everything as usual, and one app at this bank link.
    pub async fn spawn(self) -> TestApp {
        self.builder().spawn().await
    }

    /// A service whose background work waits for [`TestApp::tick`].
    pub async fn by_hand(self) -> TestApp {
        self.builder().by_hand().spawn().await
    }

    /// The app that the environment describes, and where the sandbox plays the bank link.
    pub(super) const fn environment(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Dapi => [
                ("DAPI_APP_KEY", sandbox::DEFAULT_APP_KEY),
                ("DAPI_APP_SECRET", sandbox::DEFAULT_APP_SECRET),
            ],
            Self::Plaid => [
                ("PLAID_CLIENT_ID", sandbox::DEFAULT_PLAID_CLIENT_ID),
                ("PLAID_SECRET", sandbox::DEFAULT_PLAID_SECRET),
            ],
        }
    }

    /// The body that imports a token.
    pub fn import(self, user: &str, login: &str, token: &str) -> Value {
        match self {
            Self::Dapi => json!({
                "clientUserID": user, "connectionID": login, "accessToken": token, "userSecret": "s",
            }),
            Self::Plaid => json!({ "clientUserID": user, "itemID": login, "accessToken": token }),
        }
    }
}

impl Stage {
    /// A result as the link hands it to a frontend.
    pub fn connect(&self) -> Value {
        match self.bank {
            Bank::Dapi => self.connect_with(&ConnectOptions::default()),
            Bank::Plaid => self.link_with(&LinkOptions::default()),
        }
    }

    /// One of Dapi's, with these options.
    pub fn connect_with(&self, options: &ConnectOptions) -> Value {
        serde_json::from_str(&self.sandbox.connect(options).unwrap().to_json().to_string()).unwrap()
    }

    /// One of Plaid's, with these options.
    pub fn link_with(&self, options: &LinkOptions) -> Value {
        let linked = self.sandbox.plaid().link(options).unwrap();
        let known = (linked.item_id.clone(), linked.token_id);
        self.items.lock().unwrap().insert(linked.public_token.clone(), known);
        serde_json::from_str(&linked.to_json().to_string()).unwrap()
    }

    /// One of the login of this user name at the bank.
    pub fn connect_as(&self, username: &str) -> Value {
        let username = Some(username.to_owned());
        match self.bank {
            Bank::Dapi => {
                self.connect_with(&ConnectOptions { username, ..ConnectOptions::default() })
            }
            Bank::Plaid => self.link_with(&LinkOptions { username, ..LinkOptions::default() }),
        }
    }

    /// Whether the login of a result can be linked again: at Plaid not once its item was removed.
    pub fn may_connect_again(&self, result: &Value) -> bool {
        let item = self.sandbox.plaid().item(&self.login_of(result));
        self.bank == Bank::Dapi || item.is_some_and(|item| item.live)
    }

    /// Another result for the same bank login.
    pub fn connect_again(&self, result: &Value) -> Value {
        let login = self.login_of(result);
        match self.bank {
            Bank::Dapi => self.connect_with(&ConnectOptions {
                connection_id: Some(login),
                ..ConnectOptions::default()
            }),
            Bank::Plaid => {
                self.link_with(&LinkOptions { item_id: Some(login), ..LinkOptions::default() })
            }
        }
    }

    /// The bank login that a result is of. Plaid's results do not tell it, the sandbox does.
    pub fn login_of(&self, result: &Value) -> String {
        match self.bank {
            Bank::Dapi => result["connectionID"].as_str().unwrap().to_owned(),
            Bank::Plaid => {
                self.items.lock().unwrap()[result["public_token"].as_str().unwrap()].0.clone()
            }
        }
    }

    /// The sandbox's id of a result's code.
    pub fn code_of(&self, result: &Value) -> Uuid {
        match self.bank {
            Bank::Dapi => result["tokenID"].as_str().unwrap().parse().unwrap(),
            Bank::Plaid => self.items.lock().unwrap()[result["public_token"].as_str().unwrap()].1,
        }
    }

    /// How often codes were presented for exchange.
    pub fn exchanges(&self) -> u64 {
        self.sandbox.calls_to(self.bank.exchange())
    }

    /// How often the bank link was told of a revocation.
    pub fn revocations(&self) -> u64 {
        self.sandbox.calls_to(self.bank.revoke())
    }

    /// How many tokens work at the bank link.
    pub fn live_tokens(&self) -> usize {
        match self.bank {
            Bank::Dapi => self.sandbox.tokens(1000).iter().filter(|token| token.live).count(),
            Bank::Plaid => self.sandbox.plaid().live_tokens().len(),
        }
    }

    /// An exchange whose answer is held up for so long, or until the faults are cleared.
    pub fn exchange_is_slow(&self) -> Fault {
        Fault::new(Effect::Answer).on(self.bank.exchange()).delayed(Duration::from_secs(300))
    }

    /// The bank link hears of no revocation.
    pub fn revocation_fails(&self) -> Fault {
        Fault::status(503).on(self.bank.revoke())
    }

    /// A token that an app got by itself, as the body that imports it.
    pub async fn held_by_an_app(&self, user: &str) -> Value {
        let result = self.connect();
        match self.bank {
            Bank::Dapi => {
                let exchange = json!({
                    "appSecret": sandbox::DEFAULT_APP_SECRET,
                    "accessCode": result["accessCode"],
                    "connectionID": result["connectionID"],
                });
                let token = self.ask_sandbox("/v2/auth/ExchangeToken", &exchange).await;
                json!({
                    "clientUserID": user,
                    "connectionID": result["connectionID"],
                    "accessToken": token["accessToken"],
                    "userSecret": result["userSecret"],
                    "userID": result["userID"],
                    "tokenID": token["tokenID"],
                })
            }
            Bank::Plaid => {
                let exchange = json!({
                    "client_id": sandbox::DEFAULT_PLAID_CLIENT_ID,
                    "secret": sandbox::DEFAULT_PLAID_SECRET,
                    "public_token": result["public_token"],
                });
                let token = self.ask_sandbox("/plaid/item/public_token/exchange", &exchange).await;
                json!({
                    "clientUserID": user,
                    "itemID": token["item_id"],
                    "accessToken": token["access_token"],
                })
            }
        }
    }

    /// What the sandbox answers to a call that does not come from Strongroom.
    pub async fn ask_sandbox(&self, path: &str, body: &Value) -> Value {
        let call = reqwest::Client::new().post(format!("{}{path}", self.sandbox_url)).json(body);
        let text = call.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Api {
    /// A relayed call of this connection.
    pub async fn read(&self, token: &str, bank: Bank, connection: &Value) -> Answer {
        self.send(
            self.request(Method::POST, &bank.relayed(connection))
                .bearer_auth(token)
                .json(&json!({})),
        )
        .await
    }
}
