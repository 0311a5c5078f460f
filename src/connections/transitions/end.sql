-- name: end_connection
-- Ends a connection, destroys its secrets, and wakes the links that wait for it.
WITH changed AS (
    UPDATE connections
    SET status = $3, code = NULL, access_token = NULL, user_secret = NULL,
        due_at = NULL, leased_until = NULL,
        failure_type = $4, failure_detail = $5, replaced_by = coalesce($6, replaced_by),
        revocation_confirmed_at =
            CASE WHEN $7 AND revocation_kind IS NOT NULL THEN strongroom_now() END,
        revocation_last_error = coalesce($8, revocation_last_error)
    WHERE app_id = $1 AND id = $2
    RETURNING app_id, id, user_id, login_id),
woken AS (
    -- Locks rows of the same login only, which the caller has locked already.
    UPDATE connections w SET due_at = strongroom_now()
    FROM changed
    WHERE w.app_id = changed.app_id AND w.login_id = changed.login_id
      AND w.id <> changed.id AND w.status = 'pending' AND w.leased_until IS NULL
      AND w.due_at > strongroom_now())
SELECT record_audit(app_id, $9, 'connection.' || $3, $3, user_id, id, $10) FROM changed
