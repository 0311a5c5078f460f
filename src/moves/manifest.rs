//! The manifest of an export: what its files are, signed by the source.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folder::Written;
use crate::audit::Head;
use crate::common::ids::{AppId, ExportId, ImportKeyId};
use crate::vault::Transfer;

/// The `typ` of a manifest's JWS (RFC 7515 §4.1.9). No other token of this service has it.
pub const TYP: &str = "strongroom-app-export+jwt";
/// The version of the folder's format.
pub(super) const VERSION: u32 = 1;

/// The claims that a manifest's signature covers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The source, by its public URL.
    pub iss: String,
    /// The app.
    pub sub: AppId,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// The version of the format.
    pub version: u32,
    /// The export.
    pub export: ExportId,
    /// The import key that the data keys are sealed to.
    pub import_key: ImportKeyId,
    /// The app's name at the source.
    pub app_name: String,
    /// A digest of the source's migrations.
    pub schema: String,
    /// The last link of the trail.
    pub head: Head,
    /// The files, in the order in which they are read.
    pub files: Vec<Written>,
    /// What the import gives back, sealed to the import key; base64.
    pub receipt: String,
    /// The signed statements of the archived months of the trail.
    pub archives: Vec<String>,
    /// The public keys that verify those, and whatever else the source has signed about the app (RFC 7517).
    pub keys: Vec<Value>,
}

impl Manifest {
    /// Returns between whom the keys travel.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        Transfer { export: self.export, import_key: self.import_key }
    }

    /// Returns what is known of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Written> {
        self.files.iter().find(|file| file.name == name)
    }
}
