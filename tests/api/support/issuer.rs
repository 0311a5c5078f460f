//! A server that publishes keys, as an issuer of workloads' tokens or a client's own backend does.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Status(u16),
    /// Never.
    Hang,
    /// With more than anybody reads.
    Huge,
}

struct State {
    keys: Vec<Value>,
    issuer: String,
    jwks_uri: String,
    mood: Mood,
    asked: Vec<String>,
}

#[derive(Clone)]
pub struct Issuer {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Issuer {
    pub fn spawn(keys: &[Value]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            keys: keys.to_vec(),
            issuer: url.clone(),
            jwks_uri: format!("{url}/jwks"),
            mood: Mood::Well,
            asked: Vec::new(),
        }));
        let data = web::Data::from(Arc::clone(&state));
        let app = move || App::new().app_data(data.clone()).default_service(web::to(answer));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { url, state }
    }

    /// Where the keys are.
    pub fn jwks(&self) -> String {
        format!("{}/jwks", self.url)
    }

    pub fn publish(&self, keys: &[Value]) {
        self.state.lock().unwrap().keys = keys.to_vec();
    }

    pub fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Calls itself another in its discovery document.
    pub fn call_itself(&self, issuer: &str) {
        issuer.clone_into(&mut self.state.lock().unwrap().issuer);
    }

    /// How often this path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }
}

async fn answer(req: HttpRequest, state: web::Data<Mutex<State>>) -> HttpResponse {
    let (mood, body) = {
        let mut state = state.lock().unwrap();
        state.asked.push(req.path().to_owned());
        let body = match req.path() {
            "/jwks" => json!({ "keys": state.keys }),
            "/.well-known/openid-configuration" => {
                json!({ "issuer": state.issuer, "jwks_uri": state.jwks_uri })
            }
            _ => return HttpResponse::NotFound().finish(),
        };
        (state.mood, body)
    };
    match mood {
        Mood::Well => HttpResponse::Ok().json(body),
        Mood::Status(code) => {
            let status = actix_web::http::StatusCode::from_u16(code).unwrap();
            HttpResponse::build(status).json(body)
        }
        Mood::Hang => std::future::pending().await,
        Mood::Huge => {
            let mut huge = body;
            huge["padding"] = json!("x".repeat(1 << 20));
            HttpResponse::Ok().json(huge)
        }
    }
}
