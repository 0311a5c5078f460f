//! Rows of the trail, and the hash chain over them.
//!
//! A link is SHA-256 over one row, its sequence number and the previous link, so it can be checked without
//! a key. Only a checkpoint kept elsewhere reveals a chain that was rewritten as a whole.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::common::ids::{AppId, AuditEventId, ConnectionId, SessionId, UserId};

/// The version of the encoding that new links hash.
pub const LINK_VERSION: i16 = 1;
/// The domain separator at the head of every link's input: no other hash of ours can pass for a link.
const DOMAIN: &[u8] = b"strongroom audit link";

/// A row of the audit trail.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// The row's id.
    pub id: AuditEventId,
    /// When, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What was done.
    #[schema(example = "token.revealed")]
    pub action: String,
    /// How it ended: `ok`, `failed`, or the connection's status.
    #[schema(example = "ok")]
    pub outcome: String,
    /// Who: `client`, `session` (a browser), `operator: NAME` (at the command line or in the console), `operator` (a
    /// command that names none) or `service`.
    #[schema(example = "client")]
    pub actor: String,
    /// The client, if the actor is one.
    #[serde(rename = "clientID")]
    #[schema(example = "payroll7Qm2Xv9")]
    pub client_id: Option<String>,
    /// The connect session, if the actor is one.
    #[serde(rename = "sessionID")]
    pub session_id: Option<SessionId>,
    /// The scope that let the client do it.
    #[schema(example = "tokens:read")]
    pub scope: Option<String>,
    /// The address of the caller.
    #[schema(example = "192.0.2.7")]
    pub ip: Option<String>,
    /// The request, as its answer's `X-Request-ID` and the log have it.
    #[serde(rename = "requestID")]
    pub request_id: Option<Uuid>,
    /// The user that it concerns, by the random id that erasure leaves.
    pub user: Option<UserId>,
    /// The connection that it concerns.
    pub connection: Option<ConnectionId>,
    /// The caller's reason, or a detail of the action.
    #[schema(example = "nightly balance run")]
    pub reason: Option<String>,
    /// Its position in the app's chain; `null` for about a second, until it is linked.
    #[schema(minimum = 1, example = 1042)]
    pub seq: Option<i64>,
    /// The hash of its link, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: Option<String>,
}

/// The hash of a link; in JSON in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkHash([u8; 32]);

impl From<LinkHash> for String {
    fn from(hash: LinkHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for LinkHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| "not a hash in hexadecimal")?;
        Ok(Self(bytes))
    }
}

impl LinkHash {
    /// What the first link of a chain follows: 32 zero bytes.
    pub const NOTHING: Self = Self([0; 32]);

    /// Reads a hash from the database; returns `None` if it is not 32 bytes long.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes for the database.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for LinkHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A link by its position and hash, the last of an app's chain above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its position, which is the number of links up to it.
    pub seq: i64,
    /// Its hash.
    pub hash: LinkHash,
}

impl Head {
    /// The head of a chain without links.
    pub const EMPTY: Self = Self { seq: 0, hash: LinkHash::NOTHING };

    /// Returns the head after one more row is linked.
    #[must_use]
    pub fn followed_by(self, app: AppId, event: &AuditEvent) -> Self {
        let seq = self.seq + 1;
        Self { seq, hash: link(app, seq, self.hash, event) }
    }
}

