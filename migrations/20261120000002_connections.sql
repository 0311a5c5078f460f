-- Connect sessions, connections and the audit trail.

-- A short-lived token that lets one browser hand in one user's results.
CREATE TABLE connect_sessions (
    id         uuid PRIMARY KEY,
    app_id     uuid NOT NULL,
    user_id    uuid NOT NULL,
    token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at timestamptz NOT NULL,
    FOREIGN KEY (user_id, app_id) REFERENCES users (id, app_id) ON DELETE CASCADE
);
CREATE INDEX connect_sessions_by_end ON connect_sessions (expires_at);
CREATE INDEX connect_sessions_of_a_user ON connect_sessions (user_id);

-- One linked bank login of one user. The CHECK constraints mirror the enum of the code, so that a
-- row that the code could not have written cannot exist.
CREATE TABLE connections (
    id              uuid PRIMARY KEY,
    app_id          uuid NOT NULL,
    user_id         uuid NOT NULL,
    status          text NOT NULL CHECK (status IN (
        'pending', 'active', 'rejected', 'expired', 'orphaned', 'revoking', 'delinked', 'invalidated')),
    -- As Dapi names them: connectionID, userID, tokenID.
    connection_id   text NOT NULL,
    dapi_user_id    text,
    token_id        text,
    created_at      timestamptz NOT NULL DEFAULT strongroom_now(),
    activated_at    timestamptz,

    -- A keyed hash of the access code; stays when the code is wiped. NULL for an imported token.
    code_hash       bytea CHECK (length(code_hash) = 32),
    code_expires_at timestamptz,

    -- Sealed under the user's data key.
    code            bytea,
    access_token    bytea,
    user_secret     bytea,

    -- When the background work looks at this row next; while a lease is alive, the lease's end.
    due_at          timestamptz,
    -- The lease: whoever took it last is known by its epoch, which only grows.
    lease_epoch     integer NOT NULL DEFAULT 0,
    leased_until    timestamptz,
    -- The epoch under which the exchange's outcome was written; tells a writer whose COMMIT went
    -- unanswered that it was its own.
    settled_epoch   integer,
    exchange_attempts integer NOT NULL DEFAULT 0,
    -- An attempt went out and Dapi may have consumed the code, but no answer came that settles it.
    unanswered      boolean NOT NULL DEFAULT false,

    failure_type    text,
    failure_detail  text,
    replaced_by     uuid,

    revocation_kind         text CHECK (revocation_kind IN ('delink', 'invalidate')),
    revocation_reason       text,
    revocation_requested_at timestamptz,
    revocation_confirmed_at timestamptz,
    revocation_attempts     integer NOT NULL DEFAULT 0,
    revocation_last_error   text,

    -- Through the user to the app: a foreign key to the app itself would have every insert lock the
    -- app's one row.
    FOREIGN KEY (user_id, app_id) REFERENCES users (id, app_id),
    CONSTRAINT connections_code CHECK (
        (code_hash IS NULL) = (code_expires_at IS NULL) AND (code IS NULL OR code_hash IS NOT NULL)),
    CONSTRAINT connections_secrets CHECK (
        CASE
            -- A code to exchange, or its token that waits for the delinking of an older link.
            WHEN status IN ('pending', 'revoking')
                THEN user_secret IS NOT NULL AND (code IS NULL) <> (access_token IS NULL)
            WHEN status = 'active'
                THEN user_secret IS NOT NULL AND code IS NULL AND access_token IS NOT NULL
            ELSE user_secret IS NULL AND code IS NULL AND access_token IS NULL
        END),
    -- Nothing that is not at its end is ever left without a time at which somebody looks at it.
    CONSTRAINT connections_work CHECK (
        (due_at IS NOT NULL) = (status IN ('pending', 'revoking'))
        AND (leased_until IS NULL OR due_at = leased_until)),
    CONSTRAINT connections_activation CHECK (
        (status <> 'active' OR activated_at IS NOT NULL)
        AND (status NOT IN ('pending', 'rejected', 'expired', 'orphaned') OR activated_at IS NULL)),
    CONSTRAINT connections_failure CHECK (
        (failure_type IS NOT NULL) = (status IN ('rejected', 'expired', 'orphaned'))),
    CONSTRAINT connections_revocation CHECK (
        (revocation_kind IS NULL) = (revocation_requested_at IS NULL)
        AND (revocation_kind IS NOT NULL OR revocation_confirmed_at IS NULL)
        AND (status NOT IN ('revoking', 'delinked') OR revocation_kind IS NOT NULL)
        AND (status NOT IN ('pending', 'active', 'rejected', 'expired', 'orphaned') OR revocation_kind IS NULL)
        AND (status <> 'revoking' OR revocation_confirmed_at IS NULL)
        AND (status <> 'delinked' OR revocation_confirmed_at IS NOT NULL)),
    CONSTRAINT connections_replacement CHECK (replaced_by IS NULL OR status = 'invalidated')
);

