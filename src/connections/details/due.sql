-- name: find_due_details
-- Finds connections whose details are due. The row comparisons keep the planner off the index that holds the rows of all
-- apps.
WITH RECURSIVE
-- A skip scan: one index probe per app, however many rows each has.
apps AS (
    (SELECT c.app_id FROM connections c
     WHERE c.details_due_at IS NOT NULL ORDER BY c.app_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.app_id FROM connections c
            WHERE c.details_due_at IS NOT NULL AND c.app_id > a.app_id
            ORDER BY c.app_id LIMIT 1)
    FROM apps a WHERE a.app_id IS NOT NULL)
SELECT d.app_id AS "app!: AppId", d.id AS "id!: ConnectionId", d.details_attempts AS "attempts!"
FROM apps a CROSS JOIN LATERAL (
    SELECT n.*, row_number() OVER (ORDER BY n.details_due_at) AS rank
    FROM (SELECT c.app_id, c.id, c.details_attempts, c.details_due_at
          FROM connections c
          WHERE c.details_due_at IS NOT NULL
            AND (c.app_id, c.details_due_at) >= (a.app_id, '-infinity'::timestamptz)
            AND (c.app_id, c.details_due_at) <= (a.app_id, (SELECT strongroom_now()))
            AND c.id <> ALL ($2::uuid[])
          ORDER BY c.app_id, c.details_due_at LIMIT $1) n) d
WHERE a.app_id IS NOT NULL
ORDER BY d.rank, d.details_due_at LIMIT $1
