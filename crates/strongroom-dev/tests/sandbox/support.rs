//! A sandbox on its own port, and a caller with the same secrets as a real one.

use std::net::{SocketAddr, TcpListener};

use actix_web::dev::ServerHandle;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{
    App, ConnectOptions, ConnectResult, DEFAULT_APP_KEY, DEFAULT_APP_SECRET, Fault, Rules, Sandbox,
    Settings, server,
};

pub(crate) struct TestSandbox {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) handle: ServerHandle,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Reply {
    /// Returns the refusal's status and `type`; checks that it has Dapi's form.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, &str) {
        assert_eq!(self.body["success"], false, "{self:?}");
        assert_eq!(self.body["status"], "failed", "{self:?}");
        assert!(self.body["msg"].is_string(), "{self:?}");
        (self.status, self.body["type"].as_str().unwrap())
    }

    /// Returns the body of a call that is done; checks that it has Dapi's form.
    #[track_caller]
    pub(crate) fn done(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["success"], true, "{self:?}");
        assert_eq!(self.body["status"], "done", "{self:?}");
        assert!(self.body["operationID"].is_string(), "{self:?}");
        self.body
    }
}

impl TestSandbox {
    pub(crate) fn start() -> Self {
        Self::start_with(Settings::default())
    }

    pub(crate) fn with_rules(rules: Rules) -> Self {
        Self::start_with(Settings { rules, ..Settings::default() })
    }

    pub(crate) fn with_apps(keys: [&str; 2]) -> Self {
        let apps = keys.map(|key| App {
            key: key.to_owned(),
            secret: strongroom_common::secret::SecretText::new(format!("secret of {key}")),
        });
        Self::start_with(Settings { apps: apps.into(), ..Settings::default() })
    }

    pub(crate) fn start_with(settings: Settings) -> Self {
        let sandbox = Sandbox::new(Settings { workers: 1, ..settings });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = server(&sandbox, listener).unwrap();
        let handle = server.handle();
        tokio::spawn(server);
        #[expect(clippy::disallowed_methods, reason = "the tests are the caller here")]
        let http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { sandbox, address, http, handle }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn connect(&self) -> ConnectResult {
        self.sandbox.connect(&ConnectOptions::default()).unwrap()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.sandbox.set_fault(fault).unwrap();
    }

    /// Sends a request to the control API or to Dapi's, as it is.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        let request = self.http.request(method, self.url(path)).json(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Reply { status, body }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &json!({})).await
    }

    pub(crate) fn exchange_body(linked: &ConnectResult) -> Value {
        json!({
            "appSecret": DEFAULT_APP_SECRET,
            "accessCode": linked.access_code,
            "connectionID": linked.connection_id,
        })
    }

    pub(crate) async fn exchange(&self, linked: &ConnectResult) -> Reply {
        self.post("/v2/auth/ExchangeToken", &Self::exchange_body(linked)).await
    }

    /// Sends a user through Connect and exchanges the code.
    pub(crate) async fn user(&self) -> User<'_> {
        self.user_of(self.connect()).await
    }

    pub(crate) async fn user_of(&self, linked: ConnectResult) -> User<'_> {
        let body = self.exchange(&linked).await.done();
        User { sandbox: self, token: body["accessToken"].as_str().unwrap().to_owned(), linked }
    }
}

/// A holder of a token and its user secret.
pub(crate) struct User<'a> {
    sandbox: &'a TestSandbox,
    pub(crate) token: String,
    pub(crate) linked: ConnectResult,
}

impl User<'_> {
    /// Calls Dapi's API with the token and both secrets inserted.
    pub(crate) async fn call(&self, path: &str, mut body: Value) -> Reply {
        let fields = body.as_object_mut().unwrap();
        fields.entry("appSecret").or_insert_with(|| json!(DEFAULT_APP_SECRET));
        fields.entry("userSecret").or_insert_with(|| json!(self.linked.user_secret));
        self.send(path, &self.token, &body).await
    }

    pub(crate) async fn send(&self, path: &str, token: &str, body: &Value) -> Reply {
        let url = self.sandbox.url(&format!("/v2/{path}"));
        let request = self.sandbox.http.post(url).bearer_auth(token).json(body);
        let response = request.send().await.unwrap();
        Reply { status: response.status().as_u16(), body: response.json().await.unwrap() }
    }

    pub(crate) async fn account(&self, place: usize) -> Value {
        let body = self.call("data/accounts/get", json!({})).await.done();
        body["accounts"][place].clone()
    }

    /// Calls, answers the question for the one-time password, and returns the second answer.
    pub(crate) async fn call_with_otp(&self, path: &str, body: Value, otp: &str) -> Reply {
        let asked = self.call(path, body.clone()).await;
        assert_eq!(asked.body["status"], "user_input_required", "{asked:?}");
        let mut answered = body;
        answered["operationID"] = asked.body["operationID"].clone();
        answered["userInputs"] = json!([{"id": "otp", "index": 0, "answer": otp}]);
        self.call(path, answered).await
    }
}

/// The app key of a sandbox with default settings.
pub(crate) const APP_KEY: &str = DEFAULT_APP_KEY;
