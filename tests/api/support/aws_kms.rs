//! AWS KMS: moto, which `scripts/test-kms` starts, or a small stand-in that speaks its wire. The stand-in is also what AWS's
//! credentials come from.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Builder;
use super::line::{Line, Wire};

const REGION: &str = "eu-central-1";
/// Where a role's credentials may come from: each has an access key of its own at the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Environment,
    Profile,
    WebIdentity,
    Container,
    Instance,
}

/// An engine with one key of its own.
pub struct AwsKms {
    engine: Engine,
    arn: String,
    wire: Wire,
}

enum Engine {
    Moto(SocketAddr),
    StandIn(Arc<StandIn>),
}

#[derive(Default)]
struct StandIn {
    disabled: Mutex<bool>,
    /// The access keys that were used.
    used: Mutex<Vec<String>>,
}

impl Source {
    pub const fn access_key(self) -> &'static str {
        match self {
            Self::Environment => "AKIAENVIRONMENT",
            Self::Profile => "AKIAPROFILE",
            Self::WebIdentity => "ASIAWEBIDENTITY",
            Self::Container => "ASIACONTAINER",
            Self::Instance => "ASIAINSTANCE",
        }
    }

    /// What the container's and the instance's metadata say.
    fn credentials(self) -> Value {
        json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": self.access_key(), "SecretAccessKey": "CANARY-of-a-role",
            "Token": "CANARY-session", "Expiration": "2099-01-01T00:00:00Z",
        })
    }
}

impl AwsKms {
    /// The engine, with a new key.
    pub async fn start() -> Self {
        let Ok(address) = std::env::var("STRONGROOM_TEST_AWS_KMS") else {
            return Self::stand_in().await;
        };
        let backend = address.trim_start_matches("http://").parse().unwrap();
        let wire = Wire::to(backend).await;
        let mut kms = Self { engine: Engine::Moto(backend), arn: String::new(), wire };
        let made = kms.administer("CreateKey", json!({})).await;
        made["KeyMetadata"]["Arn"].as_str().unwrap().clone_into(&mut kms.arn);
        kms
    }

    /// The stand-in, with a new key.
    pub async fn stand_in() -> Self {
        let stand_in = Arc::new(StandIn::default());
        let wire = Wire::to(serve(Arc::clone(&stand_in))).await;
        let id = strongroom::common::ids::SessionId::new().uuid();
        let arn = format!("arn:aws:kms:{REGION}:111122223333:key/{id}");
        Self { engine: Engine::StandIn(stand_in), arn, wire }
    }

    /// The variables of a service that uses the engine with the environment's access key.
    pub fn on(&self, builder: Builder) -> Builder {
        builder
            .set("AWS_ENDPOINT_URL_KMS", self.url())
            .set("AWS_ACCESS_KEY_ID", Source::Environment.access_key())
            .set("AWS_SECRET_ACCESS_KEY", "CANARY-of-the-environment")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.wire.address)
    }

    /// An entry of `STRONGROOM_MASTER_KEYS`.
    pub fn entry(&self, id: &str) -> String {
        format!("{id}:awskms:{}", self.arn)
    }

    pub fn cut(&self, line: Line) {
        self.wire.cut(line);
    }

    /// What was sent to the engine; see [`Wire::sent`].
    pub fn sent(&self) -> Vec<u8> {
        self.wire.sent()
    }

    /// The access keys that signed calls to the stand-in.
    pub fn used(&self) -> Vec<String> {
        let Engine::StandIn(stand_in) = &self.engine else { unreachable!() };
        stand_in.used.lock().unwrap().clone()
    }

    pub async fn disable(&self, disabled: bool) {
        match &self.engine {
            Engine::Moto(_) => {
                let operation = if disabled { "DisableKey" } else { "EnableKey" };
                // moto knows it by its id alone here.
                let id = self.arn.rsplit('/').next();
                self.administer(operation, json!({ "KeyId": id })).await;
            }
            Engine::StandIn(stand_in) => *stand_in.disabled.lock().unwrap() = disabled,
        }
    }

    /// Asks moto as the account's owner.
    async fn administer(&self, operation: &str, body: Value) -> Value {
        let Engine::Moto(address) = self.engine else { unreachable!() };
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/kms/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request =
            reqwest::Client::builder().build().unwrap().post(format!("http://{address}/"));
        let request = request.header("Authorization", signed);
        let request = request.header("X-Amz-Target", format!("TrentService.{operation}"));
        let request = request.header("Content-Type", "application/x-amz-json-1.1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{operation}: {}", answer.status());
        answer.json().await.unwrap_or_default()
    }
}

