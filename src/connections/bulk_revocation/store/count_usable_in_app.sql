-- name: count_usable_in_app
-- Counts the usable connections of an app that a filter without lists matches, and names the newest.
WITH
-- Whether any is revoked already though its row does not say so: as a rule none, and no row is asked.
in_force AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM bulk_revocations o WHERE o.app_id = $1 AND o.marked_at IS NULL) AS it),
counted AS MATERIALIZED (
    SELECT CASE
        -- The counts answer what asks for all, however many there are.
        WHEN $2::timestamptz IS NULL AND $3::timestamptz IS NULL AND $4::text IS NULL AND NOT (SELECT it FROM in_force)
        THEN (SELECT coalesce(sum(k.n), 0)::bigint FROM connection_counts k
              WHERE k.app_id = $1 AND k.span = 'all' AND k.status = 'active')
             + (SELECT count(*) FILTER (WHERE k.status = 'active') - count(*) FILTER (WHERE k.was = 'active')
                FROM connection_count_changes k WHERE k.app_id = $1)
             + (SELECT count(*) FROM connections c
                WHERE list_key(c.app_id, c.status) = list_key($1, 'pending')
                  AND coalesce(c.app_id = $1 AND c.status = 'pending', false))
        ELSE (SELECT count(*) FROM connections c
              -- One index, whatever the statistics say: `coalesce` hides the columns from every other.
              WHERE list_key(c.app_id, c.status) = ANY (ARRAY[list_key($1, 'pending'), list_key($1, 'active')])
                AND coalesce(c.app_id = $1 AND c.status IN ('pending', 'active'), false)
                AND ($2 IS NULL OR c.created_at < $2) AND ($3 IS NULL OR c.created_at >= $3)
                AND ($4 IS NULL OR c.created_by = $4)
                AND NOT ((SELECT it FROM in_force) AND EXISTS (
                    SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                                    c.ordinal) o WHERE o.marked_at IS NULL)))
        END AS n)
SELECT (SELECT n FROM counted) AS "count!",
       CASE WHEN (SELECT n FROM counted) > 0 THEN ARRAY(SELECT n.id FROM unnest(ARRAY['pending', 'active']) s (status) CROSS JOIN LATERAL (
           SELECT c.id FROM connections c
           WHERE (list_key(c.app_id, c.status), c.id)
                     >= (list_key($1, s.status), '00000000-0000-0000-0000-000000000000'::uuid)
             AND (list_key(c.app_id, c.status), c.id)
                     <= (list_key($1, s.status), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
             -- One condition of which the planner expects nothing: if it expected few rows to pass, it would read and sort all.
             AND coalesce(c.app_id = $1 AND c.status = s.status
                 AND ($2 IS NULL OR c.created_at < $2) AND ($3 IS NULL OR c.created_at >= $3)
                 AND ($4 IS NULL OR c.created_by = $4)
                 AND NOT ((SELECT it FROM in_force) AND EXISTS (
                     SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                                     c.ordinal) o WHERE o.marked_at IS NULL)), false)
           ORDER BY list_key(c.app_id, c.status) DESC, c.id DESC LIMIT $5::int) n
           ORDER BY n.id DESC LIMIT $5::int) ELSE '{}' END AS "sample!: Vec<Uuid>"
