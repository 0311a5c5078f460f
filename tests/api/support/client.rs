//! Calls the API as a client would, over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::for_user;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// `Null` where the body is no JSON.
    pub json: Value,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and `code` of a problem, whose form is checked on the way.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], self.status);
        for member in ["type", "title", "detail", "code", "requestID"] {
            assert!(self.json[member].is_string(), "{member} in {}", self.json);
        }
        assert_eq!(self.json["requestID"], self.header("x-request-id"));
        (self.status, self.json["code"].as_str().unwrap())
    }

    pub fn connection_status(&self) -> &str {
        self.json["status"].as_str().unwrap_or_else(|| panic!("no connection in {}", self.text))
    }
}

/// One replica's API.
#[derive(Clone, Debug)]
pub struct Api {
    pub address: SocketAddr,
    http: reqwest::Client,
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { address, http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request to be completed.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).bearer_auth(token).json(body)).await
    }

    pub async fn post_empty(&self, token: &str, path: &str) -> Answer {
        self.send(self.request(Method::POST, path).bearer_auth(token)).await
    }

    /// An access token by client credentials.
    pub async fn token(&self, id: &str, secret: &str, scope: Option<&str>) -> String {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.map(|scope| ("scope", scope)));
        let form = form.iter().map(|(k, v)| format!("{k}={}", v.replace(' ', "+")));
        let request = self
            .request(Method::POST, "/oauth2/token")
            .basic_auth(id, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.collect::<Vec<_>>().join("&"));
        let answer = self.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn hand_in(&self, token: &str, user: &str, result: &Value) -> Answer {
        self.post(token, "/v1/connections", &for_user(result, user)).await
    }

    pub async fn connection(&self, token: &str, id: &str) -> Value {
        let answer = self.get(token, &format!("/v1/connections/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    pub async fn reveal(&self, token: &str, id: &str) -> Answer {
        self.post(token, &format!("/v1/connections/{id}/token"), &json!({ "reason": "test" })).await
    }

    pub async fn delink(&self, token: &str, id: &str) -> Answer {
        self.post_empty(token, &format!("/v1/connections/{id}/delink")).await
    }

    pub async fn invalidate(&self, token: &str, id: &str, body: &Value) -> Answer {
        self.post(token, &format!("/v1/connections/{id}/invalidate"), body).await
    }

    /// A connect session's token for this user.
    pub async fn session(&self, token: &str, user: &str) -> String {
        let answer =
            self.post(token, "/v1/connect-sessions", &json!({ "clientUserID": user })).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json["token"].as_str().unwrap().to_owned()
    }
}
