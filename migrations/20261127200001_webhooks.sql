-- Webhooks: the endpoints to which an app's events are sent, their secrets, and one delivery for each event and endpoint.

CREATE TABLE webhook_endpoints (
    id          uuid PRIMARY KEY,
    app_id      uuid NOT NULL REFERENCES apps,
    url         text NOT NULL,
    description text,
    -- The types that are sent; all of them if null.
    types       text[] CHECK (types <> '{}'),
    -- The kind of signature (Standard Webhooks): HMAC-SHA256 or Ed25519.
    signature   text NOT NULL DEFAULT 'v1' CHECK (signature IN ('v1', 'v1a')),
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    updated_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    -- Since when nothing is sent, and why: by request, because it answered 410, or because it failed for too long.
    disabled_at     timestamptz,
    disabled_reason text CHECK (disabled_reason IN ('requested', 'gone', 'failing')),
    -- Attempts that failed since the last that did not, when the first of them was, and when the next may begin.
    failures      integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    retry_at      timestamptz,
    last_error    text,
    CONSTRAINT webhook_endpoints_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CONSTRAINT webhook_endpoints_failing CHECK ((failures = 0) = (failing_since IS NULL))
);
CREATE INDEX webhook_endpoints_of_an_app ON webhook_endpoints (app_id, id);

-- Each secret is a key for HMAC and, apart from it, one for Ed25519, sealed under the app's data key.
CREATE TABLE webhook_secrets (
    id          uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    secret      bytea NOT NULL,
    signing_key bytea NOT NULL,
    public_key  bytea NOT NULL CHECK (length(public_key) = 32),
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at  timestamptz
);
CREATE INDEX webhook_secrets_of_an_endpoint ON webhook_secrets (endpoint_id);

-- A test is an event for one endpoint alone, which no reader sees.
ALTER TABLE event_outbox ADD COLUMN endpoint_id uuid;
ALTER TABLE events ADD COLUMN endpoint_id uuid;

-- `due_at` is when it is attempted next, or while an attempt is under way the end of its lease; null at the end. It goes
-- with its event and with its endpoint.
CREATE TABLE webhook_deliveries (
    endpoint_id uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    app_id      uuid NOT NULL,
    position    bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    due_at      timestamptz,
    attempts    integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    status      integer,
    error       text,
    delivered_at timestamptz,
    PRIMARY KEY (endpoint_id, position),
    FOREIGN KEY (app_id, position) REFERENCES events ON DELETE CASCADE,
    CONSTRAINT webhook_deliveries_end CHECK (delivered_at IS NULL OR due_at IS NULL)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at, position) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_of_an_event ON webhook_deliveries (app_id, position);

-- Every event has a delivery for each endpoint that takes it, from the commit that gives it its position.
CREATE FUNCTION events_are_delivered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (endpoint_id, app_id, position, due_at)
    SELECT e.id, a.app_id, a.position, strongroom_now()
    FROM added a JOIN webhook_endpoints e ON e.app_id = a.app_id
    WHERE CASE WHEN a.endpoint_id IS NULL
               THEN e.disabled_at IS NULL AND (e.types IS NULL OR a.type = ANY (e.types))
               ELSE e.id = a.endpoint_id END;
    RETURN NULL;
END $$;
CREATE TRIGGER events_are_delivered AFTER INSERT ON events
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_delivered();

-- An endpoint as GET shows it, without secrets: for the event that it was disabled, and for its test.
CREATE FUNCTION webhook_snapshot(endpoint webhook_endpoints) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', endpoint.id, 'url', endpoint.url, 'description', endpoint.description, 'types', endpoint.types,
        'signature', endpoint.signature, 'created_at', endpoint.created_at, 'updated_at', endpoint.updated_at,
        'disabled_at', endpoint.disabled_at, 'disabled_reason', endpoint.disabled_reason,
        'failing_since', endpoint.failing_since, 'last_error', endpoint.last_error,
        'secrets', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', s.id, 'created_at', s.created_at, 'expires_at', s.expires_at,
                'public_key', translate(encode(s.public_key, 'base64'), E'\n', '')) ORDER BY s.created_at, s.id), '[]')
            FROM webhook_secrets s
            WHERE s.endpoint_id = endpoint.id AND (s.expires_at IS NULL OR s.expires_at > strongroom_now())))
$$;

CREATE FUNCTION webhook_tells_of_its_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_outbox (app_id, type, subject, snapshot)
    VALUES (NEW.app_id, 'webhook.disabled', NEW.id::text, webhook_snapshot(NEW));
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_endpoints_tell_of_their_end AFTER UPDATE ON webhook_endpoints
    FOR EACH ROW WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL)
    EXECUTE FUNCTION webhook_tells_of_its_end();
