//! The table `replicas`: the running processes. A replica writes its row at each check of its
//! readiness.

use crate::common::RELEASE;
use crate::common::ids::ReplicaId;
use crate::database::Pool;

/// Commits this replica's row: the service is ready if that succeeds, so this checks a real write.
pub(super) async fn record_replica(pool: &Pool, replica: ReplicaId) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query!(
        "INSERT INTO replicas (id, release) VALUES ($1, $2)
         ON CONFLICT (id) DO UPDATE SET seen_at = strongroom_now(), release = excluded.release",
        replica.uuid(),
        RELEASE,
    )
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Checks that the database responds.
pub(super) async fn ping(pool: &Pool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query!("SELECT 1 AS one").fetch_one(&mut conn).await?;
    Ok(())
}

/// Deletes this replica's row, and those that are older than a day.
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
