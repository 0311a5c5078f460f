-- name: reveal_token
-- Reads the secrets of active connections, and records that before they leave.
WITH requests AS (
    -- `n` assigns each row to its request.
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::audit_actor[])
        WITH ORDINALITY
        AS i (app_id, id, reason, actor, client_id, session_id, scope, ip, request_id, n)),
app_locks AS MATERIALIZED (
    -- Takes each app's usage lock, shared and in the order of apps, before any row is locked: a bulk
    -- revocation commits before or after this statement, not during it. MATERIALIZED, so that it runs
    -- once per app.
    SELECT a.app_id, begin_use(a.app_id) AS has_bulk_revocation
    FROM (SELECT DISTINCT app_id FROM requests ORDER BY app_id) a),
locked AS MATERIALIZED (
    -- FOR SHARE, so that reveals and calls run side by side but no revocation commits meanwhile. A row
    -- that is locked is skipped and retried by the caller, so that the batch does not wait for it.
    -- `is_bulk_revoked` is volatile: it reads after the lock, not as of the statement's snapshot.
    SELECT r.n, c.* FROM requests r
    JOIN app_locks l ON l.app_id = r.app_id
    JOIN connections c ON c.app_id = r.app_id AND c.id = r.id
    WHERE c.status = 'active'
      AND CASE WHEN l.has_bulk_revocation
               THEN NOT is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at,
                                            c.created_by, c.ordinal)
               ELSE true END
      -- The token is replaced at this moment, or it is not known whether it was.
      AND (c.rotation IS NULL OR (c.rotation = 'waiting' AND c.rotation_until <= strongroom_now()))
    FOR SHARE OF c SKIP LOCKED),
rotated_later AS (
    -- By ascending connection, so that two batches cannot deadlock. A further reader puts the rotation
    -- off, within a limit, and never brings it forward. Within the last minute of the limit a reader has a
    -- minute nevertheless; twice the limit is the end of that.
    INSERT INTO token_rotations AS o (connection_id, app_id, due_at)
    SELECT r.id, r.app_id, strongroom_now() + $5::interval
    FROM (SELECT DISTINCT c.id, c.app_id FROM locked c JOIN apps a ON a.id = c.app_id
          WHERE a.rotate_after_reveal AND c.provider = 'plaid') r
    ORDER BY r.id
    ON CONFLICT (connection_id) DO UPDATE
    SET due_at = greatest(o.due_at, least(excluded.due_at, greatest(
            o.revealed_at + $6::interval,
            least(strongroom_now() + interval '1 minute', o.revealed_at + 2 * $6::interval))))),
audited AS (
    INSERT INTO audit_events (
        app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
        user_id, connection_id, reason)
    SELECT c.app_id, 'token.revealed', 'ok', r.actor, r.client_id, r.session_id, r.scope,
           r.ip, r.request_id, c.user_id, c.id, r.reason
    FROM locked c JOIN requests r USING (n))
SELECT c.n AS "n!", c.user_id AS "user: UserId", u.client_user_id, c.login_id,
       c.dapi_user_id, c.dapi_token_id,
       c.access_token AS "access_token!: Sealed<AccessToken>",
       b.binding AS "binding?: Binding",
       c.user_secret AS "user_secret: Sealed<UserSecret>",
       key_of(k) AS "user_key!: WrappedKey"
FROM locked c
JOIN users u ON u.id = c.user_id
JOIN data_keys k ON k.user_id = c.user_id AND k.purpose = 'user'
LEFT JOIN token_bindings b ON b.connection_id = c.id
