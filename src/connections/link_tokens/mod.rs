//! Which user each of Plaid's link tokens was created for. Plaid's exchange does not say whose `public_token` it is, and
//! an app that uses Plaid's SDK does not either.

pub mod store;

use time::OffsetDateTime;

use crate::common::ids::{AppId, LinkTokenId, UserId};
use crate::common::secret::secret_text;
use crate::connections::exchange::is_user_gone;
use crate::connections::link_tokens::store::NewLinkToken;
use crate::connections::{ConnectionError, Context};
use crate::users;
use crate::vault::{AadContext, KeyedHash, Sealed, Vault};

secret_text!(
    /// Plaid's `link_token`, with which a frontend opens Link for one user.
    LinkToken
);

/// A link token whose user is known.
#[derive(Debug)]
pub struct KnownLinkToken {
    pub token: LinkToken,
    /// The app's own name for the user.
    pub client_user_id: String,
}

fn hash(vault: &Vault, app: AppId, token: &LinkToken) -> KeyedHash {
    let token = token.expose().as_bytes();
    vault.secret_hashes_of(app).hash(&[b"link token", app.uuid().as_bytes(), token])
}

fn aad(app: AppId, user: UserId, id: LinkTokenId) -> AadContext {
    AadContext {
        table: "link_tokens",
        column: "token",
        app: Some(app),
        user: Some(user),
        row: id.uuid(),
    }
}

/// Stores which user a link token was created for, and creates the user if the name is new. `expires_at` is Plaid's
/// `expiration`. Returns `false` if the user is being erased: then nothing is stored.
pub async fn remember(
    context: &Context,
    app: AppId,
    client_user_id: &str,
    token: &LinkToken,
    expires_at: Option<OffsetDateTime>,
) -> Result<bool, ConnectionError> {
    let user = users::ensure(&context.pool, &context.vault, app, client_user_id).await?;
    if user.erasing {
        return Ok(false);
    }
    let id = LinkTokenId::new();
    let key = context.vault.unwrap(&user.key).await?;
    let new = NewLinkToken {
        id,
        app,
        user: user.id,
        hash: hash(&context.vault, app, token),
        token: Sealed::seal(token, &key, &aad(app, user.id, id))?,
        expires_at,
    };
    let mut conn = context.pool.acquire().await?;
    match store::insert(&mut conn, &new).await {
        Ok(()) => Ok(true),
        // Erased since.
        Err(error) if is_user_gone(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the app's own name for the user of a link token, if it was created here.
pub async fn user_of(
    context: &Context,
    app: AppId,
    token: &LinkToken,
) -> Result<Option<String>, ConnectionError> {
    let hash = hash(&context.vault, app, token);
    Ok(store::user_of(&mut context.pool.acquire().await?, app, &hash).await?)
}

/// Returns the app's newest link tokens, at most `limit`.
pub async fn newest(
    context: &Context,
    app: AppId,
    limit: i64,
) -> Result<Vec<KnownLinkToken>, ConnectionError> {
    let rows = store::newest(&mut context.pool.acquire().await?, app, limit).await?;
    let open = async |row: store::SealedLinkToken| {
        let key = context.vault.unwrap(&row.key).await?;
        let token = row.token.open(&key, &aad(app, row.user, row.id))?;
        Ok(KnownLinkToken { token, client_user_id: row.client_user_id })
    };
    futures_util::future::try_join_all(rows.into_iter().map(open)).await
}
