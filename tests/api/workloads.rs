//! Workload identity: the tokens of a Kubernetes service account or a CI job, by a pinned issuer, audience and subject.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Keypair, Mood, TestApp, refusal};

const AUDIENCE: &str = "http://strongroom.test";
const SUBJECT: &str = "system:serviceaccount:shop:payroll";
const MINUTE: Duration = Duration::from_secs(61);

struct Cluster {
    app: TestApp,
    key: Keypair,
    issuer: Issuer,
    id: String,
}

impl Cluster {
    async fn new() -> Self {
        let app =
            TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true").spawn().await;
        let key = Keypair::of("RS256");
        let issuer = Issuer::spawn(&[key.named("cluster")]);
        let id = app.keyed_client(workload(&issuer.url)).await;
        Self { app, key, issuer, id }
    }

    /// A service account's token as Kubernetes makes it, with these claims changed.
    fn token(&self, changes: Value) -> String {
        let now = self.app.clock.unix_seconds();
        let mut claims = json!({
            "aud": [AUDIENCE], "exp": now + 3600, "iat": now, "nbf": now, "iss": self.issuer.url,
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "payroll" } },
            "sub": SUBJECT,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, claim| !claim.is_null());
        self.key.sign(&json!({ "kid": "cluster" }), &claims)
    }

    async fn present(&self, token: &str) -> Answer {
        self.app.api.assert_as(&self.id, token).await
    }
}

fn workload(issuer: &str) -> Value {
    json!({ "workload": { "issuer": issuer, "audience": AUDIENCE, "subject": SUBJECT } })
}

#[tokio::test]
async fn a_service_accounts_token_is_as_good_as_a_secret_as_often_as_it_comes() {
    let cluster = Cluster::new().await;
    let token = cluster.token(json!({}));
    for _ in 0..3 {
        let answer = cluster.present(&token).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let issued = answer.json["access_token"].as_str().unwrap();
        assert_eq!(cluster.app.api.get(issued, "/v1/connections").await.status, 200);
    }
    assert_eq!(cluster.issuer.asked("/.well-known/openid-configuration"), 1);
    assert_eq!(cluster.issuer.asked("/jwks"), 1);
}

#[tokio::test]
async fn a_token_of_another_workload_is_refused() {
    let cluster = Cluster::new().await;
    let now = cluster.app.clock.unix_seconds();
    for changes in [
        json!({ "sub": "system:serviceaccount:shop:payroll2" }),
        json!({ "sub": "system:serviceaccount:shop:" }),
        json!({ "sub": "SYSTEM:serviceaccount:shop:payroll" }),
        json!({ "sub": format!("{SUBJECT} ") }),
        json!({ "sub": "" }),
        json!({ "sub": null }),
        json!({ "sub": [SUBJECT] }),
        json!({ "iss": format!("{}/", cluster.issuer.url) }),
        json!({ "iss": "https://elsewhere.example" }),
        json!({ "iss": null }),
        json!({ "aud": "https://kubernetes.default.svc" }),
        json!({ "aud": [AUDIENCE, "https://kubernetes.default.svc"] }),
        json!({ "aud": [] }),
        json!({ "aud": "" }),
        json!({ "aud": null }),
        json!({ "exp": null }),
        json!({ "exp": now - 1 }),
        json!({ "exp": now + 10 * 24 * 3600 }),
        json!({ "nbf": now + 7200, "exp": now + 10_000 }),
    ] {
        cluster.app.turn_clock(MINUTE).await;
        let answer = cluster.present(&cluster.token(changes.clone())).await;
        assert_eq!(refusal(&answer), (401, "invalid_client"), "{changes}");
    }
    cluster.app.turn_clock(MINUTE).await;
    assert_eq!(cluster.present(&cluster.token(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_token_is_matched_with_the_client_that_presents_it_alone() {
    let cluster = Cluster::new().await;
    let token = cluster.token(json!({}));
    assert_eq!(
        refusal(&cluster.app.api.assert(&token).await),
        (401, "invalid_client"),
        "no client_id"
    );
    let other = cluster.app.client("connections:read").await.id;
    assert_eq!(refusal(&cluster.app.api.assert_as(&other, &token).await), (401, "invalid_client"));
    // Nor does the issuer's key sign for the client itself.
    let own = cluster.app.claims(&cluster.id, json!({}));
    let own = cluster.key.sign(&json!({ "kid": "cluster" }), &own);
    assert_eq!(refusal(&cluster.present(&own).await), (401, "invalid_client"));
    let forged = Keypair::of("RS256").sign(&json!({ "kid": "cluster" }), &json!({}));
    assert_eq!(refusal(&cluster.present(&forged).await), (401, "invalid_client"));
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_refused() {
    let cluster = Cluster::new().await;
    cluster.issuer.call_itself("https://elsewhere.example");
    let answer = cluster.present(&cluster.token(json!({}))).await;
    assert_eq!(refusal(&answer), (503, "temporarily_unavailable"));
    assert_eq!(cluster.issuer.asked("/jwks"), 0);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_has_its_keys_in_the_registration() {
    let app = TestApp::spawn().await;
    let key = Keypair::of("RS256");
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let mut members = workload(issuer);
    members["jwks"] = json!({ "keys": [key.named("cluster")] });
    let id = app.keyed_client(members).await;
    let now = app.clock.unix_seconds();
    let claims =
        json!({ "iss": issuer, "aud": [AUDIENCE], "sub": SUBJECT, "iat": now, "exp": now + 600 });
    let token = key.sign(&json!({ "kid": "cluster" }), &claims);
    assert_eq!(app.api.assert_as(&id, &token).await.status, 200);
    let other = Keypair::of("RS256").sign(&json!({ "kid": "cluster" }), &claims);
    assert_eq!(refusal(&app.api.assert_as(&id, &other).await), (401, "invalid_client"));
}

#[tokio::test]
async fn an_issuer_that_is_down_fails_its_own_clients_alone() {
    let cluster = Cluster::new().await;
    cluster.issuer.mood(Mood::Status(503));
    let other = cluster.app.client("connections:read").await;
    let answer = cluster.present(&cluster.token(json!({}))).await;
    assert_eq!(refusal(&answer), (503, "temporarily_unavailable"));
    assert_eq!(other.ask(&cluster.app.api, None).await.status, 200);
    cluster.issuer.mood(Mood::Well);
    cluster.app.turn_clock(Duration::from_secs(11)).await;
    assert_eq!(cluster.present(&cluster.token(json!({}))).await.status, 200);
}
