-- Events: what happened to an app's connections, users and clients, for its backends to read and to be sent.

-- What is committed and has no position yet. Rows are written in the transaction of the change, by triggers, so that no
-- statement can forget one; the dispatcher moves them to `events`. `subject` is the id of what the event is about, and
-- `snapshot` holds the columns that its GET showed at the commit, if these may change afterwards.
CREATE TABLE event_outbox (
    ordinal    bigint GENERATED ALWAYS AS IDENTITY,
    app_id     uuid NOT NULL,
    id         uuid NOT NULL DEFAULT new_uuid_v7(),
    type       text NOT NULL,
    at         timestamptz NOT NULL DEFAULT strongroom_now(),
    sequence   bigint,
    user_id    uuid,
    subject    text NOT NULL,
    snapshot   jsonb,
    PRIMARY KEY (app_id, ordinal)
);
-- Emptied from one end to the other, and nearly empty: an erasure reads all of it, so that no transition pays for one more
-- index.
ALTER TABLE event_outbox SET (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- How far an app's events have come. The row's lock makes its holder the app's dispatcher, so positions grow in the
-- order of the commits that make them visible.
CREATE TABLE event_heads (
    app_id   uuid PRIMARY KEY,
    -- The last event's.
    position bigint NOT NULL DEFAULT 0,
    -- The last one that was deleted because of its age: a reader that is not past it has missed events.
    expired  bigint NOT NULL DEFAULT 0
);

-- The events of an app in the order in which they are read. `data` is the JSON that readers and receivers get.
CREATE TABLE events (
    app_id   uuid NOT NULL,
    position bigint NOT NULL,
    id       uuid NOT NULL,
    type     text NOT NULL,
    at       timestamptz NOT NULL,
    sequence bigint,
    user_id  uuid,
    data     text NOT NULL,
    PRIMARY KEY (app_id, position)
);
CREATE INDEX events_by_time ON events (app_id, at);
CREATE INDEX events_of_a_user ON events (user_id) WHERE user_id IS NOT NULL;

-- Connections.

ALTER TABLE connections
    -- How many events the connection has had, and the transaction that counted the last one.
    ADD COLUMN event_sequence bigint NOT NULL DEFAULT 0,
    ADD COLUMN event_transaction bigint;

-- A transaction may change a connection more than once, of which others see the outcome alone: one event.
CREATE FUNCTION connection_counts_its_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_transaction IS DISTINCT FROM txid_current() THEN
        NEW.event_sequence := NEW.event_sequence + 1;
        NEW.event_transaction := txid_current();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER connections_count_their_first_event BEFORE INSERT ON connections
    FOR EACH ROW WHEN (NEW.status <> 'pending')
    EXECUTE FUNCTION connection_counts_its_event();
CREATE TRIGGER connections_count_their_events BEFORE UPDATE ON connections
    FOR EACH ROW WHEN (
        NEW.status <> 'pending' AND NEW.status <> OLD.status
        OR NEW.status = 'active' AND OLD.status = 'active'
           AND OLD.attention_type IS DISTINCT FROM NEW.attention_type)
    EXECUTE FUNCTION connection_counts_its_event();

-- Writes the event of the change at the commit, from the row as it then is: what GET shows from then on.
CREATE FUNCTION connection_tells_of_its_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text := NEW.status;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.status = 'active' AND NEW.status = 'active' THEN
        kind := CASE WHEN NEW.attention_type IS NULL THEN 'attention_cleared' ELSE 'attention' END;
    END IF;
    -- Nothing if the row was changed once more in this transaction, which has an event of its own, or deleted.
    INSERT INTO event_outbox (app_id, type, sequence, user_id, subject, snapshot)
    SELECT c.app_id, 'connection.' || kind, c.event_sequence, c.user_id, c.id::text, jsonb_build_object(
        'app_id', c.app_id, 'id', c.id, 'status', c.status, 'client_user_id', u.client_user_id,
        'provider', c.provider, 'login_id', c.login_id, 'dapi_user_id', c.dapi_user_id,
        'dapi_token_id', c.dapi_token_id, 'created_at', c.created_at, 'code_expires_at', c.code_expires_at,
        'activated_at', c.activated_at, 'failure_type', c.failure_type, 'failure_detail', c.failure_detail,
        'revocation_kind', c.revocation_kind, 'revocation_reason', c.revocation_reason,
        'revocation_requested_at', c.revocation_requested_at,
        'revocation_confirmed_at', c.revocation_confirmed_at, 'revocation_attempts', c.revocation_attempts,
        'revocation_last_error', c.revocation_last_error, 'due_at', c.due_at, 'replaced_by', c.replaced_by,
        'attention_type', c.attention_type, 'attention_since', c.attention_since,
        'last_used_at', c.last_used_at, 'institution_id', c.institution_id,
        'institution_name', c.institution_name, 'accounts', c.accounts, 'duplicate_of', c.duplicate_of)
    FROM connections c JOIN users u ON u.id = c.user_id
    WHERE c.id = NEW.id AND c.status = NEW.status AND c.attention_type IS NOT DISTINCT FROM NEW.attention_type;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER connections_tell_of_their_first_status AFTER INSERT ON connections
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.status <> 'pending')
    EXECUTE FUNCTION connection_tells_of_its_change();
