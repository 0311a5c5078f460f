-- name: remove_by_rotated_token
-- Gives a connection that has ended the token that came too late for it, so that its item is removed. The caller holds
-- the lock of its login.
WITH removed AS (
    UPDATE connections c
    SET status = 'revoking', access_token = $3, revocation_binding = $4, rotation = NULL, rotation_until = NULL,
        rotation_epoch = c.rotation_epoch + 1, revocation_kind = coalesce(c.revocation_kind, 'invalidate'),
        revocation_reason = coalesce(c.revocation_reason, $6), revocation_confirmed_at = NULL,
        -- Its attempts begin now, however long ago it was revoked.
        revocation_requested_at = coalesce(c.revocation_requested_at, strongroom_now()),
        revocation_released_at = strongroom_now(), due_at = strongroom_now(), leased_until = NULL
    WHERE c.app_id = $1 AND c.id = $2 AND c.status IN ('invalidated', 'delinked')
      -- It would end with the item.
      AND NOT EXISTS (
          SELECT FROM connections o
          WHERE o.app_id = c.app_id AND o.login_id = c.login_id AND o.id <> c.id
            AND o.status IN ('pending', 'active', 'revoking'))
    RETURNING c.app_id, c.id, c.user_id, c.revocation_kind),
forgotten AS (DELETE FROM token_rotations r USING removed s WHERE r.connection_id = s.id),
events AS (
    SELECT id, record_audit(app_id, $5, 'token.rotated', 'ok', user_id, id, NULL) FROM removed
    UNION ALL
    SELECT id, record_audit(app_id, $5, 'connection.' || revocation_kind, 'revoking', user_id, id, $6) FROM removed)
SELECT count(*) > 0 AS "it!" FROM events
