//! The table `replicas`: which processes there are, written whenever one is asked whether it is ready.

use crate::base::ids::ReplicaId;
use crate::database::Pool;

/// Commits a row that says that this replica is there: whether that works is what readiness is.
pub(super) async fn note_replica(pool: &Pool, replica: ReplicaId) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query!(
        "INSERT INTO replicas (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = strongroom_now()",
        replica.uuid(),
    )
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Whether the database answers at all.
pub(super) async fn answers(pool: &Pool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query!("SELECT 1 AS one").fetch_one(&mut conn).await?;
    Ok(())
}

/// Forgets this replica, and others that were not heard of for a day.
pub(super) async fn delete_replica(pool: &Pool, replica: ReplicaId) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query!(
        "DELETE FROM replicas WHERE id = $1 OR seen_at < (SELECT strongroom_now()) - interval '1 day'",
        replica.uuid(),
    )
    .execute(&mut conn)
    .await?;
    Ok(())
}