-- A prepared statement keeps its plan until the table is analysed again, whatever happens to the table
-- meanwhile: no connection may have been revoking when it was made, and a hundred thousand a minute
-- later. So there is one index for each way of looking things up, which begins with what is most
-- selective, and lists look at an expression that nothing else could be tempted by.

-- One code is received once in an app.
CREATE UNIQUE INDEX connections_code_once ON connections (code_hash, app_id);
-- One bank login has one usable token.
CREATE UNIQUE INDEX connections_one_active ON connections (connection_id, app_id) WHERE status = 'active';
CREATE INDEX connections_of_a_login ON connections (connection_id, app_id);
CREATE INDEX connections_of_a_user ON connections (user_id, id);
CREATE INDEX connections_of_an_app ON connections ((app_id::text), id);
CREATE INDEX connections_of_an_app_by_status ON connections ((app_id::text), status, id);
CREATE INDEX connections_due ON connections (due_at) WHERE due_at IS NOT NULL;
-- A table that grows from nothing is analysed early and often.
ALTER TABLE connections SET (autovacuum_analyze_threshold = 50, autovacuum_analyze_scale_factor = 0.02);

-- Which codes a session handed in: it may read these connections, and it may hand in ten.
CREATE TABLE connect_session_results (
    session_id    uuid NOT NULL REFERENCES connect_sessions ON DELETE CASCADE,
    connection_id uuid NOT NULL,
    PRIMARY KEY (session_id, connection_id)
);

-- A UUIDv7 (RFC 9562 §5.7) by this database's clock: 48 bits of milliseconds, then random.
CREATE FUNCTION new_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send(floor(extract(epoch FROM strongroom_now()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- Every change and every reading of a secret, written in the transaction of what it tells. It names
-- a user by the random id alone and holds no secret.
CREATE TABLE audit_events (
    app_id        uuid NOT NULL,
    id            uuid NOT NULL DEFAULT new_uuid_v7(),
    at            timestamptz NOT NULL DEFAULT strongroom_now(),
    action        text NOT NULL,
    outcome       text NOT NULL,
    -- Who: a client, a browser with a connect session, the operator at the command line, or the service.
    actor         text NOT NULL CHECK (actor IN ('client', 'session', 'operator', 'service')),
    client_id     text,
    session_id    uuid,
    scope         text,
    ip            text,
    request_id    uuid,
    user_id       uuid,
    connection_id uuid,
    reason        text,
    PRIMARY KEY (app_id, id)
);

CREATE FUNCTION audit_events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only();

-- Who does something, as one value that statements pass on.
CREATE TYPE audit_actor AS (
    actor      text,
    client_id  text,
    session_id uuid,
    scope      text,
    ip         text,
    request_id uuid
);

-- The one way into the audit trail, so that a statement can change something and record it at once.
CREATE FUNCTION record_audit(
    app_id uuid, actor audit_actor, action text, outcome text,
    user_id uuid, connection_id uuid, reason text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (app_id, action, outcome, actor, client_id, session_id, scope, ip,
                              request_id, user_id, connection_id, reason)
    VALUES (app_id, action, outcome, actor.actor, actor.client_id, actor.session_id, actor.scope,
            actor.ip, actor.request_id, user_id, connection_id, reason);
END $$;
