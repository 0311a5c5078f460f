//! Stand-ins: what Dapi's own wire hands out as access token. Random, of no use to anybody but
//! Strongroom, and good as long as its connection is active.

pub mod store;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, UserId};
use crate::base::secret::secret_text;
use crate::connections::model::{RevocationKind, Status};
use crate::connections::proxy_token::store::NewProxyToken;
use crate::connections::{ConnectionAad, ConnectionError, Context, token_lease};
use crate::dapi::UserSecret;
use crate::vault::{AadContext, KeyedHash, Sealed, Vault, VaultError, WrappedKey};

secret_text!(
    /// A token that stands in for Dapi's.
    ProxyToken
);

/// How a stand-in begins, so that one that leaked is known for what it is.
const PREFIX: &str = "strongroom_";

/// The prefix and 256 random bits in base64url.
fn new() -> Result<ProxyToken, VaultError> {
    use base64::Engine as _;
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| VaultError::NoRandomness)?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice());
    Ok(ProxyToken::new(format!("{PREFIX}{text}")))
}

fn hash(vault: &Vault, app: AppId, proxy_token: &str) -> KeyedHash {
    vault.secret_hashes().hash(&[b"stand-in", app.uuid().as_bytes(), proxy_token.as_bytes()])
}

fn place(app: AppId, user: UserId, id: ConnectionId) -> AadContext {
    AadContext {
        table: "stand_ins",
        column: "token",
        app: Some(app),
        user: Some(user),
        row: id.uuid(),
    }
}

/// The stand-in of an active connection, the same each time; `None` where the connection is not active.
pub async fn of(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<ProxyToken>, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    // The second time round it is there, whoever made it.
    for _ in 0..2 {
        let Some(found) = store::proxy_token_of(&mut conn, app, id).await? else { return Ok(None) };
        let key = context.vault.unwrap(&found.key)?;
        let place = place(app, found.user, id);
        if let Some(sealed) = found.token {
            return Ok(Some(sealed.open(&key, &place)?));
        }
        let made = new()?;
        let (token, hash) =
            (Sealed::seal(&made, &key, &place)?, hash(&context.vault, app, made.expose()));
        let new = NewProxyToken { app, id, hash, token };
        store::insert_proxy_token(&mut conn, &AuditActor::from(actor), &new).await?;
    }
    Ok(None)
}

/// The connection behind a stand-in.
#[derive(Debug)]
pub struct Holder {
    /// The connection.
    pub id: ConnectionId,
    /// Where it stands.
    pub status: Status,
    /// How it is being revoked or was.
    pub revocation: Option<RevocationKind>,
    app: AppId,
    user: UserId,
    key: WrappedKey,
    wants_user_secret: bool,
}

/// Finds the connection behind a stand-in of this app.
pub async fn holder(
    context: &Context,
    app: AppId,
    proxy_token: &str,
) -> Result<Option<Holder>, ConnectionError> {
    let hash = hash(&context.vault, app, proxy_token);
    let found = store::find_by_proxy_token(&mut context.pool.acquire().await?, app, &hash).await?;
    Ok(found.map(|row| Holder {
        id: row.id,
        status: row.status,
        revocation: row.revocation,
        app,
        user: row.user,
        key: row.key,
        wants_user_secret: row.wants_user_secret,
    }))
}

impl Holder {
    /// Seals the user secret that a call brought, where the connection has none that Dapi is known to take.
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
        let key = context.vault.unwrap(&self.key)?;
        let sealed =
            Sealed::seal(user_secret, &key, &ConnectionAad { app, user, id }.user_secret())?;
        let actor = AuditActor::from(actor);
        let mut conn = context.pool.acquire().await?;
        token_lease::store::store_user_secret(&mut conn, &actor, app, id, &sealed).await?;
        context.wake.notify_one();
        Ok(())
    }
}
