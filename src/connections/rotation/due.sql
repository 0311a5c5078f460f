-- name: find_due_rotations
-- Finds rotations that are due. The row comparisons keep the planner off the index that holds the rows of all apps.
WITH RECURSIVE
-- A skip scan: one index probe per app, however many rows each has.
apps AS (
    (SELECT r.app_id FROM token_rotations r ORDER BY r.app_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.app_id FROM token_rotations r WHERE r.app_id > a.app_id ORDER BY r.app_id LIMIT 1)
    FROM apps a WHERE a.app_id IS NOT NULL)
SELECT d.app_id AS "app!: AppId", d.connection_id AS "id!: ConnectionId"
FROM apps a CROSS JOIN LATERAL (
    SELECT n.*, row_number() OVER (ORDER BY n.due_at) AS rank
    FROM (SELECT r.app_id, r.connection_id, r.due_at FROM token_rotations r
          WHERE (r.app_id, r.due_at) >= (a.app_id, '-infinity'::timestamptz)
            AND (r.app_id, r.due_at) <= (a.app_id, (SELECT strongroom_now()))
            AND r.connection_id <> ALL ($2::uuid[])
          ORDER BY r.app_id, r.due_at LIMIT $1) n) d
WHERE a.app_id IS NOT NULL
ORDER BY d.rank, d.due_at LIMIT $1
