//! Why a move stopped.

use std::path::PathBuf;

use super::model::InFlight;
use crate::common::ids::{AppId, ExportId, ImportKeyId};
use crate::vault::VaultError;

/// Why a step of a move was refused or broken off.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// What was in flight did not end in time. The fence was lifted again.
    #[error("the app is not moved, and serves as before: {0}")]
    Busy(InFlight),
    /// Transactions that began before the fence did not end in time. The fence was lifted again.
    #[error(
        "the app is not moved, and serves as before: a transaction of the database that began before the fence has not ended"
    )]
    Stragglers,
    /// The fence was to be lifted, and could not be.
    #[error(
        "the fence stays, and the app serves nowhere: run the export again, or take it back with --abort. It was to be \
         lifted because {cause}; that failed: {lifting}"
    )]
    FenceStays {
        /// Why the export stopped.
        cause: String,
        /// Why the fence could not be lifted.
        lifting: String,
    },
    /// A replica runs another release.
    #[error("a replica runs another release than this command ({own}): {other}")]
    OtherRelease {
        /// This one.
        own: &'static str,
        /// The replica's.
        other: String,
    },
    /// The app is exported for another import key.
    #[error("the app is exported already, for the import key {0}; --abort takes that back")]
    OtherKey(ImportKeyId),
    /// The app has moved.
    #[error(
        "the app has moved to another deployment: its rows stay fenced here, and nothing brings it back to this database"
    )]
    Moved,
    /// The app arrives here.
    #[error("the app is being imported; run the import again to finish it")]
    Arriving,
    /// No export of the app is under way.
    #[error("no export of the app is under way")]
    NotMoving,
    /// The receipt is none of this export.
    #[error("this is not the receipt of the export {0}")]
    WrongReceipt(ExportId),
    /// No complete folder was written yet.
    #[error("the export is not complete; run it again to finish it")]
    NotExported,
    /// Rows wait for their links.
    #[error("rows of the trail wait for their links; is another process linking?")]
    Unlinked,
    /// Rows of the trail went between two tables.
    #[error("a month of the trail was archived meanwhile; run the export again")]
    TrailChanged,
    /// A data key has a second one.
    #[error("a data key rotates; `strongroom keys rotate-data` finishes that")]
    Rotating,
    /// The import key is unknown, or is for another deployment.
    #[error("there is no import key {0} here: the folder is for another deployment")]
    UnknownKey(ImportKeyId),
    /// The import key was used.
    #[error("the import key {0} was used, for the export {1}")]
    KeyUsed(ImportKeyId, ExportId),
    /// The export was imported.
    #[error("the export {export} was imported before; its receipt is {receipt}")]
    Imported {
        /// The export.
        export: ExportId,
        /// What ends the app at the source.
        receipt: String,
    },
    /// The import key's time is over.
    #[error("the import key {0} has expired; make another by `strongroom apps receive`")]
    KeyExpired(ImportKeyId),
    /// An app or something of it is here.
    #[error("the app {0} is here already")]
    AppIsHere(AppId),
    /// Another app has the name.
    #[error("there is an app named `{0}` already; --name gives this one another")]
    NameTaken(String),
    /// A row exists that has the same id: a client's, above all.
    #[error("{table} has a row with the key of one that arrives: {detail}")]
    RowTaken {
        /// The table.
        table: String,
        /// PostgreSQL's words.
        detail: String,
    },
    /// The two deployments have other migrations.
    #[error("the source has other migrations than this database: bring both to the same release")]
    OtherSchema,
    /// A file is not what the manifest says.
    #[error("{0} is not what the manifest says: it was changed or is not complete")]
    Tampered(PathBuf),
    /// A folder holds rows that are not the app's.
    #[error("the rows of {0} are not all of this app")]
    OtherRows(&'static str),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A value is sealed under a key that the folder does not have.
    #[error(
        "a value is sealed under a data key that the folder does not have; take the export back and begin again"
    )]
    NoKeyOfValue,
    /// A row of the trail is of a month that was archived and dropped here.
    #[error(
        "the trail has rows of months that this deployment has archived and dropped: archive those months at the source first"
    )]
    NoMonth,
    /// The fence is not the one that this command has put up: another one has lifted or changed it.
    #[error(
        "the fence of the app was lifted or changed by somebody else; nothing that this command wrote is to be imported"
    )]
    FenceLost,
    /// The chain does not end as the manifest says.
    #[error("the imported chain does not end with the link that the manifest names")]
    OtherHead,
    /// No key signs.
    #[error("no key signs yet; `strongroom serve` makes one")]
    NoKey,
    /// A key does not open or cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl MoveError {
    /// Says which row is here already, if that is why rows could not be inserted.
    pub(super) fn taken(table: &str, error: sqlx::Error) -> Self {
        let detail = match &error {
            sqlx::Error::Database(error) if error.is_unique_violation() => {
                error.message().to_owned()
            }
            _ => return error.into(),
        };
        Self::RowTaken { table: table.to_owned(), detail }
    }

    /// Returns what happened, without what it means for the app.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Busy(in_flight) => in_flight.to_string(),
            Self::Stragglers => {
                "a transaction of the database that began before the fence has not ended".to_owned()
            }
            other => other.to_string(),
        }
    }
}

impl From<sqlx::Error> for MoveError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}