/// Hashes the link at `seq` (version 1): SHA-256 over fields, each preceded by its length in four bytes,
/// big-endian. An absent field has the length 2³²−1 and no bytes. Numbers are eight bytes, big-endian;
/// times are microseconds since 1970.
fn link(app: AppId, seq: i64, before: LinkHash, event: &AuditEvent) -> LinkHash {
    let mut input = digest::Context::new(&digest::SHA256);
    let mut field = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(u32::MAX, |bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        input.update(&length.to_be_bytes());
        input.update(bytes.unwrap_or_default());
    };
    let micros = i64::try_from(event.at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    field(Some(DOMAIN));
    field(Some(&LINK_VERSION.to_be_bytes()));
    field(Some(app.uuid().as_bytes()));
    field(Some(&seq.to_be_bytes()));
    field(Some(before.as_bytes()));
    field(Some(event.id.uuid().as_bytes()));
    field(Some(&micros.to_be_bytes()));
    field(Some(event.action.as_bytes()));
    field(Some(event.outcome.as_bytes()));
    field(Some(event.actor.as_bytes()));
    field(event.client_id.as_deref().map(str::as_bytes));
    field(event.session_id.map(SessionId::uuid).as_ref().map(|id| id.as_bytes().as_slice()));
    field(event.scope.as_deref().map(str::as_bytes));
    field(event.ip.as_deref().map(str::as_bytes));
    field(event.request_id.as_ref().map(|id| id.as_bytes().as_slice()));
    field(event.user.map(UserId::uuid).as_ref().map(|id| id.as_bytes().as_slice()));
    field(event.connection.map(ConnectionId::uuid).as_ref().map(|id| id.as_bytes().as_slice()));
    field(event.reason.as_deref().map(str::as_bytes));
    LinkHash::from_bytes(input.finish().as_ref()).unwrap_or(LinkHash::NOTHING)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            id: Uuid::from_u128(1).into(),
            at: datetime!(2026-11-21 15:20:00.000001 UTC),
            action: "token.revealed".to_owned(),
            outcome: "ok".to_owned(),
            actor: "client".to_owned(),
            client_id: Some("payroll".to_owned()),
            session_id: None,
            scope: Some("tokens:read".to_owned()),
            ip: Some("192.0.2.7".to_owned()),
            request_id: Some(Uuid::from_u128(2)),
            user: Some(Uuid::from_u128(3).into()),
            connection: Some(Uuid::from_u128(4).into()),
            reason: Some("payroll run".to_owned()),
            seq: None,
            hash: None,
        }
    }

    fn hash_of(event: &AuditEvent) -> LinkHash {
        Head::EMPTY.followed_by(Uuid::from_u128(9).into(), event).hash
    }

    #[test]
    fn a_link_depends_on_every_column() {
        let changes: [fn(&mut AuditEvent); 13] = [
            |e| e.id = Uuid::from_u128(99).into(),
            |e| e.at += time::Duration::microseconds(1),
            |e| e.action.push('x'),
            |e| e.outcome.push('x'),
            |e| e.actor.push('x'),
            |e| e.client_id = None,
            |e| e.session_id = Some(Uuid::nil().into()),
            |e| e.scope = None,
            |e| e.ip = Some(String::new()),
            |e| e.request_id = None,
            |e| e.user = None,
            |e| e.connection = Some(Uuid::from_u128(3).into()),
            |e| e.reason = Some("payroll rum".to_owned()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = event();
            change(&mut other);
            assert_ne!(hash_of(&other), hash_of(&event()), "column {index}");
        }
    }

    #[test]
    fn a_link_depends_on_the_app_the_place_and_what_came_before() {
        let (app, other) = (Uuid::from_u128(9).into(), Uuid::from_u128(8).into());
        let first = Head::EMPTY.followed_by(app, &event());
        assert_ne!(first.hash, Head::EMPTY.followed_by(other, &event()).hash);
        assert_ne!(first.hash, Head { seq: 1, ..Head::EMPTY }.followed_by(app, &event()).hash);
        assert_ne!(first.hash, Head { seq: 0, ..first }.followed_by(app, &event()).hash);
    }

    #[test]
    fn what_is_absent_is_not_what_is_empty_and_fields_do_not_run_together() {
        let with = |ip: Option<&str>, scope: Option<&str>| AuditEvent {
            ip: ip.map(str::to_owned),
            scope: scope.map(str::to_owned),
            ..event()
        };
        assert_ne!(hash_of(&with(None, None)), hash_of(&with(Some(""), None)));
        assert_ne!(hash_of(&with(Some("ab"), Some("c"))), hash_of(&with(Some("b"), Some("ca"))));
    }

    /// The encoding never changes for links that exist. The expected value was computed independently of this
    /// code, from the description above.
    #[test]
    fn the_encoding_is_the_one_that_was_written_down() {
        assert_eq!(
            hash_of(&event()).to_string(),
            "698775c89f3eb6840e489ccb6084a013dce513c4e40824c75a93c4f6633b317c"
        );
    }
}
