-- The audit trail's hash chain, in tables of its own: what writes to the trail never waits for it.

-- One link for each row of the trail, in the order of the app's chain. `hash` is SHA-256 over the row,
-- its place and the hash of the link before (version 1; src/audit/model.rs has the encoding).
CREATE TABLE audit_links (
    app_id        uuid NOT NULL,
    seq           bigint NOT NULL CHECK (seq > 0),
    event_id      uuid NOT NULL,
    version       smallint NOT NULL,
    hash          bytea NOT NULL CHECK (length(hash) = 32),
    -- Copied from the row for the two indexes below, which so cost nobody but the chainer.
    user_id       uuid,
    connection_id uuid,
    linked_at     timestamptz NOT NULL DEFAULT strongroom_now(),
    PRIMARY KEY (app_id, seq),
    UNIQUE (app_id, event_id)
);
CREATE INDEX audit_links_of_a_user ON audit_links (user_id, event_id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_links_of_a_connection ON audit_links (connection_id, event_id)
    WHERE connection_id IS NOT NULL;

CREATE TRIGGER audit_links_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_links
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only();

-- Rows of the trail that are not linked yet. They become visible here when they do in the trail, so a
-- transaction that commits late is not passed over, and the chainer reads what is new and nothing else.
-- No index: it is emptied from one end to the other.
CREATE TABLE audit_unlinked (
    app_id   uuid NOT NULL,
    event_id uuid NOT NULL
);
ALTER TABLE audit_unlinked SET (
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

CREATE FUNCTION audit_events_await_their_links() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unlinked (app_id, event_id) SELECT app_id, id FROM added;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_await_their_links AFTER INSERT ON audit_events
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_await_their_links();

INSERT INTO audit_unlinked (app_id, event_id) SELECT app_id, id FROM audit_events;

-- Whoever holds the lock of this row is the chainer, until the end of the transaction.
CREATE TABLE audit_chainer (one boolean PRIMARY KEY DEFAULT true CHECK (one));
INSERT INTO audit_chainer DEFAULT VALUES;

-- Gives the service's role what it needs and nothing that changes what was written down. Run by the
-- owner after each migration, where the two roles differ.
CREATE FUNCTION strongroom_grant_to_service(service text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    -- Replicas that start together would update the same rows of the catalogue.
    PERFORM pg_advisory_xact_lock(hashtext('strongroom_grant_to_service'));
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema, service);
    FOR held IN
        SELECT tablename FROM pg_tables
        WHERE schemaname = current_schema AND pg_has_role(current_user, tableowner, 'USAGE')
    LOOP
        IF held.tablename IN ('audit_events', 'audit_links') THEN
            EXECUTE format('REVOKE ALL ON TABLE %I.%I FROM %I', current_schema, held.tablename, service);
            EXECUTE format('GRANT SELECT, INSERT ON TABLE %I.%I TO %I',
                           current_schema, held.tablename, service);
        ELSIF held.tablename = '_sqlx_migrations' THEN
            EXECUTE format('REVOKE ALL ON TABLE %I.%I FROM %I', current_schema, held.tablename, service);
            EXECUTE format('GRANT SELECT ON TABLE %I.%I TO %I', current_schema, held.tablename, service);
        ELSE
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %I.%I TO %I',
                           current_schema, held.tablename, service);
        END IF;
    END LOOP;
END $$;
