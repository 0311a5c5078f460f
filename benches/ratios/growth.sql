-- The history of connections for `make bench-growth`, in the app of the connections that the product made.

-- A UUIDv7 of a moment.
CREATE FUNCTION growth_id(t timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (overlay(lpad(to_hex((extract(epoch FROM t) * 4096000)::bigint), 15, '0') PLACING '7' FROM 13 FOR 0)
            || substring(encode(uuid_send(gen_random_uuid()), 'hex') FROM 17))::uuid
$$;

-- Bytes that are too few to be compressed, as the sealed ones are.
CREATE FUNCTION growth_bytes(length integer) RETURNS bytea LANGUAGE sql VOLATILE AS $$
    SELECT substring(decode(repeat(md5(random()::text), length / 16 + 1), 'hex') FROM 1 FOR length)
$$;

-- Connections `first` to `last` with their users, of whom each has three or four, four audit rows each, and the events of the
-- last 30 days. Without triggers: their work is done here.
CREATE FUNCTION growth_fill(first bigint, last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    app uuid := (SELECT app_id FROM connections ORDER BY id LIMIT 1);
    master_key text := (SELECT id FROM master_keys LIMIT 1);
BEGIN
    SET LOCAL session_replication_role = replica;
    SET LOCAL synchronous_commit = off;
    CREATE TEMPORARY TABLE made ON COMMIT DROP AS
    SELECT n, now() - (last - n + 20) * (interval '590 days' / (last - first + 1)) AS at,
           CASE WHEN n % 25000 = 3 THEN 'pending' WHEN n % 4000 = 17 THEN 'revoking' WHEN n % 100 < 90 THEN 'active'
                WHEN n % 100 < 95 THEN 'delinked' WHEN n % 100 < 97 THEN 'invalidated' WHEN n % 100 = 97 THEN 'rejected'
                WHEN n % 100 = 98 THEN 'expired' ELSE 'orphaned' END AS status,
           'history-' || (first + (n * 7919) % ((last - first + 1) * 3 / 10 + 1)) AS client_user_id
    FROM generate_series(first, last) n;
    INSERT INTO users (id, app_id, client_user_id, created_at)
    SELECT growth_id(min(at)), app, client_user_id, min(at) FROM made GROUP BY client_user_id
    ON CONFLICT DO NOTHING;
    INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
    SELECT gen_random_uuid(), 'user', app, u.id, master_key, growth_bytes(61)
    FROM users u WHERE u.app_id = app AND NOT EXISTS (SELECT FROM data_keys k WHERE k.user_id = u.id);
    INSERT INTO connections (
        id, app_id, user_id, status, login_id, dapi_user_id, dapi_token_id, created_at, activated_at, code_hash,
        code_expires_at, code, access_token, user_secret, due_at, lease_epoch, settled_epoch, exchange_attempts,
        created_by, ordinal, revocation_kind, revocation_reason, revocation_requested_at, revocation_confirmed_at,
        failure_type, failure_detail, attention_type, attention_since, last_used_at, event_sequence, event_transaction)
    SELECT growth_id(m.at), app, u.id, m.status, md5('login' || m.n) || substr(md5('more' || m.n), 1, 8),
           repeat(md5('user' || u.id), 2) || substr(md5('u'), 1, 24), gen_random_uuid()::text, m.at,
           CASE WHEN m.status IN ('active', 'revoking', 'delinked', 'invalidated') THEN m.at END,
           sha256(('history' || m.n)::bytea), m.at + interval '30 minutes',
           CASE WHEN m.status = 'pending' THEN growth_bytes(380) END,
           CASE WHEN m.status IN ('active', 'revoking') THEN growth_bytes(270) END,
           CASE WHEN m.status IN ('active', 'revoking', 'pending') THEN growth_bytes(740) END,
           -- Nothing of it is due while the benchmark runs.
           CASE WHEN m.status IN ('pending', 'revoking') THEN now() + interval '2 days' END,
           1, CASE WHEN m.status <> 'pending' THEN 1 END, 1, 'backend', nextval('connection_ordinals'),
           CASE WHEN m.status IN ('delinked', 'revoking') THEN 'delink' WHEN m.status = 'invalidated' THEN 'invalidate' END,
           CASE WHEN m.status IN ('delinked', 'revoking', 'invalidated') THEN 'the user asked for it' END,
           CASE WHEN m.status IN ('delinked', 'revoking', 'invalidated') THEN m.at + interval '1 hour' END,
           CASE WHEN m.status = 'delinked' THEN m.at + interval '1 hour' END,
           CASE WHEN m.status IN ('rejected', 'expired', 'orphaned') THEN 'code_expired' END,
           CASE WHEN m.status IN ('rejected', 'expired', 'orphaned') THEN 'The code was not exchanged within its window.' END,
           CASE WHEN m.status = 'active' AND m.n % 200 = 7 THEN 'INVALID_CREDENTIALS' END,
           CASE WHEN m.status = 'active' AND m.n % 200 = 7 THEN m.at END, m.at, 1, 700
    FROM made m JOIN users u ON u.app_id = app AND u.client_user_id = m.client_user_id;
    INSERT INTO token_bindings (connection_id, binding)
    SELECT c.id, growth_bytes(16) FROM connections c JOIN made m ON c.code_hash = sha256(('history' || m.n)::bytea)
    WHERE c.app_id = app AND c.status IN ('active', 'pending');
    CREATE TEMPORARY TABLE trail ON COMMIT DROP AS
    SELECT growth_id(c.created_at + a.later) AS event_id, c.created_at + a.later AS at, a.action, a.outcome, a.scope,
           a.reason, c.user_id, c.id AS connection_id
    FROM connections c JOIN made m ON c.code_hash = sha256(('history' || m.n)::bytea)
    CROSS JOIN (VALUES
        (interval '0', 'connection.received', 'pending', 'connections:write', NULL),
        (interval '1 second', 'connection.activated', 'active', 'connections:write', NULL),
        (interval '1 minute', 'token.revealed', 'revealed', 'tokens:read', 'payroll run'),
        (interval '2 minutes', 'dapi.call', 'sent', 'dapi:call', 'data/accounts/get')
    ) a (later, action, outcome, scope, reason)
    WHERE c.app_id = app;
    INSERT INTO audit_events (app_id, id, at, action, outcome, actor, client_id, scope, ip, request_id, user_id,
                              connection_id, reason)
    SELECT app, event_id, at, action, outcome, 'client', 'backend', scope, '10.0.0.7', gen_random_uuid(), user_id,
           connection_id, reason
    FROM trail;
    INSERT INTO audit_unlinked (app_id, event_id) SELECT app, event_id FROM trail ORDER BY event_id;
    INSERT INTO event_heads (app_id) VALUES (app) ON CONFLICT DO NOTHING;
    PERFORM FROM event_heads WHERE app_id = app FOR UPDATE;
    INSERT INTO events (app_id, position, id, type, at, sequence, user_id, data)
    SELECT app, h.position + row_number() OVER (ORDER BY t.at), t.event_id, 'connection.active', now(), 1, t.user_id,
           jsonb_build_object('id', t.connection_id, 'status', 'active', 'details', repeat('x', 600))::text
    FROM trail t, event_heads h
    WHERE h.app_id = app AND t.action = 'connection.activated' AND t.at > now() - interval '30 days';
    UPDATE event_heads SET position = (SELECT max(position) FROM events WHERE app_id = app) WHERE app_id = app;
    SET LOCAL session_replication_role = origin;
    DROP TABLE made, trail;
END $$;

-- Audit rows as statements of the product write them.
CREATE FUNCTION growth_audit(rows bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit_events (app_id, action, outcome, actor, client_id, user_id, connection_id)
    SELECT app_id, 'token.revealed', 'revealed', 'client', 'backend', user_id, id
    FROM (SELECT * FROM connections ORDER BY id LIMIT 1) c, generate_series(1, rows)
$$;

-- Names a tenth of the active connections.
CREATE FUNCTION growth_tenth(name text) RETURNS void LANGUAGE sql AS $$
    UPDATE connections c SET created_by = name FROM users u
    WHERE u.id = c.user_id AND u.client_user_id LIKE 'history-%' AND c.status = 'active' AND hashtext(c.id::text) % 10 = 0
$$;

-- A request that waits for a second person, as four eyes leave one; it is shown and never decided.
CREATE FUNCTION growth_approval() RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO approvals (id, app_id, kind, request, described, digest, matched, requested_by, created_at, expires_at)
    SELECT new_uuid_v7(), app_id, 'bulk_revocation',
           '{"kind": "delink", "reason": "a benchmark", "perSecond": 1, "filter": {"clientUserIDs": null, "connectionIDs": null, '
           '"createdBefore": null, "createdAfter": null, "clientID": null, "all": true}, "idempotencyKey": null}',
           '{"kind": "delink"}', sha256(uuid_send(gen_random_uuid())), 1, 'operator: ana', t.now, t.now + interval '1 hour'
    FROM (SELECT app_id FROM connections ORDER BY id LIMIT 1) c, (SELECT strongroom_now() AS now) t
    RETURNING id
$$;
