//! Proxy tokens: what the providers' own wires return as access token. A random value that is useful to Strongroom alone,
//! valid while its connection is active.
//!
//! The literals `stand-in`, `stand_ins` and `connection.stand_in_made` are older names, frozen in hash inputs, AAD and
//! the audit trail.

pub mod store;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::common::secret::secret_text;
use crate::connections::model::{RevocationKind, Status};
use crate::connections::proxy_token::store::NewProxyToken;
use crate::connections::{ConnectionAad, ConnectionError, Context, token_lease};
use crate::providers::{Provider, UserSecret};
use crate::vault::{
    AadContext, KeyedHash, Sealed, Vault, WrappedKey, is_key_destroyed, random_token,
};

secret_text!(
    /// A token that an app's SDK sends instead of the provider's.
    ProxyToken
);

/// Prefix of every proxy token, so that a leaked one is recognized.
const PREFIX: &str = "strongroom_";

fn hash(vault: &Vault, app: AppId, proxy_token: &str) -> KeyedHash {
    let key = vault.secret_hashes_of(app);
    key.hash(&[b"stand-in", app.uuid().as_bytes(), proxy_token.as_bytes()])
}

fn aad(app: AppId, user: UserId, id: ConnectionId) -> AadContext {
    AadContext {
        table: "stand_ins",
        column: "token",
        app: Some(app),
        user: Some(user),
        row: id.uuid(),
    }
}

/// Returns the proxy token of a connection, the same each time, or `None` if the connection is not active. Creates it
/// at the first call.
pub async fn of(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<ProxyToken>, ConnectionError> {
    // Further rounds: of two callers that insert at once, one stays, and both read that one; and a data key may be replaced.
    for _ in 0..3 {
        let mut conn = context.pool.acquire().await?;
        let found = store::proxy_token_of(&mut conn, app, id).await?;
        drop(conn);
        let Some(found) = found else { return Ok(None) };
        let key = context.vault.unwrap(&found.key).await?;
        let aad = aad(app, found.user, id);
        if let Some(sealed) = found.token {
            return Ok(Some(sealed.open(&key, &aad)?));
        }
        let generated = ProxyToken::new(random_token(PREFIX)?);
        let (token, hash) =
            (Sealed::seal(&generated, &key, &aad)?, hash(&context.vault, app, generated.expose()));
        let new = NewProxyToken { app, id, hash, token };
        let mut conn = context.pool.acquire().await?;
        match store::insert_proxy_token(&mut conn, &AuditActor::from(actor), &new).await {
            Err(error) if !is_key_destroyed(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// The connection behind a proxy token.
#[derive(Debug)]
pub struct Holder {
    pub id: ConnectionId,
    /// The bank link that the connection was made with.
    pub provider: Provider,
    /// `Revoking` also if a bulk revocation in force matches it.
    pub status: Status,
    /// How it is being revoked, or was.
    pub revocation: Option<RevocationKind>,
    app: AppId,
    user: UserId,
    key: WrappedKey,
    wants_user_secret: bool,
}

/// Finds the connection behind a proxy token of this app, whatever its status.
pub async fn holder(
    context: &Context,
    app: AppId,
    proxy_token: &str,
) -> Result<Option<Holder>, ConnectionError> {
    let hash = hash(&context.vault, app, proxy_token);
    let found = store::find_by_proxy_token(&mut context.pool.acquire().await?, app, &hash).await?;
    Ok(found.map(|row| Holder {
        id: row.id,
        provider: row.provider,
        status: row.status,
        revocation: row.revocation,
        app,
        user: row.user,
        key: row.key,
        wants_user_secret: row.wants_user_secret,
    }))
}

impl Holder {
    /// Seals and stores the user secret that a call brought, unless the connection has a proven one.
    pub async fn bring(
        &self,
        context: &Context,
        actor: &Actor,
        user_secret: &UserSecret,
    ) -> Result<(), ConnectionError> {
        if !self.wants_user_secret {
            return Ok(());
        }
        let Self { app, user, id, .. } = *self;
        let key = context.vault.unwrap(&self.key).await?;
        let sealed =
            Sealed::seal(user_secret, &key, &ConnectionAad { app, user, id }.user_secret())?;
        let actor = AuditActor::from(actor);
        let mut conn = context.pool.acquire().await?;
        token_lease::store::store_user_secret(&mut conn, &actor, app, id, &sealed).await?;
        context.wake.notify_one();
        Ok(())
    }
}
