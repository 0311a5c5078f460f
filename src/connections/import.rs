//! Importing a token that the app already holds: without this no running app could move in.

use super::conclude::supersede;
use super::exchange::is_user_gone;
use super::model::{self, Step};
use super::store::{self, NewConnection};
use super::{Context, Failed, Places};
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId};
use crate::dapi::{AccessToken, UserSecret};
use crate::database::Conn;
use crate::users::{self, User};
use crate::vault::Sealed;

/// How often an import is tried that an exchange of the same login came before.
const TRIES: u32 = 4;

/// A token to be imported, checked.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) app: AppId,
    pub(super) client_user_id: String,
    pub(super) connection_id: String,
    pub(super) access_token: AccessToken,
    pub(super) user_secret: UserSecret,
    pub(super) dapi_user_id: Option<String>,
    pub(super) token_id: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Imported {
    /// A new connection.
    New(ConnectionId),
    /// This user's connection holds this very token already.
    Repeated(ConnectionId),
    /// The login is another user's.
    LoginOfAnotherUser,
    /// The user is being erased.
    UserBeingErased,
}

/// Imports a token. It supersedes what the user had linked of the same login.
pub(super) async fn import(
    context: &Context,
    actor: &Actor,
    import: &Import,
) -> Result<Imported, Failed> {
    let mut conn = context.pool.acquire().await?;
    let user = users::ensure(&mut conn, &context.vault, import.app, &import.client_user_id).await?;
    if user.erasing {
        return Ok(Imported::UserBeingErased);
    }
    for _ in 0..TRIES {
        match try_import(context, &mut conn, actor, import, &user).await {
            // An exchange of the same login was activated in the same moment, by the one statement that
            // does not wait for the login's lock. Now there is a row to be seen.
            Err(Failed::Database(error)) if is_conflict(&error) => {}
            // The user is being erased since, or is erased.
            Err(Failed::Database(error)) if is_user_gone(&error) => {
                return Ok(Imported::UserBeingErased);
            }
            result => return result,
        }
    }
    // Again and again in the same moment: it passes.
    Err(Failed::Database(sqlx::Error::PoolTimedOut))
}

fn is_conflict(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

async fn try_import(
    context: &Context,
    conn: &mut Conn,
    actor: &Actor,
    import: &Import,
    user: &User,
) -> Result<Imported, Failed> {
    let id = ConnectionId::new();
    let places = Places { app: import.app, user: user.id, id };
    let key = context.vault.unwrap(&user.key)?;
    let token = Sealed::seal(&import.access_token, &key, &places.access_token())?;
    let user_secret = Sealed::seal(&import.user_secret, &key, &places.user_secret())?;

    let mut tx = conn.begin().await?;
    let login = &import.connection_id;
    let locked = store::lock_login(&mut tx, import.app, login, None, user.id).await?;
    if let Some(older) = locked.login.older_active
        && holds(&mut tx, import, older, user, &key).await?
    {
        return Ok(Imported::Repeated(older));
    }
    let active = match model::pending_takes_token(locked.login) {
        Step::Activate { supersedes } => {
            if let Some(older) = supersedes {
                supersede(context, &mut tx, import.app, older, id).await?;
            }
            true
        }
        Step::Hold => false,
        _ => return Ok(Imported::LoginOfAnotherUser),
    };
    let new = NewConnection {
        app: import.app,
        id,
        user: user.id,
        connection_id: login.clone(),
        dapi_user_id: import.dapi_user_id.clone(),
        token_id: import.token_id.clone(),
        user_secret: Some(user_secret),
    };
    store::insert_imported(&mut tx, &AuditActor::from(actor), &new, &token, active).await?;
    tx.commit().await?;
    Ok(Imported::New(id))
}

/// Whether the connection holds this very token.
async fn holds(
    tx: &mut Conn,
    import: &Import,
    id: ConnectionId,
    user: &User,
    key: &crate::vault::DataKey,
) -> Result<bool, Failed> {
    let places = Places { app: import.app, user: user.id, id };
    let held = store::held_token(tx, import.app, id).await?;
    let held = held.map(|sealed| sealed.open(key, &places.access_token())).transpose()?;
    Ok(held.is_some_and(|held| held.same_as(&import.access_token)))
}
