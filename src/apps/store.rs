//! The table `apps`.

use serde::Serialize;
use time::OffsetDateTime;

use super::{AppError, DEFAULT, SealedCredentials, new_key, seal_secret};
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, DataKeyId};
use crate::common::secret::SecretText;
use crate::config::DefaultApp;
use crate::database::Conn;
use crate::vault::{self, MasterKeyId, Sealed, Vault, WrappedKey};

/// An app, without its secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The tenant's id; everything that belongs to an app refers to it.
    pub id: AppId,
    /// The unique name by which the command line addresses the app.
    pub name: String,
    /// Dapi's application key, which is not a secret.
    pub app_key: String,
    /// When the app was added, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Returns all apps, ordered by name.
pub async fn list(conn: &mut Conn) -> sqlx::Result<Vec<App>> {
    sqlx::query_as!(
        App,
        r#"SELECT id AS "id: AppId", name, app_key, created_at FROM apps ORDER BY name"#,
    )
    .fetch_all(conn)
    .await
}

/// Returns the app with this name.
pub async fn find(conn: &mut Conn, name: &str) -> sqlx::Result<Option<App>> {
    sqlx::query_as!(
        App,
        r#"SELECT id AS "id: AppId", name, app_key, created_at FROM apps WHERE name = $1"#,
        name,
    )
    .fetch_optional(conn)
    .await
}

/// Adds an app, its data key and the audit row in one transaction.
pub async fn add(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    name: &str,
    app_key: &str,
    app_secret: &SecretText,
) -> Result<App, AppError> {
    let id = AppId::new();
    let key = new_key(vault, id)?;
    let sealed = seal_secret(vault, id, &key, app_secret)?;
    let mut tx = conn.begin().await?;
    let app = sqlx::query_as!(
        App,
        r#"INSERT INTO apps (id, name, app_key, app_secret) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO NOTHING
         RETURNING id AS "id: AppId", name, app_key, created_at"#,
        id.uuid(),
        name,
        app_key,
        sealed.as_bytes(),
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| AppError::NameTaken(name.to_owned()))?;
    vault::insert_key(&mut tx, &key).await?;
    record(&mut tx, actor, id, "app.added").await?;
    tx.commit().await?;
    Ok(app)
}

/// Brings the app `default` in line with the environment, which may have changed since the last start.
pub async fn ensure_default(
    conn: &mut Conn,
    vault: &Vault,
    wanted: &DefaultApp,
) -> Result<(), AppError> {
    let actor = Actor::service();
    let Some(held) = held_default(conn).await? else {
        let added = add(conn, vault, &actor, DEFAULT, &wanted.app_key, &wanted.app_secret).await;
        return match added {
            // Another replica with the same environment started at the same moment and won.
            Ok(_) | Err(AppError::NameTaken(_)) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let (id, key) = (held.app, held.key.clone());
    let held = held.open(vault)?;
    if held.app_key == wanted.app_key && held.app_secret.same_as(&wanted.app_secret) {
        return Ok(());
    }
    let sealed = seal_secret(vault, id, &key, &wanted.app_secret)?;
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

/// Loads an app's sealed credentials together with the key that opens them.
pub async fn credentials(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<SealedCredentials>> {
    let row = sqlx::query!(
        r#"SELECT a.app_key, a.app_secret AS "app_secret: Sealed<SecretText>",
                k.id AS "key_id: DataKeyId", k.master_key_id AS "master_key_id: MasterKeyId", k.wrapped
         FROM apps a JOIN data_keys k ON k.app_id = a.id AND k.purpose = 'app'
         WHERE a.id = $1"#,
        app.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| SealedCredentials {
        app,
        app_key: row.app_key,
        app_secret: row.app_secret,
        key: WrappedKey::of_app(app, row.key_id, row.master_key_id, row.wrapped),
    }))
}

async fn held_default(conn: &mut Conn) -> sqlx::Result<Option<SealedCredentials>> {
    let row = sqlx::query!(
        r#"SELECT a.id AS "id: AppId", a.app_key, a.app_secret AS "app_secret: Sealed<SecretText>",
                k.id AS "key_id: DataKeyId", k.master_key_id AS "master_key_id: MasterKeyId", k.wrapped
         FROM apps a JOIN data_keys k ON k.app_id = a.id AND k.purpose = 'app'
         WHERE a.name = $1"#,
        DEFAULT,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| SealedCredentials {
        app: row.id,
        app_key: row.app_key,
        app_secret: row.app_secret,
        key: WrappedKey::of_app(row.id, row.key_id, row.master_key_id, row.wrapped),
    }))
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
