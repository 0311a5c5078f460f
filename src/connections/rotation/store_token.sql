-- name: store_rotated_token
-- Puts a new token in the place of the one that the rotation was made with, wherever that is now.
WITH
-- A delinking that waits becomes due: it is made with the new token.
replaced AS (
    UPDATE connections c
    SET access_token = $4, rotation = NULL, rotation_until = NULL,
        due_at = CASE WHEN c.status = 'revoking' AND c.leased_until IS NULL AND c.due_at IS NOT NULL
                      THEN strongroom_now() ELSE c.due_at END
    WHERE c.app_id = $1 AND c.id = $2 AND c.access_token = $3
    RETURNING c.app_id, c.id, c.user_id),
-- Superseded meanwhile: the token that is kept for a restoration is the old one.
kept AS (
    UPDATE superseded_tokens k SET access_token = $4
    WHERE k.app_id = $1 AND k.connection_id = $2 AND k.access_token = $3
    RETURNING k.connection_id),
-- The rotation of the connection that it would be restored to is over as well.
restorable AS (
    UPDATE connections c SET rotation = NULL, rotation_until = NULL
    FROM kept WHERE c.app_id = $1 AND c.id = kept.connection_id
    RETURNING c.app_id, c.id, c.user_id),
stored AS (SELECT * FROM replaced UNION ALL SELECT * FROM restorable),
forgotten AS (DELETE FROM token_rotations r USING stored s WHERE r.connection_id = s.id),
freed AS (DELETE FROM token_leases WHERE connection_id = $2 AND lease_id = $5),
audited AS (
    SELECT id, record_audit(app_id, $6, 'token.rotated', 'ok', user_id, id, NULL) FROM stored)
-- `true` as well if an earlier commit, whose answer was lost, has stored it.
SELECT coalesce((SELECT true FROM audited), EXISTS (
    SELECT FROM connections c WHERE c.app_id = $1 AND c.id = $2 AND c.access_token = $4)) AS "it!"
