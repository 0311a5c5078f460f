//! The table `apps`.

use serde::Serialize;
use time::OffsetDateTime;

use super::{AppError, SealedCredentials, name_of, new_key, seal_secret};
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::config::EnvironmentApp;
use crate::database::Conn;
use crate::providers::Provider;
use crate::vault::{self, Vault};

/// An app, without its secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The tenant's id; everything that belongs to an app refers to it.
    pub id: AppId,
    /// The unique name by which the command line addresses the app.
    pub name: String,
    /// The bank link that it is registered with.
    pub provider: Provider,
    /// Dapi's application key, Plaid's `client_id`; not a secret.
    pub app_key: String,
    /// Whether a link of the same accounts by the same user ends the older one. Plaid only.
    pub supersede_duplicates: bool,
    /// Whether a token that was revealed is replaced when its reader is done. Plaid only.
    pub rotate_after_reveal: bool,
    /// When the app was added, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Returns all apps, ordered by name.
pub async fn list(conn: &mut Conn) -> sqlx::Result<Vec<App>> {
    sqlx::query_as!(
        App,
        r#"SELECT id AS "id: AppId", name, provider AS "provider: Provider", app_key,
                supersede_duplicates, rotate_after_reveal, created_at
         FROM apps ORDER BY name"#,
    )
    .fetch_all(conn)
    .await
}

/// Returns the app with this name.
pub async fn find(conn: &mut Conn, name: &str) -> sqlx::Result<Option<App>> {
    sqlx::query_as!(
        App,
        r#"SELECT id AS "id: AppId", name, provider AS "provider: Provider", app_key,
                supersede_duplicates, rotate_after_reveal, created_at
         FROM apps WHERE name = $1"#,
        name,
    )
    .fetch_optional(conn)
    .await
}

/// Returns the name of the app with this id.
pub async fn name(conn: &mut Conn, id: AppId) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("SELECT name FROM apps WHERE id = $1", id.uuid()).fetch_optional(conn).await
}

/// An app to add.
#[derive(Debug)]
pub struct NewApp<'a> {
    /// The unique name.
    pub name: &'a str,
    /// The bank link that it is registered with.
    pub provider: Provider,
    /// Dapi's application key, Plaid's `client_id`.
    pub app_key: &'a str,
    /// Dapi's application secret, Plaid's `secret`.
    pub app_secret: &'a SecretText,
}

/// Adds an app, its data key and the audit row in one transaction.
pub async fn add(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    new: &NewApp<'_>,
) -> Result<App, AppError> {
    let id = AppId::new();
    let key = new_key(vault, id).await?;
    let sealed = seal_secret(vault, id, &key, new.app_secret).await?;
    let mut tx = conn.begin().await?;
    let app = sqlx::query_as!(
        App,
        r#"INSERT INTO apps (id, name, provider, app_key, app_secret) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO NOTHING
         RETURNING id AS "id: AppId", name, provider AS "provider: Provider", app_key,
                   supersede_duplicates, rotate_after_reveal, created_at"#,
        id.uuid(),
        new.name,
        new.provider.as_str(),
        new.app_key,
        sealed.as_bytes(),
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| AppError::NameTaken(new.name.to_owned()))?;
    vault::insert_key(&mut tx, &key).await?;
    record(&mut tx, actor, id, "app.added").await?;
    tx.commit().await?;
    Ok(app)
}

