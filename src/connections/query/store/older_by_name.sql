-- name: search_older_by_name
-- Finds connections beyond the end of a scan by an id or by the beginning of their user's name.
WITH named AS (
    SELECT c.id FROM connections c WHERE c.id = $3 AND c.app_id = $1
    UNION
    SELECT c.id FROM connections c WHERE c.login_id = $2 AND c.app_id = $1
    UNION
    SELECT c.id FROM connections c WHERE c.user_id = $4
    UNION
    SELECT c.id FROM (
        SELECT u.id FROM users u
        WHERE u.app_id = $1 AND u.client_user_id ~>=~ $2
          AND u.client_user_id ~<~ ($2 || chr(1114111))
        ORDER BY u.client_user_id USING ~<~ LIMIT $9) u
    JOIN connections c ON c.user_id = u.id)
SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
       c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts
FROM connections c
-- As an array, and with `coalesce` around the range, so that the planner cannot read all rows in the order of the list.
WHERE c.id = ANY (ARRAY(SELECT id FROM named)) AND coalesce(c.app_id = $1 AND c.id < $5, false)
  AND ($6::timestamptz IS NULL OR c.created_at < $6)
  AND ($7::timestamptz IS NULL OR c.created_at >= $7)
  AND ($8::text IS NULL OR c.status = $8)
ORDER BY c.id DESC LIMIT $9
