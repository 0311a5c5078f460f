//! An OpenID provider with real keys, which does what a provider does, or an attacker's will.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::digest;
use base64::Engine as _;
use serde_json::{Value, json};

use super::{Keypair, base64};

pub const CLIENT: &str = "strongroom console";
pub const SECRET: &str = "a secret: with / and ü";

struct State {
    url: String,
    key: Keypair,
    /// What the discovery document says of itself.
    issuer: String,
    /// Members of the ID token that are not as they should be; `null` leaves one out.
    wrong: Value,
    /// What is returned in place of a signed ID token.
    instead: Option<String>,
    codes: HashMap<String, HashMap<String, String>>,
}

#[derive(Clone)]
pub struct OpenId {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl OpenId {
    pub fn spawn(algorithm: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            key: Keypair::of(algorithm),
            issuer: url.clone(),
            url: url.clone(),
            wrong: json!({}),
            instead: None,
            codes: HashMap::new(),
        }));
        let data = web::Data::from(Arc::clone(&state));
        let app = move || App::new().app_data(data.clone()).default_service(web::to(answer));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { url, state }
    }

    /// Makes members of the ID token wrong.
    pub fn say(&self, wrong: Value) {
        self.state.lock().unwrap().wrong = wrong;
    }

    pub fn call_itself(&self, issuer: &str) {
        issuer.clone_into(&mut self.state.lock().unwrap().issuer);
    }

    /// Returns this text in place of an ID token; `{claims}` in it becomes the claims in base64url.
    pub fn answer_instead(&self, token: Option<&str>) {
        self.state.lock().unwrap().instead = token.map(str::to_owned);
    }

    /// Signs with a key that it does not publish.
    pub fn sign_with_another_key(&self, algorithm: &'static str) {
        let mut state = self.state.lock().unwrap();
        let published = state.key.jwk.clone();
        state.key = Keypair::of(algorithm);
        state.key.jwk = published;
    }

    /// The person signs in: returns the callback of the request that a browser brought here.
    pub fn authorize(&self, location: &str) -> HashMap<String, String> {
        let url = url::Url::parse(location).unwrap();
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert!(location.starts_with(&format!("{}/authorize?", self.url)), "{location}");
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT);
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
        let code = uuid::Uuid::now_v7().to_string();
        let callback = HashMap::from([
            ("code".to_owned(), code.clone()),
            ("state".to_owned(), asked["state"].clone()),
            ("iss".to_owned(), self.url.clone()),
        ]);
        self.state.lock().unwrap().codes.insert(code, asked);
        callback
    }
}

impl State {
    fn token(&mut self, form: &HashMap<String, String>) -> Option<Value> {
        let asked = self.codes.remove(form.get("code")?)?;
        let hash = digest::digest(&digest::SHA256, form.get("code_verifier")?.as_bytes());
        let proven = base64(hash.as_ref()) == asked["code_challenge"];
        let same = form.get("redirect_uri") == asked.get("redirect_uri");
        if !proven || !same || form.get("grant_type")? != "authorization_code" {
            return None;
        }
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({
            "iss": self.url, "sub": "248289761001", "aud": CLIENT, "nonce": asked["nonce"],
            "iat": now, "exp": now + 300, "auth_time": now, "preferred_username": "Ana",
            "groups": ["staff", "support"],
        });
        for (name, value) in self.wrong.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let token = match &self.instead {
            Some(text) => text.replace("{claims}", &base64(claims.to_string())),
            None => self.key.sign(&json!({ "typ": "JWT" }), &claims),
        };
        Some(json!({ "access_token": "x", "token_type": "Bearer", "id_token": token }))
    }
}

async fn answer(req: HttpRequest, body: String, state: web::Data<Mutex<State>>) -> HttpResponse {
    let mut state = state.lock().unwrap();
    let url = state.url.clone();
    match req.path() {
        "/.well-known/openid-configuration" => HttpResponse::Ok().json(json!({
            "issuer": state.issuer, "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
        })),
        "/jwks" => HttpResponse::Ok().json(json!({ "keys": [state.key.jwk] })),
        "/token" => {
            let encode = |text: &str| -> String {
                url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
            };
            let pair = format!("{}:{}", encode(CLIENT), encode(SECRET));
            let basic = base64::engine::general_purpose::STANDARD.encode(pair);
            let given = req.headers().get("authorization").map(|it| it.to_str().unwrap());
            if given != Some(&format!("Basic {basic}")) {
                return HttpResponse::Unauthorized().json(json!({ "error": "invalid_client" }));
            }
            let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            match state.token(&form) {
                Some(tokens) => HttpResponse::Ok().json(tokens),
                None => HttpResponse::BadRequest().json(json!({ "error": "invalid_grant" })),
            }
        }
        _ => HttpResponse::NotFound().finish(),
    }
}
