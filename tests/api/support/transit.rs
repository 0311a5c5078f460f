//! A Transit engine: the real one that `scripts/test-kms` starts, or a small stand-in that speaks its wire.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Builder;
use super::line::{Line, Wire};

/// An engine with one key of its own.
pub struct Transit {
    engine: Engine,
    key: String,
    wire: Wire,
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
        let wire = Wire::to(backend).await;
        let transit = Self { engine, key: random_name("key-"), wire };
        transit.administer(&format!("transit/keys/{}", transit.key), json!({})).await;
        transit
    }

    /// The variables of a service that uses the engine with a new token.
    pub async fn on(&self, builder: Builder) -> Builder {
        builder
            .set("STRONGROOM_TRANSIT_ADDR", self.url())
            .set("STRONGROOM_TRANSIT_TOKEN", self.token().await)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.wire.address)
    }

    /// An entry of `STRONGROOM_MASTER_KEYS`.
    pub fn entry(&self, id: &str) -> String {
        format!("{id}:transit:transit/{}", self.key)
    }

    pub fn cut(&self, line: Line) {
        self.wire.cut(line);
    }

    /// What was sent to the engine; see [`Wire::sent`].
    pub fn sent(&self) -> Vec<u8> {
        self.wire.sent()
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
                for method in ["approle", "kubernetes"] {
                    let path = format!("sys/leases/revoke-prefix/auth/{method}/login");
                    self.administer(&path, json!({})).await;
                }
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

/// The account of `tests/kms/token_review.py`.
const SERVICE_ACCOUNT: &str = "strongroom";

/// What Kubernetes puts into a pod of this service account: a JWT, whose signature the engine leaves to the cluster.
pub fn service_account_token(account: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let of_account = json!({ "name": account, "uid": format!("uid-of-{account}") });
    let claims = json!({
        "iss": "https://kubernetes.default.svc",
        "sub": format!("system:serviceaccount:payments:{account}"),
        "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 4_102_444_800_u64,
        "kubernetes.io": { "namespace": "payments", "serviceaccount": of_account },
    });
    let signature = URL_SAFE_NO_PAD.encode(format!("signed for {account}"));
    format!("{}.{}.{signature}", part(json!({ "alg": "RS256", "typ": "JWT" })), part(claims))
}

impl Transit {
    /// A role for the service account `strongroom` of the namespace `payments`, which may use the key.
    pub async fn kubernetes_role(&self) -> String {
        let body = json!({
            "bound_service_account_names": [SERVICE_ACCOUNT],
            "bound_service_account_namespaces": ["payments"],
            "token_policies": [self.policy().await],
            "token_ttl": "1h",
        });
        self.administer(&format!("auth/kubernetes/role/{}", self.key), body).await;
        self.key.clone()
    }
}

impl StandIn {
    fn new_token(&self) -> String {
        let token = random_name("s.");
        self.tokens.lock().unwrap().insert(token.clone());
        token
    }
}

fn serve(stand_in: Arc<StandIn>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let data = web::Data::from(stand_in);
    let app = move || {
        App::new()
            .app_data(data.clone())
            .route("/v1/auth/{method}/login", web::post().to(log_in))
            .route("/v1/transit/{operation}/{key}", web::post().to(use_key))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
    tokio::spawn(server);
    address
}

async fn log_in(
    stand_in: web::Data<StandIn>,
    method: web::Path<String>,
    body: web::Json<Value>,
) -> HttpResponse {
    let is_right = if *method == "kubernetes" {
        body["role"].is_string() && body["jwt"] == service_account_token(SERVICE_ACCOUNT)
    } else {
        *body == json!({ "role_id": "role", "secret_id": "secret" })
    };
    if !is_right {
        return HttpResponse::Forbidden().json(json!({ "errors": ["permission denied"] }));
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
