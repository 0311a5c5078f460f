-- name: acquire_lease
-- Acquires token leases: the calls of a batch begin with its commit.
WITH
-- `n` maps each row of the result to its input.
requests AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::interval[],
                         $6::text[], $7::audit_actor[], $8::uuid[], $9::text[], $10::bool[])
        WITH ORDINALITY
    AS i (app_id, id, lease_id, position, lasts, path,
          actor, client_id, session_id, scope, ip, request_id, slot, provider, despite_attention, n)),
-- At most one request per slot of a token: the first in the queue. A request without a position passes only an
-- empty queue, and one whose position was deleted as abandoned does not pass at all.
next AS (
    SELECT DISTINCT ON (w.id, w.slot) w.* FROM requests w
    -- A slot of its own has no queue.
    WHERE w.slot <> '00000000-0000-0000-0000-000000000000'
       OR (NOT EXISTS (
                SELECT FROM token_lease_queue q
                WHERE q.connection_id = w.id AND q.alive_until > strongroom_now()
                  AND (w.position IS NULL OR q.position < w.position))
           AND (w.position IS NULL OR EXISTS (
                SELECT FROM token_lease_queue q
                WHERE q.connection_id = w.id AND q.position = w.position)))
    ORDER BY w.id, w.slot, w.position, w.n),
-- Takes the usage lock of each app, shared, before any row is locked, by ascending app against
-- deadlocks. MATERIALIZED: `begin_use` is volatile and has to run once for each app. `asks` says
-- whether a bulk revocation is in force, which spares the check below as a rule.
uses AS MATERIALIZED (
    SELECT a.app_id, begin_use(a.app_id) AS asks
    FROM (SELECT DISTINCT app_id FROM requests ORDER BY app_id) a),
-- FOR SHARE holds off a revocation until this commits. SKIP LOCKED: a row that is being revoked is
-- not waited for, the caller asks again. `is_bulk_revoked` is volatile, so that it sees what
-- committed while this statement waited for the usage lock; CASE, so that it runs after the lock.
held AS MATERIALIZED (
    SELECT x.n, x.lease_id, x.slot, x.position, x.lasts, c.* FROM next x
    JOIN uses e ON e.app_id = x.app_id
    JOIN connections c ON c.app_id = x.app_id AND c.id = x.id
    WHERE c.status = 'active' AND c.provider = x.provider
      -- After a repair was begun, a call tries whether the login works.
      AND (c.attention_type IS NULL OR x.despite_attention OR c.repair_tried_from <= strongroom_now())
      -- A rotation replaces the token at this moment.
      AND (c.rotation_until IS NULL OR c.rotation_until <= strongroom_now())
      AND CASE WHEN e.asks
               THEN NOT is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at,
                                            c.created_by, c.ordinal)
               ELSE true END
    FOR SHARE OF c SKIP LOCKED),
-- Inserts by ascending connection, so that two statements with common tokens cannot deadlock. Takes
-- over a lease that ran out; one that is alive keeps its row, which then does not return here.
acquired AS (
    INSERT INTO token_leases AS t (connection_id, slot, lease_id, ends_at)
    SELECT id, slot, lease_id, strongroom_now() + lasts FROM held ORDER BY id, slot
    ON CONFLICT (connection_id, slot) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
    WHERE t.ends_at <= strongroom_now()
    RETURNING lease_id),
-- The calls that have begun; everything below is for them alone.
begun AS (SELECT h.* FROM held h JOIN acquired t USING (lease_id)),
-- The position goes with the commit, so that the next caller is first at once.
dequeued AS (
    DELETE FROM token_lease_queue q USING begun b
    WHERE q.connection_id = b.id AND q.position = b.position),
-- Before the call: a token is never used without a record.
audited AS (
    INSERT INTO audit_events (
        app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
        user_id, connection_id, reason)
    SELECT b.app_id, b.provider || '.call', 'begun', w.actor, w.client_id, w.session_id, w.scope,
           w.ip, w.request_id, b.user_id, b.id, w.path
    FROM begun b JOIN requests w USING (n))
SELECT b.n AS "n!", b.user_id AS "user: UserId", b.access_token AS "access_token!: Sealed<AccessToken>",
       tb.binding AS "binding?: Binding",
       b.user_secret AS "user_secret: Sealed<UserSecret>", b.user_secret_proven,
       -- While it is not known whether the token was replaced, or may be by a late call, its refusal proves nothing.
       b.unproven OR coalesce(b.rotation IN ('sent', 'unanswered'), false)
           OR (b.provider = 'plaid' AND EXISTS (
               SELECT FROM token_rotations r WHERE r.connection_id = b.id AND r.doubted)) AS "unproven!",
       b.attention_type IS NOT NULL AS "needs_attention!", strongroom_now() AS "begun_at!",
       key_of(uk) AS "user_key!: WrappedKey",
       credentials_of(a, ak) AS "credentials!: SealedCredentials"
FROM begun b
JOIN data_keys uk ON uk.user_id = b.user_id AND uk.purpose = 'user'
JOIN apps a ON a.id = b.app_id
JOIN data_keys ak ON ak.app_id = b.app_id AND ak.purpose = 'app'
LEFT JOIN token_bindings tb ON tb.connection_id = b.id
