-- name: place_rotated_token
-- Puts a new token in the place of the one that it replaces, on a connection that holds that.
WITH replaced AS (
    UPDATE connections c
    SET access_token = $3, rotation = NULL, rotation_until = NULL,
        -- What a call with the old token finds does not count any more.
        rotation_epoch = c.rotation_epoch + 1,
        -- A delinking that waits becomes due: it is made with the new token.
        due_at = CASE WHEN c.status = 'revoking' AND c.leased_until IS NULL AND c.due_at IS NOT NULL
                      THEN strongroom_now() ELSE c.due_at END
    WHERE c.app_id = $1 AND c.id = $2
    RETURNING c.app_id, c.id, c.user_id),
forgotten AS (DELETE FROM token_rotations r USING replaced s WHERE r.connection_id = s.id)
SELECT record_audit(app_id, $4, 'token.rotated', 'ok', user_id, id, NULL) FROM replaced
