//! The receipt of an export: a random text that travels sealed to the import key, and ends the app at the source. Derived from no
//! key: the keys of hashes go with every app that leaves, and whoever has them must not compute the receipts of other exports.

use super::MoveError;
use crate::common::ids::{AppId, ExportId};
use crate::common::secret::SecretText;
use crate::database::Conn;
use crate::vault::{AadContext, Sealed, Vault, random_token};

fn aad(app: AppId, export: ExportId) -> AadContext {
    AadContext {
        table: "app_fences",
        column: "receipt",
        app: Some(app),
        user: None,
        row: export.uuid(),
    }
}

/// Draws the receipt of a new export, sealed under the service's key. It stays the same however often the folder is written.
pub(super) fn draw(
    vault: &Vault,
    app: AppId,
    export: ExportId,
) -> Result<Sealed<SecretText>, MoveError> {
    let receipt = random_token("receipt_")?;
    Ok(Sealed::seal(&receipt, vault.service_key(), &aad(app, export))?)
}

/// Returns the receipt of an export that is under way.
///
/// # Errors
/// [`MoveError::FenceLost`] if it is not any more.
pub(super) async fn of(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    export: ExportId,
) -> Result<SecretText, MoveError> {
    let sealed = sqlx::query_scalar!(
        r#"SELECT receipt AS "receipt!: Sealed<SecretText>" FROM app_fences
         WHERE app_id = $1 AND export_id = $2 AND receipt IS NOT NULL"#,
        app.uuid(),
        export.uuid(),
    )
    .fetch_optional(conn)
    .await?
    .ok_or(MoveError::FenceLost)?;
    Ok(sealed.open(vault.service_key(), &aad(app, export))?)
}