/// Brings an app in line with the environment, which may have changed since the last start.
///
/// # Errors
/// If Plaid's `client_id` changed while the app holds tokens: they belong to the old one, and with the new one Plaid
/// would answer as if they were dead.
pub async fn ensure(
    conn: &mut Conn,
    vault: &Vault,
    provider: Provider,
    wanted: &EnvironmentApp,
) -> Result<(), AppError> {
    let (actor, name) = (Actor::service(), name_of(provider));
    let Some(held) = held(conn, name).await? else {
        let new =
            NewApp { name, provider, app_key: &wanted.app_key, app_secret: &wanted.app_secret };
        return match add(conn, vault, &actor, &new).await {
            // Another replica with the same environment started at the same moment and won.
            Ok(_) | Err(AppError::NameTaken(_)) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let (id, key) = (held.app, held.key.clone());
    let held = held.open(vault).await?;
    if held.provider != provider {
        return Err(AppError::OfAnotherProvider { name, provider: held.provider });
    }
    if held.app_key == wanted.app_key && held.app_secret.same_as(&wanted.app_secret) {
        return Ok(());
    }
    let moves = provider == Provider::Plaid && held.app_key != wanted.app_key;
    if moves && holds_secrets(conn, id).await? {
        return Err(AppError::TokensOfAnotherClient);
    }
    let sealed = seal_secret(vault, id, &key, &wanted.app_secret).await?;
    let mut tx = conn.begin().await?;
    sqlx::query!(
        "UPDATE apps SET app_key = $2, app_secret = $3, updated_at = strongroom_now() WHERE id = $1",
        id.uuid(),
        wanted.app_key,
        sealed.as_bytes(),
    )
    .execute(&mut *tx)
    .await?;
    record(&mut tx, &actor, id, "app.changed").await?;
    tx.commit().await?;
    Ok(())
}

/// What can be changed of an app. `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Whether a link of the same accounts by the same user ends the older one.
    pub supersede_duplicates: Option<bool>,
    /// Whether a token that was revealed is replaced when its reader is done.
    pub rotate_after_reveal: Option<bool>,
}

/// Changes an app's settings; returns `None` if there is no app of this name.
pub async fn change(
    conn: &mut Conn,
    actor: &Actor,
    name: &str,
    settings: Settings,
) -> sqlx::Result<Option<App>> {
    let mut tx = conn.begin().await?;
    let app = sqlx::query_as!(
        App,
        r#"UPDATE apps
         SET supersede_duplicates = coalesce($2, supersede_duplicates),
             rotate_after_reveal = coalesce($3, rotate_after_reveal), updated_at = strongroom_now()
         WHERE name = $1
         RETURNING id AS "id: AppId", name, provider AS "provider: Provider", app_key,
                   supersede_duplicates, rotate_after_reveal, created_at"#,
        name,
        settings.supersede_duplicates,
        settings.rotate_after_reveal,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(app) = &app {
        record(&mut tx, actor, app.id, "app.changed").await?;
    }
    tx.commit().await?;
    Ok(app)
}

/// Returns the bank link of an app, which never changes; `None` if there is no such app.
pub async fn provider_of(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<Provider>> {
    sqlx::query_scalar!(
        r#"SELECT provider AS "provider: Provider" FROM apps WHERE id = $1"#,
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Loads an app's sealed credentials together with the key that opens them.
pub async fn credentials(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<SealedCredentials>> {
    sqlx::query_scalar!(
        r#"SELECT credentials_of(a, k) AS "credentials!: SealedCredentials"
         FROM apps a JOIN data_keys k ON k.app_id = a.id AND k.purpose = 'app'
         WHERE a.id = $1"#,
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

async fn held(conn: &mut Conn, name: &str) -> sqlx::Result<Option<SealedCredentials>> {
    sqlx::query_scalar!(
        r#"SELECT credentials_of(a, k) AS "credentials!: SealedCredentials"
         FROM apps a JOIN data_keys k ON k.app_id = a.id AND k.purpose = 'app'
         WHERE a.name = $1"#,
        name,
    )
    .fetch_optional(conn)
    .await
}

/// Returns whether the app holds a token or a code, which belong to its key at the provider.
async fn holds_secrets(conn: &mut Conn, app: AppId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections
            WHERE list_key(app_id, status) = ANY (ARRAY[
                    list_key($1, 'pending'), list_key($1, 'active'), list_key($1, 'revoking')])
              AND coalesce(app_id = $1 AND status IN ('pending', 'active', 'revoking'), false)) AS "it!""#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
) -> sqlx::Result<()> {
    let event =
        audit::Event { app, action, outcome: "ok", user: None, connection: None, reason: None };
    audit::record(conn, actor, &event).await
}
