-- name: insert_intent
-- Inserts pending connections with their sealed codes. Returns those whose code is new to their app.
WITH intents AS (
    -- One `now` for all: the window, the lease and `due_at` are measured from the same instant.
    SELECT *, strongroom_now() AS now
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
        $7::bytea[], $8::bytea[], $9::bytea[], $10::timestamptz[], $11::interval[],
        $12::interval[], $13::audit_actor[], $14::bytea[], $15::text[], $16::text[], $17::text[],
        $18::jsonb[])
    AS i (app_id, id, user_id, login_id, dapi_user_id, dapi_token_id,
          code_hash, code, user_secret, window_cap, lease, wait,
          actor, client_id, session_id, scope, ip, request_id, binding,
          provider, institution_id, institution_name, accounts)),
inserted AS (
    -- Ordered by code, so that two statements that share codes wait for each other in one order and
    -- cannot deadlock. The trigger `connections_arrive` takes the app's arrival lock, shared, and
    -- refuses a user who is being erased.
    INSERT INTO connections (
        app_id, id, user_id, status, login_id, dapi_user_id, dapi_token_id,
        code_hash, code, user_secret, by_wire, code_expires_at,
        lease_epoch, exchange_attempts, leased_until, due_at, created_by,
        provider, institution_id, institution_name, accounts)
    SELECT app_id, id, user_id, 'pending', login_id, dapi_user_id, dapi_token_id,
           code_hash, code, user_secret, provider = 'dapi' AND user_secret IS NULL,
           least(now + interval '30 minutes', window_cap),
           (lease IS NOT NULL)::int, (lease IS NOT NULL)::int,
           now + lease, now + coalesce(lease, wait),
           coalesce(client_id, (SELECT s.created_by FROM connect_sessions s
                                WHERE s.id = intents.session_id)),
           provider, institution_id, institution_name, accounts
    FROM intents
    ORDER BY code_hash
    ON CONFLICT (app_id, code_hash) DO NOTHING
    RETURNING id),
bound AS (
    -- From the start: `connections_lose_their_binding` takes the row away with a revocation, and
    -- after that only the delinking can open the token, whenever it arrives (ADR 19).
    INSERT INTO token_bindings (connection_id, binding)
    SELECT id, binding FROM intents JOIN inserted USING (id)),
audited AS (
    -- Only what was inserted; a repeated code leaves no event.
    INSERT INTO audit_events (
        app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
        user_id, connection_id)
    SELECT app_id, 'connection.received', 'pending', actor, client_id, session_id, scope,
           ip, request_id, user_id, id
    FROM intents JOIN inserted USING (id))
SELECT id AS "id: ConnectionId" FROM inserted
