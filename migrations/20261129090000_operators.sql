-- Operators are people of the deployment, not of one app: no table here has an app_id.
CREATE TABLE operators (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._@-]{0,62}$'),
    role        text NOT NULL CHECK (role IN ('auditor', 'operator', 'admin')),
    -- The user of the operating system for whom the command line needs no --as.
    os_user     text UNIQUE CHECK (os_user <> ''),
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    disabled_at timestamptz
);

-- One-time links, by the keyed hash of what they carry. A new link ends the operator's older ones.
CREATE TABLE operator_links (
    hash        bytea PRIMARY KEY CHECK (length(hash) = 32),
    operator_id uuid NOT NULL REFERENCES operators,
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX operator_links_of_an_operator ON operator_links (operator_id);

-- Sessions of the console, by the keyed hash of what the cookie carries.
CREATE TABLE operator_sessions (
    id               uuid PRIMARY KEY,
    hash             bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    operator_id      uuid NOT NULL REFERENCES operators,
    how              text NOT NULL CHECK (how IN ('link', 'passkey', 'oidc')),
    ip               text,
    created_at       timestamptz NOT NULL DEFAULT strongroom_now(),
    -- When the person last proved who they are: what cannot be undone needs a recent proof.
    authenticated_at timestamptz NOT NULL DEFAULT strongroom_now(),
    last_seen_at     timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    ended_by         text,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    CHECK (expires_at <= created_at + interval '12 hours 1 minute')
);
CREATE INDEX operator_sessions_of_an_operator ON operator_sessions (operator_id, created_at);

-- The trail names operators: 'operator: NAME'. Older rows, and commands that name none, stay 'operator'.
ALTER TABLE audit_events
    DROP CONSTRAINT audit_events_actor_check,
    ADD CONSTRAINT audit_events_actor_check CHECK (
        actor IN ('client', 'session', 'operator', 'service')
        OR actor ~ '^operator: [a-z0-9][a-z0-9._@-]{0,62}$') NOT VALID;
