//! Reveals a token in one statement, which locks, records and reads.

mod budget;

pub use budget::*;

use std::time::Duration;

use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::sql::{column, output_of};
use crate::database::{BatchQuery, Conn, interval};
use crate::providers::{AccessToken, UserSecret};
use crate::vault::{Binding, Sealed, WrappedKey};

/// How long a reader has the token of an app that rotates after a reveal, unless they say before that they are done.
const READER_LEASE: Duration = Duration::from_mins(5);
/// For how long further readers put the rotation off at most.
const LONGEST_READER_LEASE: Duration = Duration::from_mins(15);

/// The row of a revealed connection, its secrets still sealed.
#[derive(Debug)]
pub struct Revealed {
    pub user: UserId,
    pub client_user_id: String,
    pub login_id: Option<String>,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    pub access_token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_key: WrappedKey,
}

/// Reads an active connection's secrets and records that in the audit trail, in one statement. Until its commit the
/// row is locked against a revocation, and the app against a bulk revocation.
///
/// The output is `None` if the connection does not exist, is not active, is locked, is in the scope of a bulk revocation
/// in force, or has its token replaced at this moment. If the app rotates after a reveal, the statement makes the
/// rotation due.
#[derive(Debug)]
pub struct Reveal {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub reason: String,
}

impl BatchQuery for Reveal {
    const NAME: &'static str = "reveal_token";

    type Output = Option<Revealed>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        let rows = sqlx::query_file!(
            "src/connections/reveal/store/reveal.sql",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            column(inputs, |input| input.reason.as_str()) as Vec<&str>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
            interval(READER_LEASE),
            interval(LONGEST_READER_LEASE),
        )
        .fetch_all(conn)
        .await?;
        let mut revealed: Vec<_> = inputs.iter().map(|_| None).collect();
        for row in rows {
            *output_of(&mut revealed, row.n)? = Some(Revealed {
                user: row.user,
                client_user_id: row.client_user_id,
                login_id: row.login_id,
                dapi_user_id: row.dapi_user_id,
                dapi_token_id: row.dapi_token_id,
                access_token: row.access_token,
                binding: row.binding,
                user_secret: row.user_secret,
                user_key: row.user_key,
            });
        }
        Ok(revealed)
    }
}
