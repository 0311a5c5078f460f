//! A backend that receives deliveries over HTTP, as a stranger would write it.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;

/// A delivery as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
    pub path: String,
    pub at: Instant,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Status(u16),
    /// This status, with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Elsewhere.
    Redirect,
    /// Never.
    Hang,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    replies: VecDeque<Reply>,
    always: Option<Reply>,
}

/// The receiver. It answers 204 unless told otherwise.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub fn spawn() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let data = web::Data::from(Arc::clone(&state));
        let app = move || App::new().app_data(data.clone()).default_service(web::to(receive));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { url, state }
    }

    /// The next deliveries are answered so, one each.
    pub fn reply(&self, replies: &[Reply]) {
        self.state.lock().unwrap().replies.extend(replies);
    }

    /// Every delivery is answered so from now on.
    pub fn always(&self, reply: Reply) {
        self.state.lock().unwrap().always = Some(reply);
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    pub fn kinds(&self) -> Vec<String> {
        self.received().iter().map(Received::kind).collect()
    }

    /// Waits until this many deliveries have arrived.
    pub async fn arrived(&self, count: usize) -> Vec<Received> {
        for _ in 0..3000 {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} deliveries arrived, not {count}", self.received().len());
    }
}

async fn receive(
    req: HttpRequest,
    body: web::Bytes,
    state: web::Data<Mutex<State>>,
) -> HttpResponse {
    let header = |name| req.headers().get(name).unwrap().to_str().unwrap().to_owned();
    let reply = {
        let mut state = state.lock().unwrap();
        state.received.push(Received {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            body: String::from_utf8(body.to_vec()).unwrap(),
            path: req.path().to_owned(),
            at: Instant::now(),
        });
        state.replies.pop_front().or(state.always).unwrap_or(Reply::Status(204))
    };
    let status = |code| HttpResponse::build(actix_web::http::StatusCode::from_u16(code).unwrap());
    match reply {
        Reply::Status(code) => status(code).finish(),
        Reply::RetryAfter(code, seconds) => {
            status(code).insert_header(("retry-after", seconds.to_string())).finish()
        }
        Reply::Redirect => status(307).insert_header(("location", "/elsewhere")).finish(),
        Reply::Hang => std::future::pending().await,
    }
}
