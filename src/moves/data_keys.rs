//! The data keys of an app on their way: sealed to the import key, one line each.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::MoveError;
use super::folder::{Reader, Writer, Written};
use super::tables::DATA_KEYS;
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::database::{Conn, LongWork};
use crate::vault::{
    self, ImportPrivateKey, KeyOwner, PUBLIC_KEY_BYTES, Transfer, Vault, WrappedKey,
};

/// How many are opened at once: few enough that none waits too long for its turn at a slow key engine.
const AT_ONCE: usize = 100;
/// How many one statement inserts.
const INSERTED_AT_ONCE: usize = 1000;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    id: DataKeyId,
    purpose: String,
    #[serde(rename = "userID")]
    user: Option<UserId>,
    sealed: String,
}

/// Seals the app's data keys, and the keys of its hashes, to the import key.
///
/// No transaction is open: a master key may be elsewhere, and slow. The fence keeps users from coming and going meanwhile; a
/// master key that is exchanged meanwhile changes no data key.
pub(super) async fn write(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    (transfer, to): (&Transfer, &[u8; PUBLIC_KEY_BYTES]),
    folder: &Path,
) -> Result<Written, MoveError> {
    let mut writer = Writer::create(folder, DATA_KEYS)?;
    conn.allow(LongWork::AppMove).await?;
    let mut keys = vault::keys_of_app(conn, app).await?;
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let mut next = Some(String::new());
    while let Some(after) = next {
        let users = vault::keys_of_users(conn, app, &after, limit).await?;
        keys.extend(users.keys);
        let lines = keys.iter().map(|key| line(vault, app, key, (transfer, to)));
        for line in try_join_all(lines).await? {
            let line = serde_json::to_string(&line).map_err(|_| vault::VaultError::DoesNotOpen)?;
            writer.put(&line)?;
        }
        keys.clear();
        next = users.next;
    }
    writer.finish()
}

async fn line(
    vault: &Vault,
    app: AppId,
    key: &WrappedKey,
    (transfer, to): (&Transfer, &[u8; PUBLIC_KEY_BYTES]),
) -> Result<Line, MoveError> {
    if key.other.is_some() {
        return Err(MoveError::Rotating);
    }
    // The service's keys go with each app that leaves, under an id of its own.
    let (id, owner) = match key.owner {
        KeyOwner::CodeHash => (DataKeyId::new(), KeyOwner::AppCodeHash(app)),
        KeyOwner::SecretHash => (DataKeyId::new(), KeyOwner::AppSecretHash(app)),
        owner => (key.id, owner),
    };
    let sealed = vault.seal_for_transfer(key, (id, owner), to, transfer).await?;
    let purpose = owner.purpose().to_owned();
    Ok(Line { id, purpose, user: owner.user(), sealed: STANDARD.encode(sealed) })
}

/// Opens the data keys of a folder and wraps them under the first master key of this deployment. Before the transaction of the
/// import, for the same reason.
pub(super) async fn receive(
    vault: &Vault,
    app: AppId,
    (transfer, private): (&Transfer, &ImportPrivateKey),
    folder: &Path,
    expected: &Written,
) -> Result<Vec<WrappedKey>, MoveError> {
    let mut reader = Reader::open(folder, DATA_KEYS)?;
    let mut received = Vec::new();
    let mut lines = Vec::with_capacity(AT_ONCE);
    loop {
        let next = reader.next_row()?;
        let is_last = next.is_none();
        if let Some(text) = next {
            let line: Line = serde_json::from_str(&text).map_err(|_| reader.tampered())?;
            lines.push(line);
        }
        if lines.len() == AT_ONCE || is_last {
            let opened = lines.iter().map(|line| open(vault, app, line, (transfer, private)));
            received.extend(try_join_all(opened).await?);
            lines.clear();
        }
        if is_last {
            reader.check(expected)?;
            return Ok(received);
        }
    }
}

/// Inserts the keys that were received, a thousand at a time.
pub(super) async fn insert(
    tx: &mut Conn,
    app: AppId,
    keys: &[WrappedKey],
) -> Result<(), MoveError> {
    for some in keys.chunks(INSERTED_AT_ONCE) {
        let inserted = vault::insert_keys(tx, app, some).await;
        let inserted = inserted.map_err(|error| MoveError::taken(DATA_KEYS, error))?;
        if inserted != some.len() as u64 {
            return Err(MoveError::OtherRows(DATA_KEYS));
        }
    }
    Ok(())
}

async fn open(
    vault: &Vault,
    app: AppId,
    line: &Line,
    (transfer, private): (&Transfer, &ImportPrivateKey),
) -> Result<WrappedKey, MoveError> {
    let does_not_open = || MoveError::Vault(vault::VaultError::DoesNotOpen);
    let owner = KeyOwner::of_app(&line.purpose, app, line.user).ok_or_else(does_not_open)?;
    let sealed = STANDARD.decode(&line.sealed).map_err(|_| does_not_open())?;
    Ok(vault.receive(&sealed, (line.id, owner), private, transfer).await?)
}
