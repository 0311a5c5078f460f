//! A Transit engine: the real one that `scripts/test-kms` starts, or a small stand-in that speaks its wire. Between it and
//! the service is a line that can be cut.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Builder;

/// What the line between the service and the engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Connections are closed, and new ones at once.
    Down,
    /// Connections are taken and never answered.
    Silent,
    /// What the engine answers comes this late.
    Slow(Duration),
}

/// An engine with one key of its own.
pub struct Transit {
    engine: Engine,
    key: String,
    address: SocketAddr,
    line: watch::Sender<Line>,
}

enum Engine {
    Real { address: String, root: String },
    StandIn(Arc<StandIn>),
}

#[derive(Default)]
struct StandIn {
    tokens: Mutex<HashSet<String>>,
}

fn random_name(prefix: &str) -> String {
    format!("{prefix}{}", strongroom::common::ids::SessionId::new().uuid().simple())
}

impl Transit {
    /// The engine, with a new key.
    pub async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "scripts/test-kms says where the engine is")]
        let real = std::env::var("STRONGROOM_TEST_TRANSIT").ok();
        let (engine, backend) = if let Some(address) = real {
            let backend = address.trim_start_matches("http://").parse().unwrap();
            (Engine::Real { address, root: "root".to_owned() }, backend)
        } else {
            let stand_in = Arc::new(StandIn::default());
            let backend = serve(Arc::clone(&stand_in));
            (Engine::StandIn(stand_in), backend)
        };
        let (line, watching) = watch::channel(Line::Up);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, backend, watching.clone()));
            }
        });
        let transit = Self { engine, key: random_name("key-"), address, line };
        transit.administer(&format!("transit/keys/{}", transit.key), json!({})).await;
        transit
    }

    /// The variables of a service that uses the engine with a new token.
    pub async fn on(&self, builder: Builder, master_keys: &str) -> Builder {
        builder
            .set("STRONGROOM_MASTER_KEYS", master_keys)
            .set("STRONGROOM_TRANSIT_ADDR", self.url())
            .set("STRONGROOM_TRANSIT_TOKEN", self.token().await)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An entry of `STRONGROOM_MASTER_KEYS`.
    pub fn entry(&self, id: &str) -> String {
        format!("{id}:transit:transit/{}", self.key)
    }

    pub fn cut(&self, line: Line) {
        self.line.send(line).unwrap();
    }

    /// Asks the real engine as its administrator.
    async fn administer(&self, path: &str, body: Value) -> Value {
        let Engine::Real { address, root } = &self.engine else { return Value::Null };
        let request = reqwest::Client::builder().build().unwrap();
        let request = request.post(format!("{address}/v1/{path}")).header("X-Vault-Token", root);
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap_or_default()
    }

    async fn policy(&self) -> String {
        let path = |operation| {
            format!("path \"transit/{operation}/{}\" {{ capabilities = [\"update\"] }}", self.key)
        };
        let policy = format!("{}\n{}", path("encrypt"), path("decrypt"));
        self.administer(&format!("sys/policies/acl/{}", self.key), json!({ "policy": policy }))
            .await;
        self.key.clone()
    }

    /// A token that may use the key and nothing else.
    pub async fn token(&self) -> String {
        match &self.engine {
            Engine::Real { .. } => {
                let policies = [self.policy().await];
                let body = json!({ "policies": policies, "no_default_policy": true });
                let made = self.administer("auth/token/create", body).await;
                made["auth"]["client_token"].as_str().unwrap().to_owned()
            }
            Engine::StandIn(stand_in) => stand_in.new_token(),
        }
    }

    pub async fn revoke(&self, token: &str) {
        match &self.engine {
            Engine::Real { .. } => {
                self.administer("auth/token/revoke", json!({ "token": token })).await;
            }
            Engine::StandIn(stand_in) => {
                stand_in.tokens.lock().unwrap().remove(token);
            }
        }
    }

    /// Ends every token that a login has brought.
    pub async fn revoke_logins(&self) {
        match &self.engine {
            Engine::Real { .. } => {
                self.administer("sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
            }
            Engine::StandIn(stand_in) => stand_in.tokens.lock().unwrap().clear(),
        }
    }

    /// An `AppRole` that may use the key: its role id and a secret id.
    pub async fn app_role(&self) -> (String, String) {
        if let Engine::StandIn(_) = self.engine {
            return ("role".to_owned(), "secret".to_owned());
        }
        let Engine::Real { address, root } = &self.engine else { unreachable!() };
        let role = format!("auth/approle/role/{}", self.key);
        let body = json!({ "token_policies": [self.policy().await], "token_ttl": "1h" });
        self.administer(&role, body).await;
        let read = reqwest::Client::builder().build().unwrap();
        let read = read.get(format!("{address}/v1/{role}/role-id")).header("X-Vault-Token", root);
        let found: Value = read.send().await.unwrap().json().await.unwrap();
        let made = self.administer(&format!("{role}/secret-id"), json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&found["data"]["role_id"]), text(&made["data"]["secret_id"]))
    }
}

