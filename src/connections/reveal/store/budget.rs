//! The table `reveal_budgets`.

use crate::database::Conn;

/// Takes up to `portion` readings from what is left of a client's budget for this minute; returns how
/// many there were and in how many seconds the minute ends.
pub async fn take_portion(
    conn: &mut Conn,
    client: &str,
    portion: i32,
    budget: i32,
) -> sqlx::Result<(i32, f64)> {
    let row = sqlx::query!(
        r#"INSERT INTO reveal_budgets AS b (client_id, since, taken, portion)
         VALUES ($1, strongroom_now(), least($2::int, $3::int), least($2, $3))
         ON CONFLICT (client_id) DO UPDATE SET (since, taken, portion) = (
            SELECT b.since, b.taken + more, more
            FROM greatest(least($2, $3 - b.taken), 0) AS more
            WHERE b.since > excluded.since - interval '1 minute'
            UNION ALL
            SELECT excluded.since, excluded.taken, excluded.portion
            WHERE b.since <= excluded.since - interval '1 minute')
         RETURNING portion, extract(epoch FROM
            since + interval '1 minute' - strongroom_now())::float8 AS "left!""#,
        client,
        portion,
        budget,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.portion, row.left))
}

/// Forgets budgets of minutes that are over.
pub async fn delete_spent_budgets(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM reveal_budgets WHERE since < strongroom_now() - interval '1 hour'"
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
