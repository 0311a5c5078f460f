-- name: release_lease
-- Releases token leases and records how their calls ended.
WITH
-- One row per call that ended.
ended AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                         $7::bool[], $8::text[], $9::audit_actor[], $10::text[], $11::timestamptz[])
    AS i (app_id, id, user_id, lease_id, outcome, reason, used, attention,
          actor, client_id, session_id, scope, ip, request_id, provider, begun_at)),
-- One change per connection; attention before a mere use (NULLs sort last).
marks AS (
    SELECT DISTINCT ON (id) app_id, id, attention, begun_at FROM ended
    WHERE used OR attention IS NOT NULL ORDER BY id, attention, begun_at DESC),
-- `last_used_at` advances at most once a minute, and not at all if the row is locked: precision is not
-- worth a wait.
stale AS MATERIALIZED (
    SELECT c.app_id, c.id, NULL::text AS attention, false AS is_new FROM marks m
    JOIN connections c ON c.app_id = m.app_id AND c.id = m.id
    WHERE m.attention IS NULL AND (
        c.last_used_at IS NULL OR c.last_used_at <= strongroom_now() - interval '1 minute')
    FOR NO KEY UPDATE OF c SKIP LOCKED),
-- No SKIP LOCKED: attention must not get lost. Ascending ids against deadlocks.
needing_attention AS MATERIALIZED (
    SELECT c.app_id, c.id, m.attention, c.attention_type IS NULL AS is_new FROM marks m
    JOIN connections c ON c.app_id = m.app_id AND c.id = m.id
    WHERE m.attention IS NOT NULL AND c.status = 'active'
      AND CASE WHEN c.attention_type IS NULL
               -- What began before the login was repaired is about the past.
               THEN coalesce(m.begun_at > c.attention_cleared_at, true)
               ELSE c.repair_tried_from <= m.begun_at END
    ORDER BY c.id FOR NO KEY UPDATE OF c),
-- `attention_since` keeps the first refusal's time. A call that tried in vain whether the login is repaired is followed by
-- another a minute later, for as long as the user may be at it.
marked AS (
    UPDATE connections c
    SET last_used_at = t.now,
        attention_type = CASE WHEN x.is_new THEN x.attention ELSE c.attention_type END,
        attention_since = CASE WHEN x.is_new THEN t.now ELSE c.attention_since END,
        repair_tried_from = CASE WHEN x.attention IS NULL THEN c.repair_tried_from
                                 WHEN t.now + interval '1 minute' < c.repair_ends_at
                                     THEN t.now + interval '1 minute' END
    FROM (SELECT * FROM stale UNION ALL SELECT * FROM needing_attention) x,
         (SELECT strongroom_now() AS now) t
    WHERE c.app_id = x.app_id AND c.id = x.id
    RETURNING c.app_id, c.id, c.user_id, x.attention, x.is_new),
-- By lease id: after its time, the token may be under another call's lease.
mine AS MATERIALIZED (
    SELECT t.connection_id, t.lease_id FROM token_leases t
    JOIN ended e ON t.connection_id = e.id AND t.lease_id = e.lease_id
    ORDER BY t.connection_id FOR UPDATE OF t),
-- Locked in `mine` in ascending order before: a DELETE alone locks in any order.
freed AS (
    DELETE FROM token_leases t USING mine m
    WHERE t.connection_id = m.connection_id AND t.lease_id = m.lease_id)
INSERT INTO audit_events (
    app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
    user_id, connection_id, reason)
SELECT app_id, provider || '.call', outcome, actor, client_id, session_id, scope, ip, request_id,
       user_id, id, reason
FROM ended
UNION ALL
SELECT app_id, 'connection.attention_set', 'ok', 'service', NULL, NULL, NULL, NULL, NULL,
       user_id, id, attention
FROM marked WHERE is_new
