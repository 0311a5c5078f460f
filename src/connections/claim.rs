//! Claiming due rows of `connections`: the table is its own queue, ordered by `due_at`.
//!
//! A claim takes a lease under a new epoch, commits, and only then is Dapi called. The epoch fences a late outcome:
//! it is recorded only if the row still has it. A lease that ran out without an outcome belonged to a replica that
//! crashed: its call may have reached Dapi.

use std::time::Duration;

use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::connections::sql::WAIT_FOR_DELINKING;
use crate::database::{Conn, interval};
use crate::providers::{AccessCode, AccessToken, Provider, UserSecret};
use crate::vault::{Binding, Sealed, WrappedKey};

/// A connection under a lease, with the sealed secrets that a call to Dapi needs.
#[derive(Debug)]
pub struct Claimed<T> {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    /// `None` if the exchange is to bring it.
    pub login_id: Option<String>,
    pub epoch: i32,
    /// The access code or the access token.
    pub secret: Sealed<T>,
    /// The value that the token is bound to; `None` if an earlier release sealed it.
    pub binding: Option<Binding>,
    /// `None` if the connection came through Dapi's own wire and no call has brought it yet.
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
}

/// Builds a [`Claimed`] from a row of one of the queries below.
macro_rules! claimed {
    ($row:ident) => {
        Claimed {
            app: $row.app_id,
            id: $row.id,
            user: $row.user_id,
            login_id: $row.login_id,
            epoch: $row.lease_epoch,
            secret: $row.secret,
            binding: $row.binding,
            user_secret: $row.user_secret,
            user_key: $row.user_key,
            credentials: $row.credentials,
        }
    };
}

/// Claims those of these rows of the app whose exchange is due, and postpones those that wait for the delinking of an
/// older link of their bank login. Leaves out codes whose earlier attempt went unanswered, except those of the
/// `probing` providers: the code may have been consumed.
pub async fn claim_exchanges(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: impl Fn(Provider) -> Duration,
    probing: &[String],
) -> sqlx::Result<Vec<Claimed<AccessCode>>> {
    let rows = sqlx::query_file!(
        "src/connections/claim/exchanges.sql",
        app.uuid(),
        ids,
        interval(lease(Provider::Dapi)),
        probing,
        interval(WAIT_FOR_DELINKING),
        interval(lease(Provider::Plaid)),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| claimed!(row));
    Ok(claimed.collect())
}

/// A claimed token whose delinking is due, or whose revocation ends without a call.
#[derive(Debug)]
pub struct ClaimedDelink {
    pub claimed: Claimed<AccessToken>,
    /// The token lease that the delinking has acquired.
    pub token_lease: TokenLeaseId,
    /// The token and all that is sent with it are known to be right.
    pub proven: bool,
    /// Attempts, this one included.
    pub attempts: i32,
    /// The time for attempts is over, or its bulk revocation was cancelled: it ends unconfirmed, without a call.
    pub given_up: bool,
    /// Another connection of the same bank login is active: delinking this one could cut that one off.
    pub login_in_use: bool,
}

/// Interval at which a delinking tries again for a token that is under a call's lease.
const LEASE_RETRY: Duration = Duration::from_millis(500);

/// Claims those of these rows of the app whose delinking is due, and acquires their token leases. Postpones a token that
/// is under a call's lease, because the call runs to its end, and one whose user secret has not come yet, without which
/// Dapi delinks nothing: the call that brings the secret makes the row due again, and otherwise it is due when its
/// time for attempts is over.
///
/// One statement, so that every due row is either claimed or postponed, except tokens of a paused bulk revocation, which
/// [`hold_paused`](crate::connections::bulk_revocation::store::hold_paused) holds again.
///
/// Lock order: connections, token leases.
pub async fn claim_delinks(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: impl Fn(Provider) -> Duration,
    give_up_after: Duration,
) -> sqlx::Result<Vec<ClaimedDelink>> {
    let rows = sqlx::query_file!(
        "src/connections/claim/delinks.sql",
        app.uuid(),
        ids,
        interval(lease(Provider::Dapi)),
        interval(give_up_after),
        interval(LEASE_RETRY),
        interval(lease(Provider::Plaid)),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| ClaimedDelink {
        token_lease: row.lease_id,
        proven: row.proven,
        attempts: row.revocation_attempts,
        given_up: row.given_up,
        login_in_use: row.login_in_use,
        claimed: claimed!(row),
    });
    Ok(claimed.collect())
}