CREATE CONSTRAINT TRIGGER connections_tell_of_their_changes AFTER UPDATE ON connections
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (
        NEW.status <> 'pending' AND NEW.status <> OLD.status
        OR NEW.status = 'active' AND OLD.status = 'active'
           AND OLD.attention_type IS DISTINCT FROM NEW.attention_type)
    EXECUTE FUNCTION connection_tells_of_its_change();

-- Erasures.

CREATE FUNCTION erasure_tells_of_its_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_outbox (app_id, type, subject) VALUES (NEW.app_id, 'user.erased', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER erasures_tell_of_their_end AFTER UPDATE ON erasures
    FOR EACH ROW WHEN (OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL)
    EXECUTE FUNCTION erasure_tells_of_its_end();

-- Nothing of a user stays. The outbox first: if the dispatcher is moving a row, this waits for it and finds the row in
-- `events`, which the second statement reads later.
CREATE FUNCTION user_leaves_no_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM event_outbox WHERE user_id = OLD.id;
    DELETE FROM events WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER users_leave_no_events AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION user_leaves_no_events();

-- Bulk revocations; that of an erasure is a part of it.

CREATE FUNCTION bulk_revocation_tells_of_its_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_outbox (app_id, type, subject) VALUES (NEW.app_id, 'revocation.finished', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER bulk_revocations_tell_of_their_end AFTER UPDATE ON bulk_revocations
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL AND NEW.erasure_id IS NULL)
    EXECUTE FUNCTION bulk_revocation_tells_of_its_end();

-- Clients, as GET shows them with their live secrets' times.

CREATE FUNCTION client_tells_of_its_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_outbox (app_id, type, subject, snapshot)
    SELECT NEW.app_id, 'client.disabled', NEW.id, jsonb_build_object(
        'id', NEW.id, 'app_name', a.name, 'name', NEW.name, 'scopes', NEW.scopes,
        'external_scopes', NEW.external_scopes, 'required_scopes', NEW.required_scopes,
        'token_lifetime', NEW.token_lifetime, 'reveals_per_minute', NEW.reveals_per_minute,
        'bootstrap', NEW.bootstrap, 'created_at', NEW.created_at, 'disabled_at', NEW.disabled_at,
        'last_used_at', NEW.last_used_at,
        'secrets', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', s.id, 'created_at', s.created_at, 'expires_at', s.expires_at,
                'last_used_at', s.last_used_at) ORDER BY s.created_at, s.id), '[]')
            FROM client_secrets s
            WHERE s.client_id = NEW.id AND (s.expires_at IS NULL OR s.expires_at > strongroom_now())))
    FROM apps a WHERE a.id = NEW.app_id;
    RETURN NULL;
END $$;
CREATE TRIGGER clients_tell_of_their_end AFTER UPDATE ON clients
    FOR EACH ROW WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL)
    EXECUTE FUNCTION client_tells_of_its_end();
