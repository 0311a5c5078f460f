-- name: fold_connection_counts
WITH t AS MATERIALIZED (SELECT strongroom_now() AS now),
-- By ctid, because DELETE has no LIMIT; rows are never updated. SKIP LOCKED: two replicas take different rows.
taken AS (
    DELETE FROM connection_count_changes
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM connection_count_changes LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING app_id, created_at, was, status),
-- In the order of the key, so that two replicas that add to the same counts cannot deadlock.
folded AS (
    INSERT INTO connection_counts AS k (app_id, span, status, since, n)
    SELECT c.app_id, k.span, k.status, k.since, sum(k.n)
    FROM taken c CROSS JOIN LATERAL count_change(c.created_at, c.was, c.status) k
    WHERE is_count_kept(k.span, k.since, (SELECT now FROM t))
    GROUP BY c.app_id, k.span, k.status, k.since HAVING sum(k.n) <> 0
    ORDER BY c.app_id, k.span, k.status, k.since
    ON CONFLICT (app_id, span, status, since) DO UPDATE SET n = k.n + excluded.n)
SELECT count(*) AS "taken!" FROM taken
