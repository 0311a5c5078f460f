-- name: store_token
-- Stores the token of a connection that does not become active yet.
WITH changed AS (
    UPDATE connections c
    SET access_token = $3, code = NULL,
        dapi_token_id = coalesce($4, dapi_token_id), dapi_user_id = coalesce($5, dapi_user_id),
        leased_until = NULL, settled_epoch = $7, login_id = coalesce($9, login_id),
        due_at = CASE WHEN status = 'revoking' AND EXISTS (
                          SELECT FROM bulk_revocations r
                          WHERE r.id = c.bulk_revocation_id AND r.state = 'paused')
                        AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
                        AND NOT EXISTS (
                            SELECT FROM connections w
                            WHERE w.app_id = c.app_id AND w.login_id = coalesce($9, c.login_id)
                              AND w.user_id = c.user_id AND w.status = 'pending')
                      THEN NULL ELSE strongroom_now() + $6::interval END
    WHERE app_id = $1 AND id = $2
    RETURNING app_id, id, user_id, status)
SELECT record_audit(app_id, $8, 'connection.exchanged', status, user_id, id, NULL) FROM changed
