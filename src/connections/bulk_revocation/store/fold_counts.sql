-- name: fold_bulk_revocation_counts
WITH
-- By ctid, because DELETE has no LIMIT; rows are never updated. SKIP LOCKED: two replicas take different rows.
taken AS (
    DELETE FROM bulk_revocation_count_changes
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM bulk_revocation_count_changes LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING bulk_revocation_id, was, progress),
summed AS MATERIALIZED (
    SELECT c.bulk_revocation_id, k.progress, sum(k.n) AS n
    FROM taken c CROSS JOIN LATERAL bulk_revocation_count_change(c.was, c.progress) k
    GROUP BY c.bulk_revocation_id, k.progress HAVING sum(k.n) <> 0),
-- In the order of the key, so that two replicas that add to the same counts cannot deadlock. A finished one has its counts on
-- its row: what an erasure deletes of it later changes nothing.
folded AS (
    INSERT INTO bulk_revocation_counts AS k (bulk_revocation_id, progress, n)
    SELECT s.bulk_revocation_id, s.progress, s.n
    FROM summed s JOIN bulk_revocations o ON o.id = s.bulk_revocation_id AND o.finished_at IS NULL
    ORDER BY s.bulk_revocation_id, s.progress
    ON CONFLICT (bulk_revocation_id, progress) DO UPDATE SET n = k.n + excluded.n)
SELECT count(*) AS "taken!" FROM taken
