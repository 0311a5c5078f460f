//! The table `used_jtis`: what counts once, at any replica.

use std::collections::HashSet;
use std::time::Duration;

use crate::database::{BatchQuery, Conn};

/// One use of an assertion or a proof. Its output says whether it is the first.
#[derive(Debug)]
pub struct UsedJti {
    /// A hash of whose it is, and of its `jti`.
    pub hash: [u8; 32],
    /// How long it is remembered.
    pub kept_for: Duration,
}

impl BatchQuery for UsedJti {
    const NAME: &'static str = "use_jtis";
    type Output = bool;

    async fn run(conn: &mut Conn, uses: &[Self]) -> sqlx::Result<Vec<bool>> {
        let hashes: Vec<_> = uses.iter().map(|used| used.hash.to_vec()).collect();
        let kept: Vec<_> = uses.iter().map(|used| used.kept_for.as_secs_f64()).collect();
        let inserted = sqlx::query_scalar!(
            "-- name: use_jtis
             INSERT INTO used_jtis (hash, expires_at)
             SELECT hash, strongroom_now() + make_interval(secs => kept)
             FROM unnest($1::bytea[], $2::float8[]) AS given (hash, kept)
             -- In one order, so that two statements do not wait for each other.
             ORDER BY hash
             ON CONFLICT (hash) DO NOTHING
             RETURNING hash",
            &hashes,
            &kept,
        )
        .fetch_all(conn)
        .await?;
        let mut first: HashSet<_> = inserted.into_iter().collect();
        // Of two uses in one statement the first alone counts.
        Ok(hashes.iter().map(|hash| first.remove(hash)).collect())
    }
}

/// Deletes uses of what is not accepted any more. Returns how many.
pub async fn delete_ended_jtis(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!("DELETE FROM used_jtis WHERE expires_at < (SELECT strongroom_now())")
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}
