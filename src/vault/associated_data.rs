//! Encodes associated data, and draws nonces. Which data bind a ciphertext to its row is in `seal`.

use uuid::Uuid;

use super::VaultError;

pub(super) const NONCE_BYTES: usize = 12;

/// Reads random bytes from the operating system's generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::NoRandomness)?;
    Ok(bytes)
}

/// Associated data: each part preceded by its length, so that no two lists of parts encode alike.
pub(super) struct AssociatedData(Vec<u8>);

impl AssociatedData {
    pub(super) fn new(table: &str, column: &str) -> Self {
        let mut aad = Self(Vec::with_capacity(160));
        aad.part(b"strongroom");
        aad.part(table.as_bytes());
        aad.part(column.as_bytes());
        aad
    }

    pub(super) fn part(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    pub(super) fn id(&mut self, id: Option<Uuid>) {
        match id {
            Some(id) => self.part(id.as_bytes()),
            None => self.part(&[]),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
