-- name: give_back_rotated_token
-- Makes a connection active again that ended because its new token was thought to be lost. The caller holds the lock of
-- its login, of which no other connection is in use, and the app's arrival lock.
WITH returned AS (
    UPDATE connections c
    SET status = 'active', access_token = $3, rotation = NULL, rotation_until = NULL,
        rotation_epoch = c.rotation_epoch + 1, revocation_kind = NULL, revocation_reason = NULL,
        revocation_requested_at = NULL, revocation_confirmed_at = NULL, revocation_last_error = NULL,
        details_due_at = strongroom_now()
    WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'invalidated'
      -- A revocation deletes the row.
      AND EXISTS (SELECT FROM token_rotations r WHERE r.connection_id = c.id AND r.lost)
      AND NOT EXISTS (
          SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal))
      AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
      -- A newer link of the login decides, whatever has become of it.
      AND NOT EXISTS (
          SELECT FROM connections n
          WHERE n.app_id = c.app_id AND n.login_id = c.login_id AND (n.created_at, n.id) > (c.created_at, c.id)
            AND n.status NOT IN ('rejected', 'expired', 'orphaned'))
    RETURNING c.app_id, c.id, c.user_id),
bound AS (
    -- The trigger deleted the binding when the connection ended; the token opens only with it.
    INSERT INTO token_bindings (connection_id, binding) SELECT id, $4 FROM returned WHERE $4::bytea IS NOT NULL
    ON CONFLICT (connection_id) DO UPDATE SET binding = excluded.binding),
forgotten AS (DELETE FROM token_rotations r USING returned s WHERE r.connection_id = s.id),
events AS (
    SELECT id, record_audit(app_id, $5, 'token.rotated', 'ok', user_id, id, NULL) FROM returned
    UNION ALL
    SELECT id, record_audit(app_id, $5, 'connection.restored', 'active', user_id, id, $6) FROM returned)
SELECT count(*) > 0 AS "it!" FROM events
