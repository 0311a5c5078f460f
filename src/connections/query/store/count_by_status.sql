-- name: count_connections
-- One snapshot and one clock reading for all parts, so that each connection counts once.
WITH t AS MATERIALIZED (SELECT strongroom_now() AS now),
counted AS (
    SELECT k.status, k.span, k.since, k.n FROM connection_counts k
    WHERE k.app_id = $1 AND k.span = 'all'
    UNION ALL
    SELECT k.status, k.span, k.since, k.n FROM connection_counts k
    WHERE k.app_id = $1 AND k.span = 'minute'
    UNION ALL
    SELECT k.status, k.span, k.since, k.n FROM connection_counts k
    WHERE k.app_id = $1 AND k.span = 'hour'
    UNION ALL
    -- Changes of the last seconds.
    SELECT k.status, k.span, k.since, k.n
    FROM connection_count_changes c CROSS JOIN LATERAL count_change(c.created_at, c.was, c.status) k
    WHERE c.app_id = $1
    UNION ALL
    -- Pending ones are few, and not in the counts. The row comparisons leave the planner one index, and `coalesce` keeps it
    -- off others.
    SELECT k.status, k.span, k.since, k.n
    FROM connections c CROSS JOIN LATERAL count_change(c.created_at, NULL, c.status) k
    WHERE (list_key(c.app_id, c.status), c.id)
              >= (list_key($1, 'pending'), '00000000-0000-0000-0000-000000000000'::uuid)
      AND (list_key(c.app_id, c.status), c.id)
              <= (list_key($1, 'pending'), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
      AND coalesce(c.app_id = $1 AND c.status = 'pending', false)),
summed AS (
    SELECT k.status,
           sum(k.n) FILTER (WHERE k.span = 'all') AS total,
           sum(k.n) FILTER (WHERE k.span = 'minute' AND k.since > t.now - interval '1 hour') AS hour,
           sum(k.n) FILTER (WHERE k.span = 'hour' AND k.since > t.now - interval '1 day') AS day,
           sum(k.n) FILTER (WHERE k.span = 'hour' AND k.since > t.now - interval '7 days') AS week,
           sum(k.n) FILTER (WHERE k.span = 'hour' AND k.since > t.now - interval '30 days') AS month
    FROM counted k, t GROUP BY k.status HAVING sum(k.n) FILTER (WHERE k.span = 'all') > 0)
SELECT s.status AS "status!", s.total::bigint AS "total!", coalesce(s.hour, 0)::bigint AS "within_hour!",
       coalesce(s.day, 0)::bigint AS "within_day!", coalesce(s.week, 0)::bigint AS "within_week!",
       coalesce(s.month, 0)::bigint AS "within_month!", o.at AS "oldest?"
FROM summed s CROSS JOIN LATERAL (
    -- Ids are given in the order of arrival, up to the difference of two clocks.
    SELECT min(f.created_at) AS at FROM (
        SELECT c.created_at FROM connections c
        WHERE (list_key(c.app_id, c.status), c.id)
                  >= (list_key($1, s.status), '00000000-0000-0000-0000-000000000000'::uuid)
          AND (list_key(c.app_id, c.status), c.id)
                  <= (list_key($1, s.status), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
          AND coalesce(c.app_id = $1 AND c.status = s.status, false)
        ORDER BY list_key(c.app_id, c.status), c.id LIMIT 20) f) o
ORDER BY s.status
