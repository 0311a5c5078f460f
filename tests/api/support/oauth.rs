//! Clients of a test's own, and what they ask the OAuth endpoints.

use std::time::Duration;

use reqwest::Method;
use strongroom::common::actor::Actor;
use strongroom::oauth::clients::{self, NewClient, Terms};

use super::{Answer, Api, TestApp};

/// A client with its secret.
#[derive(Clone, Debug)]
pub struct OauthClient {
    pub id: String,
    pub secret: String,
}

impl TestApp {
    /// A client of the environment's app that may have these scopes, on the usual terms.
    pub async fn client(&self, scope: &str) -> OauthClient {
        self.client_on(scope, 3600, Terms::default()).await
    }

    pub async fn client_on(&self, scope: &str, lifetime: u64, terms: Terms) -> OauthClient {
        self.client_of(self.bank.app(), scope, lifetime, terms).await
    }

    pub async fn client_of(
        &self,
        app: &str,
        scope: &str,
        lifetime: u64,
        terms: Terms,
    ) -> OauthClient {
        let mut conn = self.context.pool.acquire().await.unwrap();
        let app = strongroom::apps::find(&mut conn, app).await.unwrap().unwrap().id;
        let scopes = scope.parse().unwrap();
        let token_lifetime = Duration::from_secs(lifetime);
        let new = NewClient { app, name: "of a test", scopes, token_lifetime };
        clients::check(&new, &terms).unwrap();
        let vault = &self.context.vault;
        let made = clients::create_on(&mut conn, vault, &Actor::operator(), &new, &terms).await;
        let made = made.unwrap();
        OauthClient { id: made.id.to_string(), secret: made.secret.expose().to_owned() }
    }
}

impl OauthClient {
    /// Posts a form to an OAuth endpoint, authenticated by HTTP Basic.
    pub async fn post(&self, api: &Api, path: &str, form: &str) -> Answer {
        let request = api
            .request(Method::POST, path)
            .basic_auth(&self.id, Some(&self.secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        api.send(request).await
    }

    /// What the token endpoint answers to a request for this scope.
    pub async fn ask(&self, api: &Api, scope: Option<&str>) -> Answer {
        let scope = scope.map(|scope| format!("&scope={}", scope.replace(' ', "+")));
        let form = format!("grant_type=client_credentials{}", scope.unwrap_or_default());
        self.post(api, "/oauth2/token", &form).await
    }

    /// An access token with everything that the client may have.
    pub async fn token(&self, api: &Api) -> String {
        api.token(&self.id, &self.secret, None).await
    }

    pub async fn revoke(&self, api: &Api, token: &str) -> Answer {
        self.post(api, "/oauth2/revoke", &format!("token={token}")).await
    }

    pub async fn introspect(&self, api: &Api, token: &str) -> Answer {
        self.post(api, "/oauth2/introspect", &format!("token={token}")).await
    }
}
