//! Import keys: made by the target, carried to the source, used once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::MoveError;
use super::folder::sha256;
use crate::common::ids::{ExportId, ImportKeyId};
use crate::database::{self, Conn};
use crate::vault::{AadContext, ImportPrivateKey, PUBLIC_KEY_BYTES, Sealed, Vault, VaultError};

/// How long an import key lives: long enough to move a large app, too short to be forgotten about.
pub const LIFETIME: Duration = Duration::days(7);

/// What the target gives to the source. Nothing of it is secret; that it is the target's, people compare by its fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportKey {
    /// The key's id.
    pub id: ImportKeyId,
    /// The public key of X25519, in base64.
    pub public_key: String,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

impl ImportKey {
    /// Returns the bytes of the public key; `None` if it is none.
    #[must_use]
    pub fn public(&self) -> Option<[u8; PUBLIC_KEY_BYTES]> {
        STANDARD.decode(&self.public_key).ok()?.try_into().ok()
    }

    /// Returns a short text by which people compare the key at both ends: the beginning of the SHA-256 of id and key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = sha256(&format!("{} {}", self.id, self.public_key));
        let groups = digest.as_bytes().chunks(4).take(8);
        groups.map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join("-")
    }
}

fn aad(id: ImportKeyId) -> AadContext {
    AadContext {
        table: "import_keys",
        column: "private_key",
        app: None,
        user: None,
        row: id.uuid(),
    }
}

/// Makes an import key, and forgets those whose time is over.
///
/// # Errors
/// The database's, or if the operating system gives no random numbers.
pub async fn create(conn: &mut Conn, vault: &Vault) -> Result<ImportKey, MoveError> {
    let id = ImportKeyId::new();
    let (public, private) = ImportPrivateKey::generate()?;
    let sealed = Sealed::seal(&private, vault.service_key(), &aad(id))?;
    let expires_at = database::now(conn).await? + LIFETIME;
    let mut tx = conn.begin().await?;
    sqlx::query!(
        "UPDATE import_keys SET private_key = NULL
         WHERE private_key IS NOT NULL AND expires_at <= strongroom_now()"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO import_keys (id, public_key, private_key, expires_at) VALUES ($1, $2, $3, $4)",
        id.uuid(),
        public.as_slice(),
        sealed.as_bytes(),
        expires_at,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(ImportKey { id, public_key: STANDARD.encode(public), expires_at })
}

/// Opens the private half of an import key for an export.
///
/// # Errors
/// [`MoveError::UnknownKey`], [`MoveError::KeyUsed`], [`MoveError::KeyExpired`].
pub(super) async fn open(
    conn: &mut Conn,
    vault: &Vault,
    id: ImportKeyId,
) -> Result<ImportPrivateKey, MoveError> {
    let row = sqlx::query!(
        r#"SELECT private_key AS "private_key: Sealed<ImportPrivateKey>", export_id AS "export: ExportId",
                expires_at <= strongroom_now() AS "expired!"
         FROM import_keys WHERE id = $1"#,
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?
    .ok_or(MoveError::UnknownKey(id))?;
    match (row.export, row.private_key) {
        (Some(export), _) => Err(MoveError::KeyUsed(id, export)),
        (None, Some(sealed)) if !row.expired => Ok(sealed.open(vault.service_key(), &aad(id))?),
        (None, _) => Err(MoveError::KeyExpired(id)),
    }
}

/// Spends an import key in the transaction of the import: the private half is gone with its commit.
///
/// # Errors
/// [`MoveError::Vault`] if another import was quicker.
pub(super) async fn spend(
    tx: &mut Conn,
    id: ImportKeyId,
    export: ExportId,
) -> Result<(), MoveError> {
    let done = sqlx::query!(
        "UPDATE import_keys SET private_key = NULL, export_id = $2
         WHERE id = $1 AND export_id IS NULL AND private_key IS NOT NULL",
        id.uuid(),
        export.uuid(),
    )
    .execute(tx)
    .await?;
    match done.rows_affected() {
        1 => Ok(()),
        _ => Err(MoveError::Vault(VaultError::DoesNotOpen)),
    }
}
