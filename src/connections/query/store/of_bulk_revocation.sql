-- name: search_connections_of_bulk_revocation
SELECT c.id AS "id!: ConnectionId", c.user_id AS "user!: UserId", c.created_by,
       c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts AS "exchange_attempts!"
-- Each of them in its own range of the index, the newest of all ranges first.
FROM unnest($3::text[]) p (progress) CROSS JOIN LATERAL (
    SELECT c.id, c.user_id, c.created_by, c.bulk_revocation_id, c.exchange_attempts FROM connections c
    -- One index, whatever the statistics say: `coalesce` hides the columns from every other.
    WHERE (list_key(c.bulk_revocation_id, revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)), c.id)
              < (list_key($2, p.progress), $4::uuid)
      AND (list_key(c.bulk_revocation_id, revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)), c.id)
              >= (list_key($2, p.progress), $6::uuid)
      AND c.bulk_revocation_id IS NOT NULL
      AND coalesce(c.app_id = $1 AND c.bulk_revocation_id = $2
          AND revocation_progress(c.status, c.revocation_confirmed_at, c.due_at) = p.progress, false)
    ORDER BY list_key(c.bulk_revocation_id, revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)) DESC,
             c.id DESC
    LIMIT $5) c
ORDER BY c.id DESC LIMIT $5
