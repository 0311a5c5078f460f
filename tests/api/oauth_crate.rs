//! The crate `oauth2`, as Rust programs use it: token, use, introspection, revocation.

use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl, RevocationUrl,
    Scope, StandardRevocableToken, TokenIntrospectionResponse as _, TokenResponse as _, TokenUrl,
};

use crate::support::TestApp;

/// Sends what the crate wants sent.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).unwrap();
    let mut call = reqwest::Client::new().request(method, request.uri().to_string());
    for (name, value) in request.headers() {
        call = call.header(name.as_str(), value.as_bytes());
    }
    let answer = call.body(request.into_body()).send().await?;
    let mut response = oauth2::http::Response::builder().status(answer.status().as_u16());
    for (name, value) in answer.headers() {
        response = response.header(name.as_str(), value.as_bytes());
    }
    Ok(response.body(answer.bytes().await?.to_vec()).unwrap())
}

#[tokio::test]
async fn the_crate_obtains_uses_introspects_and_revokes_by_basic_and_by_form() {
    let app = TestApp::spawn().await;
    let made = app.client("connections:read tokens:read").await;
    for auth in [AuthType::BasicAuth, AuthType::RequestBody] {
        let client = BasicClient::new(ClientId::new(made.id.clone()))
            .set_client_secret(ClientSecret::new(made.secret.clone()))
            .set_auth_type(auth)
            .set_token_uri(TokenUrl::new(app.api.url("/oauth2/token")).unwrap())
            .set_introspection_url(
                IntrospectionUrl::new(app.api.url("/oauth2/introspect")).unwrap(),
            )
            .set_revocation_url_option(Some(
                RevocationUrl::new("https://unused.example".to_owned()).unwrap(),
            ));
        let asked = client
            .exchange_client_credentials()
            .add_scope(Scope::new("connections:read".to_owned()));
        let token = asked.request_async(&send).await.unwrap();
        assert_eq!(token.expires_in(), Some(std::time::Duration::from_secs(3600)));
        assert_eq!(token.scopes().unwrap()[0].as_str(), "connections:read");
        let secret = token.access_token().secret().clone();
        assert_eq!(app.api.get(&secret, "/v1/connections").await.status, 200);
        let told = client.introspect(token.access_token()).request_async(&send).await.unwrap();
        assert!(told.active() && told.client_id().unwrap().as_str() == made.id);
        // The crate insists on https here, which this service leaves to a proxy.
        let revocable = StandardRevocableToken::from(token.access_token().clone());
        let revoke = client.revoke_token(revocable).unwrap();
        let to_here = async |request: HttpRequest| {
            let (mut parts, body) = request.into_parts();
            parts.uri = app.api.url("/oauth2/revoke").parse().unwrap();
            send(HttpRequest::from_parts(parts, body)).await
        };
        revoke.request_async(&to_here).await.unwrap();
        assert_eq!(app.api.get(&secret, "/v1/connections").await.status, 401);
        let told = client.introspect(token.access_token()).request_async(&send).await.unwrap();
        assert!(!told.active());
    }
}
