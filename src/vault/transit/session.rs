//! How this service proves to Vault or OpenBao who it is: a token, one that another process keeps in a file, or a login
//! by AppRole or by Kubernetes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::client::TransitClient;
use crate::common::secret::SecretText;
use crate::vault::engine::Down;

/// Where a secret comes from.
#[derive(Debug)]
pub enum SecretSource {
    /// From the environment.
    Text(SecretText),
    /// From a file, which is read again each time, because another process may replace it.
    File(PathBuf),
}

impl SecretSource {
    async fn read(&self) -> Result<SecretText, Down> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(path) => path,
        };
        let read = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
        let name = path.display();
        let content = read.map_err(|error| Down(format!("{name} cannot be read: {error}")))?;
        let content = content.trim();
        if content.is_empty() {
            return Err(Down(format!("{name} is empty")));
        }
        Ok(SecretText::new(content.to_owned()))
    }
}

/// How this service logs in.
#[derive(Debug)]
pub enum Login {
    /// By a token, which another process renews.
    Token(SecretSource),
    /// By AppRole at `auth/approle`.
    AppRole {
        /// The role's id, which is no secret.
        role_id: String,
        /// Its secret id.
        secret_id: SecretSource,
    },
    /// By this pod's service account at `auth/kubernetes`.
    Kubernetes {
        /// The role.
        role: String,
        /// The file of the service account's token.
        token: SecretSource,
    },
}

/// A login's token and when it is to be replaced.
#[derive(Debug)]
struct Held {
    token: SecretText,
    until: Option<Instant>,
}

/// The session of one client. Logins happen one at a time.
#[derive(Debug)]
pub(super) struct Session {
    login: Login,
    held: Mutex<Option<Held>>,
}

#[derive(Deserialize)]
struct LoginAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretText,
    lease_duration: u64,
}

impl Session {
    pub(super) fn new(login: Login) -> Self {
        Self { login, held: Mutex::default() }
    }

    /// Returns a token, another one than `refused` if there is one to be had.
    pub(super) async fn token(
        &self,
        client: &TransitClient,
        refused: Option<&SecretText>,
    ) -> Result<SecretText, Down> {
        let (path, body) = match &self.login {
            Login::Token(source) => return source.read().await,
            Login::AppRole { role_id, secret_id } => {
                ("auth/approle/login", ("role_id", role_id, "secret_id", secret_id))
            }
            Login::Kubernetes { role, token } => {
                ("auth/kubernetes/login", ("role", role, "jwt", token))
            }
        };
        let mut held = self.held.lock().await;
        if let Some(held) = &*held {
            let is_refused = refused.is_some_and(|refused| refused.same_as(&held.token));
            let is_over = held.until.is_some_and(|until| Instant::now() >= until);
            if !is_refused && !is_over {
                return Ok(held.token.clone());
            }
        }
        let (role_name, role, secret_name, secret) = body;
        let secret = secret.read().await?;
        let body = json!({ role_name: role, secret_name: secret.expose() });
        let body = Zeroizing::new(body.to_string());
        let LoginAnswer { auth } = client.log_in(path, &body).await?;
        // Replaced after two thirds of its time; a lease of zero has no end.
        let lease = Duration::from_secs(auth.lease_duration);
        let until = (!lease.is_zero()).then(|| Instant::now() + lease * 2 / 3);
        *held = Some(Held { token: auth.client_token.clone(), until });
        Ok(auth.client_token)
    }
}
