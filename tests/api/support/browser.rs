//! A browser at the console: keeps the cookie, sends `Origin` with forms, follows no redirection by itself.

use std::sync::Mutex;

use reqwest::Method;
use serde_json::Value;
use strongroom::approvals::Permitted;
use strongroom::common::actor::Actor;
use strongroom::config::FourEyes;
use strongroom::operators::{self, OperatorName, Role};

use super::{Answer, TestApp};

pub struct Browser {
    pub origin: String,
    http: reqwest::Client,
    cookie: Mutex<Option<String>>,
}

impl Browser {
    /// One without a cookie.
    pub fn new(app: &TestApp) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            origin: app.console_url.clone().expect("the console is off"),
            http: http.build().unwrap(),
            cookie: Mutex::default(),
        }
    }

    /// One in which a new operator of this name and role is signed in.
    pub async fn of(app: &TestApp, name: &str, role: Role) -> Self {
        let added = add(app, name, role).await;
        let browser = Self::new(app);
        browser.sign_in(app, added.name.as_str()).await;
        browser
    }

    /// Signs an operator in by a new link.
    pub async fn sign_in(&self, app: &TestApp, name: &str) {
        let code = link(app, name).await;
        let answer = self.post_bare("/sign-in/link", &[("code", &code)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
    }

    /// The path of the pages of the app, if there is one.
    pub async fn pages(&self) -> String {
        self.get("/").await.header("location").trim_end_matches("/now").to_owned()
    }

    /// The page at this path, which is there.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.text
    }

    /// The page to which a form led.
    pub async fn followed(&self, answer: &Answer) -> String {
        assert_eq!(answer.status, 303, "{}", answer.text);
        self.page(answer.header("location")).await
    }

    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    /// Whether the browser holds a session's cookie.
    pub fn is_signed_in(&self) -> bool {
        self.cookie().is_some_and(|cookie| cookie.contains("osess_"))
    }

    pub fn set_cookie(&self, cookie: Option<String>) {
        *self.cookie.lock().unwrap() = cookie;
    }

    /// A request with the cookie and nothing else.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.origin));
        match self.cookie() {
            Some(cookie) => request.header("cookie", format!("other=1; {cookie}")),
            None => request,
        }
    }

    /// Sends a request and keeps the cookie that the answer sets.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = Answer::read(request.send().await.unwrap()).await;
        for set in answer.headers.get_all("set-cookie") {
            self.keep(set.to_str().unwrap().split(';').next().unwrap());
        }
        answer
    }

    /// Keeps a cookie in place of the one of its name.
    fn keep(&self, pair: &str) {
        let (name, value) = pair.split_once('=').unwrap();
        let before = self.cookie().unwrap_or_default();
        let others = before.split("; ").filter(|it| !it.is_empty());
        let mut kept: Vec<_> = others.filter(|it| it.split('=').next() != Some(name)).collect();
        if !value.is_empty() {
            kept.push(pair);
        }
        self.set_cookie(Some(kept.join("; ")).filter(|it| !it.is_empty()));
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts a form without a session's token.
    pub async fn post_bare(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::POST, path).header("origin", &self.origin);
        self.send(request.header("content-type", FORM).body(encoded(fields))).await
    }

    /// Posts a form as a page of the session does.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token().await;
        let mut all = vec![("token", token.as_str())];
        all.extend(fields);
        self.post_bare(path, &all).await
    }

    /// Posts JSON as a script of the session does, or of the sign-in page if there is none.
    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header("origin", &self.origin).json(body);
        let token = if self.is_signed_in() { self.token().await } else { String::new() };
        self.send(request.header("x-console-token", token)).await
    }

    /// The token of this session's forms, from a page.
    pub async fn token(&self) -> String {
        let page = self.get("/sign-in").await.text;
        let field = page.split("name=\"token\" value=\"").nth(1).expect("no session");
        field.split('"').next().unwrap().to_owned()
    }
}

pub const FORM: &str = "application/x-www-form-urlencoded";

pub fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

pub async fn add(app: &TestApp, name: &str, role: Role) -> operators::Operator {
    let (mut conn, name) = (app.context.pool.acquire().await.unwrap(), name.parse().unwrap());
    let permitted = Permitted::without(FourEyes::OFF).unwrap();
    operators::add(&mut conn, &permitted, &Actor::operator(), &name, role, None).await.unwrap()
}

pub async fn link(app: &TestApp, name: &str) -> String {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let (vault, name): (_, OperatorName) = (&app.context.vault, name.parse().unwrap());
    let token = operators::create_link(&mut conn, vault, &Actor::operator(), &name).await.unwrap();
    token.expose().to_owned()
}

/// Asserts that a page has all of these texts.
pub fn assert_shows(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
}
