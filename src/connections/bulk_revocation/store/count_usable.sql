-- name: count_usable
-- Counts the usable connections that a filter with a list matches, and names the newest.
WITH
-- Candidates by the most selective list that is given, one branch per index; `usable` checks the rest.
matching AS (
    SELECT c.id FROM connections c WHERE $2::uuid[] IS NOT NULL AND c.id = ANY ($2)
    UNION ALL
    SELECT c.id FROM connections c
    WHERE $3::text[] IS NOT NULL AND c.login_id = ANY ($3) AND c.app_id = $1
    UNION ALL
    SELECT c.id FROM users u JOIN connections c ON c.user_id = u.id
    WHERE $2::uuid[] IS NULL AND $4::text[] IS NOT NULL
      AND u.app_id = $1 AND u.client_user_id = ANY ($4)),
-- Without those that a bulk revocation in force has already revoked, though their rows do not say so.
usable AS (
    SELECT c.id FROM connections c
    WHERE c.id IN (SELECT id FROM matching) AND c.app_id = $1
      AND c.status IN ('pending', 'active')
      AND ($4::text[] IS NULL OR EXISTS (
          SELECT FROM users u WHERE u.id = c.user_id AND u.client_user_id = ANY ($4)))
      AND ($5::timestamptz IS NULL OR c.created_at < $5)
      AND ($6::timestamptz IS NULL OR c.created_at >= $6)
      AND ($7::text IS NULL OR c.created_by = $7)
      AND NOT EXISTS (
          SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                     c.ordinal) o WHERE o.marked_at IS NULL))
SELECT (SELECT count(*) FROM usable) AS "count!",
       ARRAY(SELECT id FROM usable ORDER BY id DESC LIMIT $8::int) AS "sample!: Vec<Uuid>"