fn serve(stand_in: Arc<StandIn>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let data = web::Data::from(stand_in);
    let metadata = "/latest/meta-data/iam/security-credentials";
    let app = move || {
        App::new()
            .app_data(data.clone())
            .route("/", web::post().to(answer))
            .route("/container", web::get().to(container))
            .route("/latest/api/token", web::put().to(|| async { instance_token() }))
            .route(&format!("{metadata}/"), web::get().to(|| async { "role" }))
            .route(&format!("{metadata}/role"), web::get().to(instance))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
    tokio::spawn(server);
    address
}

/// The instance metadata service, version 2: nothing is told without the token.
fn instance_token() -> HttpResponse {
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    HttpResponse::Ok().insert_header(ttl).body("CANARY-imds")
}

async fn instance(request: HttpRequest) -> HttpResponse {
    let token = request.headers().get("x-aws-ec2-metadata-token");
    if token.is_none_or(|token| token != "CANARY-imds") {
        return HttpResponse::Unauthorized().finish();
    }
    HttpResponse::Ok().json(Source::Instance.credentials())
}

async fn container(request: HttpRequest) -> HttpResponse {
    let token = request.headers().get("Authorization");
    if token.is_none_or(|token| token != "CANARY-container") {
        return HttpResponse::Unauthorized().finish();
    }
    HttpResponse::Ok().json(Source::Container.credentials())
}

async fn answer(stand_in: web::Data<StandIn>, request: HttpRequest, body: String) -> HttpResponse {
    if body.contains("Action=AssumeRoleWithWebIdentity") {
        return assume_role(&body);
    }
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (signed, target) = (header("Authorization"), header("X-Amz-Target"));
    let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next());
    let key = key.unwrap_or_default().to_owned();
    if !key.starts_with("AKIA") && !key.starts_with("ASIA") {
        return refusal("UnrecognizedClientException");
    }
    assert!(signed.contains(&format!("/{REGION}/kms/aws4_request")), "{signed}");
    stand_in.used.lock().unwrap().push(key);
    if *stand_in.disabled.lock().unwrap() {
        return refusal("DisabledException");
    }
    let input: Value = serde_json::from_str(&body).unwrap();
    match target.as_str() {
        "TrentService.Encrypt" => encrypt(&input),
        "TrentService.Decrypt" => decrypt(&input),
        _ => refusal("UnknownOperationException"),
    }
}

fn refusal(code: &str) -> HttpResponse {
    // As KMS has it: with the account in what it says.
    let said = format!("{code} of arn:aws:iam::111122223333:role/strongroom");
    HttpResponse::BadRequest().json(json!({ "__type": code, "message": said }))
}

fn encrypt(input: &Value) -> HttpResponse {
    assert!(input["EncryptionContext"].is_object(), "without a context: {input}");
    // Not secret, but bound to its key and its context.
    let ciphertext = STANDARD.encode(STANDARD.encode(input.to_string()));
    HttpResponse::Ok().json(json!({ "CiphertextBlob": ciphertext, "KeyId": input["KeyId"] }))
}

fn decrypt(input: &Value) -> HttpResponse {
    let decode = |bytes: &[u8]| STANDARD.decode(bytes).ok();
    let sealed = decode(input["CiphertextBlob"].as_str().unwrap().as_bytes()).unwrap();
    let sealed = decode(&sealed).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    match sealed {
        Some(sealed) if sealed["KeyId"] != input["KeyId"] => refusal("IncorrectKeyException"),
        Some(sealed) if sealed["EncryptionContext"] == input["EncryptionContext"] => {
            let plain = &sealed["Plaintext"];
            HttpResponse::Ok().json(json!({ "Plaintext": plain, "KeyId": input["KeyId"] }))
        }
        _ => refusal("InvalidCiphertextException"),
    }
}

fn assume_role(body: &str) -> HttpResponse {
    if !body.contains("WebIdentityToken=CANARY-web-identity") {
        return HttpResponse::BadRequest().finish();
    }
    let key = Source::WebIdentity.access_key();
    let xml = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
        <AssumeRoleWithWebIdentityResult>
        <AssumedRoleUser><Arn>arn:aws:sts::111122223333:assumed-role/strongroom/x</Arn>
        <AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>
        <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>CANARY-of-a-role</SecretAccessKey>
        <SessionToken>CANARY-session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    HttpResponse::Ok().content_type("text/xml").body(xml)
}