impl StandIn {
    fn new_token(&self) -> String {
        let token = random_name("s.");
        self.tokens.lock().unwrap().insert(token.clone());
        token
    }
}

/// Passes bytes on for as long as the line is up.
async fn pass_on(mut client: TcpStream, backend: SocketAddr, mut line: watch::Receiver<Line>) {
    loop {
        let now = *line.borrow_and_update();
        match now {
            Line::Up | Line::Slow(_) => break,
            Line::Down => return,
            Line::Silent => {
                if line.changed().await.is_err() {
                    return;
                }
            }
        }
    }
    let Ok(mut engine) = TcpStream::connect(backend).await else { return };
    loop {
        let (mut from_client, mut from_engine) = (vec![0; 65_536], vec![0; 65_536]);
        tokio::select! {
            changed = line.changed() => {
                let now = *line.borrow_and_update();
                match now {
                    _ if changed.is_err() => return,
                    Line::Down => return,
                    Line::Silent => {
                        let _ = line.changed().await;
                        return;
                    }
                    Line::Up | Line::Slow(_) => {}
                }
            }
            read = tokio::io::AsyncReadExt::read(&mut client, &mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                if tokio::io::AsyncWriteExt::write_all(&mut engine, &from_client[..count]).await.is_err() {
                    return;
                }
            }
            read = tokio::io::AsyncReadExt::read(&mut engine, &mut from_engine) => {
                let Ok(count @ 1..) = read else { return };
                let now = *line.borrow();
                if let Line::Slow(by) = now {
                    tokio::time::sleep(by).await;
                }
                if tokio::io::AsyncWriteExt::write_all(&mut client, &from_engine[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn serve(stand_in: Arc<StandIn>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let data = web::Data::from(stand_in);
    let app = move || {
        App::new()
            .app_data(data.clone())
            .route("/v1/auth/approle/login", web::post().to(log_in))
            .route("/v1/transit/{operation}/{key}", web::post().to(use_key))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
    tokio::spawn(server);
    address
}

async fn log_in(stand_in: web::Data<StandIn>, body: web::Json<Value>) -> HttpResponse {
    if *body != json!({ "role_id": "role", "secret_id": "secret" }) {
        return HttpResponse::BadRequest().json(json!({ "errors": ["invalid role or secret ID"] }));
    }
    let auth = json!({ "client_token": stand_in.new_token(), "lease_duration": 3600 });
    HttpResponse::Ok().json(json!({ "auth": auth }))
}

async fn use_key(
    stand_in: web::Data<StandIn>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Json<Value>,
) -> HttpResponse {
    let token = request.headers().get("X-Vault-Token").and_then(|token| token.to_str().ok());
    if !token.is_some_and(|token| stand_in.tokens.lock().unwrap().contains(token)) {
        return HttpResponse::Forbidden().json(json!({ "errors": ["permission denied"] }));
    }
    let (operation, key) = path.into_inner();
    // Not secret, but of its key alone.
    let mask = |bytes: Vec<u8>| -> Vec<u8> {
        bytes.iter().zip(key.bytes().cycle()).map(|(byte, key)| byte ^ key).collect()
    };
    let each = |input: &Value| {
        if operation == "encrypt" {
            let plain = STANDARD.decode(input["plaintext"].as_str().unwrap()).unwrap();
            return json!({ "ciphertext": format!("vault:v1:{}", STANDARD.encode(mask(plain))) });
        }
        let text = input["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:");
        match text.and_then(|text| STANDARD.decode(text).ok()) {
            Some(bytes) => json!({ "plaintext": STANDARD.encode(mask(bytes)) }),
            None => json!({ "plaintext": "", "error": "invalid ciphertext: no prefix" }),
        }
    };
    let results: Vec<_> = body["batch_input"].as_array().unwrap().iter().map(each).collect();
    let failed = results.iter().any(|result| result["error"].is_string());
    let answer = json!({ "data": { "batch_results": results } });
    if failed { HttpResponse::BadRequest().json(answer) } else { HttpResponse::Ok().json(answer) }
}
