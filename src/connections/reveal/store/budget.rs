//! The table `reveal_budgets`.

use crate::database::Conn;

/// Takes up to `portion` reveals from what is left of a client's budget for this minute. Returns how many it took, and
/// in how many seconds the minute ends.
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
            -- The minute runs: take what is left of it, at most one portion.
            SELECT b.since, b.taken + more, more
            FROM greatest(least($2, $3 - b.taken), 0) AS more
            WHERE b.since > excluded.since - interval '1 minute'
            UNION ALL
            -- The minute is over: a new one begins with this portion.
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

/// Deletes the budgets of past minutes, with an hour's margin, and returns how many.
pub async fn delete_spent_budgets(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM reveal_budgets WHERE since < strongroom_now() - interval '1 hour'"
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
