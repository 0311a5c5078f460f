-- Apps that move to another deployment (ADR 34), and the keys by which they arrive.

-- The fences: what an app may still do while it moves, and after. As a rule empty. The database refuses what a fence forbids,
-- whichever replica, command or release tries.
--   draining: nothing begins, what is in flight may end.   closed: nothing is written.   moved: the same, for good.
--   arriving: only in the transaction that imports.        settling: imported, and not every replica knows it yet.
CREATE TABLE app_fences (
    app_id        uuid PRIMARY KEY,
    state         text NOT NULL CHECK (state IN ('draining', 'closed', 'moved', 'arriving', 'settling')),
    export_id     uuid NOT NULL,
    since         timestamptz NOT NULL DEFAULT strongroom_now(),
    -- At the source: whom it is exported for.
    import_key_id uuid,
    -- What ends the app here, sealed under the service's data key: a text that nobody can compute.
    receipt       bytea,
    -- All that is due is put off, so that no background work finds it (shift_due_work).
    parked        boolean NOT NULL DEFAULT false,
    -- When a complete folder was written.
    exported_at   timestamptz,
    CHECK (exported_at IS NULL OR parked),
    CHECK ((import_key_id IS NULL) = (receipt IS NULL))
);
-- Replicas read them with the directory. Not while an app arrives: its transaction may last, and would keep all others from
-- changing clients meanwhile.
CREATE TRIGGER app_fences_begin AFTER INSERT ON app_fences
    FOR EACH ROW WHEN (NEW.state <> 'arriving') EXECUTE FUNCTION oauth_directory_changed();
CREATE TRIGGER app_fences_change AFTER UPDATE OF state ON app_fences
    FOR EACH ROW EXECUTE FUNCTION oauth_directory_changed();
CREATE TRIGGER app_fences_end AFTER DELETE ON app_fences
    FOR EACH ROW EXECUTE FUNCTION oauth_directory_changed();

-- Keys that an export is sealed to (HPKE, RFC 9180), each for one import.
CREATE TABLE import_keys (
    id          uuid PRIMARY KEY,
    public_key  bytea NOT NULL CHECK (length(public_key) = 32),
    -- Sealed under the service's data key; gone with the import, and after its time.
    private_key bytea,
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at  timestamptz NOT NULL,
    -- The export that was imported with it.
    export_id   uuid UNIQUE,
    CHECK (private_key IS NULL OR export_id IS NULL)
);

-- What was imported.
CREATE TABLE app_imports (
    export_id   uuid PRIMARY KEY,
    app_id      uuid NOT NULL REFERENCES apps,
    imported_at timestamptz NOT NULL DEFAULT strongroom_now(),
    -- Signed by this deployment: where the chain was handed over, the keys of the source, and its archives (src/audit/handover.rs).
    statement   text NOT NULL,
    -- Ends the app at the source: only who opened the export can know it.
    receipt     text NOT NULL
);
CREATE INDEX app_imports_of_an_app ON app_imports (app_id);

-- The release that a replica runs; none if it is one that knows no fences. Apps move between deployments of one release.
ALTER TABLE replicas ADD COLUMN release text;

-- An app that was moved in goes on with the keys of its keyed hashes.
ALTER TABLE data_keys
    DROP CONSTRAINT data_keys_owner,
    ADD CONSTRAINT data_keys_owner CHECK (
        CASE purpose
            WHEN 'service'     THEN app_id IS NULL     AND user_id IS NULL
            WHEN 'code_hash'   THEN user_id IS NULL
            WHEN 'secret_hash' THEN user_id IS NULL
            WHEN 'app'         THEN app_id IS NOT NULL AND user_id IS NULL
            WHEN 'user'        THEN app_id IS NOT NULL AND user_id IS NOT NULL
            ELSE false
        END
    ) NOT VALID;

-- Refuses, if the app is fenced.
CREATE FUNCTION refuse_if_fenced(app uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fenced text;
BEGIN
    SELECT f.state INTO fenced FROM app_fences f WHERE f.app_id = app AND f.state <> 'arriving';
    IF fenced = 'moved' THEN
        RAISE EXCEPTION 'the app has moved to another deployment' USING ERRCODE = 'SR003';
    ELSIF fenced IS NOT NULL THEN
        RAISE EXCEPTION 'the app is being moved' USING ERRCODE = 'SR002';
    END IF;
END $$;

-- Until when a replica whose lease on an exchange or a rotation ran out may bring an answer after all: it keeps one for a quarter of
-- an hour (HOLD_ANSWER), and whoever took its work over, released or ended it has left no other mark of it.
ALTER TABLE connections ADD COLUMN answer_until timestamptz;
CREATE FUNCTION work_is_taken_over() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.answer_until := CASE
        -- The answer: the token of an exchange. What else becomes of a token that comes late says so itself.
        WHEN OLD.access_token IS NULL AND NEW.access_token IS NOT NULL THEN NULL
        ELSE greatest(OLD.answer_until,
                      CASE WHEN OLD.code IS NOT NULL THEN OLD.leased_until END + interval '15 minutes',
                      OLD.rotation_until + interval '15 minutes')
        END;
    RETURN NEW;
END $$;
CREATE TRIGGER work_that_is_taken_over BEFORE UPDATE ON connections
    FOR EACH ROW WHEN (
        OLD.code IS NOT NULL AND NEW.leased_until IS DISTINCT FROM OLD.leased_until AND OLD.leased_until <= strongroom_now()
        OR OLD.rotation IN ('sent', 'unanswered') AND NEW.rotation_until IS DISTINCT FROM OLD.rotation_until
           AND OLD.rotation_until <= strongroom_now()
        OR OLD.answer_until IS NOT NULL AND OLD.access_token IS NULL AND NEW.access_token IS NOT NULL)
    EXECUTE FUNCTION work_is_taken_over();

-- Uses of tokens: none begins. Under the lock, which a fence waits for once (src/moves/fence.rs).
CREATE OR REPLACE FUNCTION begin_use(app uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(usage_lock(app));
    -- As a rule neither: one look for both.
    IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = app)
       OR EXISTS (SELECT FROM bulk_revocations r WHERE r.app_id = app AND r.marked_at IS NULL) THEN
        PERFORM refuse_if_fenced(app);
        RETURN EXISTS (SELECT FROM bulk_revocations r WHERE r.app_id = app AND r.marked_at IS NULL);
    END IF;
    RETURN false;
END $$;

-- Connections: none arrives, except with their app, in the order that they had.
CREATE OR REPLACE FUNCTION connection_arrives() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(arrival_lock(NEW.app_id));
    IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = NEW.app_id)
       OR EXISTS (SELECT FROM erasures e WHERE e.user_id = NEW.user_id) THEN
        IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = NEW.app_id) THEN
            PERFORM refuse_if_fenced(NEW.app_id);
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the user is being erased' USING ERRCODE = 'foreign_key_violation';
    END IF;
    NEW.ordinal := nextval('connection_ordinals');
    RETURN NEW;
END $$;

-- Claims: passed over, so that a statement that claims for several apps goes on.
CREATE FUNCTION connection_is_not_claimed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = NEW.app_id) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER connections_are_not_claimed BEFORE UPDATE ON connections
    FOR EACH ROW WHEN (NEW.lease_epoch <> OLD.lease_epoch)
    EXECUTE FUNCTION connection_is_not_claimed();
-- Not by `rotation_epoch`, which the outcome of a rotation raises as well: what is in flight may end. A rotation begins under
-- `begin_use`, as all calls with tokens do.

CREATE FUNCTION upstream_is_not_claimed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_if_fenced(NEW.app_id);
    RETURN NEW;
END $$;
CREATE TRIGGER upstreams_are_not_claimed BEFORE UPDATE ON upstreams
    FOR EACH ROW WHEN (NEW.lease_epoch <> OLD.lease_epoch)
    EXECUTE FUNCTION upstream_is_not_claimed();

-- Rotations of data keys, which write no row of the trail until their end: the keys that were read for an export stay those under
-- which its values are sealed. Passed over, as claims are. A master key may be exchanged.
CREATE FUNCTION data_key_does_not_rotate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One that was under way when the app began to drain may end.
    IF EXISTS (SELECT FROM app_fences f
               WHERE f.app_id = NEW.app_id AND (f.state <> 'draining' OR OLD.rotation IS NULL)) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER data_keys_do_not_rotate BEFORE UPDATE ON data_keys
    FOR EACH ROW WHEN (NEW.id <> OLD.id OR NEW.rotation IS DISTINCT FROM OLD.rotation AND OLD.rotation IS NULL)
    EXECUTE FUNCTION data_key_does_not_rotate();

-- What writes no row of the trail. After the insert: its transaction has an id by then, for which a fence waits.
CREATE FUNCTION row_is_refused_if_fenced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse_if_fenced(NEW.app_id);
    RETURN NULL;
END $$;
CREATE TRIGGER users_are_refused AFTER INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION row_is_refused_if_fenced();
CREATE TRIGGER link_tokens_are_refused AFTER INSERT ON link_tokens
    FOR EACH ROW EXECUTE FUNCTION row_is_refused_if_fenced();
CREATE TRIGGER plaid_webhooks_are_refused AFTER INSERT ON plaid_webhooks
    FOR EACH ROW EXECUTE FUNCTION row_is_refused_if_fenced();

-- Everything else writes a row of the trail. What concerns the whole deployment is recorded in every app's trail and must not
-- fail because one of them has moved; neither must an archive of what is left of it.
CREATE OR REPLACE FUNCTION audit_events_await_their_links() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fenced uuid;
BEGIN
    INSERT INTO audit_unlinked (app_id, event_id) SELECT app_id, id FROM added;
    IF NOT EXISTS (SELECT FROM app_fences) THEN
        RETURN NULL;
    END IF;
    SELECT f.app_id INTO fenced FROM app_fences f
    WHERE f.state IN ('closed', 'moved', 'settling') AND EXISTS (
        SELECT FROM added a
        WHERE a.app_id = f.app_id AND a.action NOT IN ('app.exported', 'audit.archived')
          AND a.action !~ '^(operator|signing_key|master_key|data_keys?|approval)\.')
    LIMIT 1;
    IF fenced IS NOT NULL THEN
        PERFORM refuse_if_fenced(fenced);
    END IF;
    RETURN NULL;
END $$;

-- Events that an arriving connection had are among the events that arrive.
CREATE OR REPLACE FUNCTION connection_counts_its_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One condition inside the other: PL/pgSQL evaluates the first without a query.
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = NEW.app_id) THEN
            RETURN NEW;
        END IF;
    END IF;
    IF NEW.event_transaction IS DISTINCT FROM txid_current() THEN
        NEW.event_sequence := NEW.event_sequence + 1;
        NEW.event_transaction := txid_current();
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION connection_tells_of_its_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text := NEW.status;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM app_fences f WHERE f.app_id = NEW.app_id) THEN
            RETURN NULL;
        END IF;
    END IF;
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

-- By how much the due work of an app that moves is put off: about a hundred years, in hours, so that taking it back is exact in
-- any time zone.
CREATE FUNCTION parking_time() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT interval '876000 hours' $$;

-- Deliveries of events that arrive do so too. Those of a fenced app wait for whoever goes on with it.
CREATE OR REPLACE FUNCTION events_are_delivered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (endpoint_id, app_id, position, due_at)
    SELECT e.id, a.app_id, a.position,
           strongroom_now() + CASE WHEN coalesce(f.state, 'draining') = 'draining' THEN interval '0' ELSE parking_time() END
    FROM added a JOIN webhook_endpoints e ON e.app_id = a.app_id LEFT JOIN app_fences f ON f.app_id = a.app_id
    WHERE f.state IS DISTINCT FROM 'arriving'
      AND CASE WHEN a.endpoint_id IS NULL
               THEN e.disabled_at IS NULL AND (e.types IS NULL OR a.type = ANY (e.types))
               ELSE e.id = a.endpoint_id END;
    RETURN NULL;
END $$;

-- Puts off what is due for an app, or takes that back. A lease that ran out stays known as an attempt without an answer.
CREATE FUNCTION shift_due_work(app uuid, by interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE connections c
    SET due_at = c.due_at + by, leased_until = NULL,
        unanswered = c.unanswered OR (c.code IS NOT NULL AND c.leased_until IS NOT NULL)
    WHERE c.app_id = app AND c.due_at IS NOT NULL;
    UPDATE connections c SET details_due_at = c.details_due_at + by WHERE c.app_id = app AND c.details_due_at IS NOT NULL;
    UPDATE token_rotations r SET due_at = r.due_at + by WHERE r.app_id = app;
    UPDATE bulk_revocations r SET next_release_at = r.next_release_at + by, mark_at = r.mark_at + by
    WHERE r.app_id = app AND r.finished_at IS NULL;
    UPDATE erasures e SET due_at = e.due_at + by WHERE e.app_id = app AND e.due_at IS NOT NULL;
    UPDATE webhook_deliveries d SET due_at = d.due_at + by WHERE d.app_id = app AND d.due_at IS NOT NULL;
END $$;

-- As before, and what was imported is written by the owner alone, as the archives are: `audit verify` goes by it.
CREATE OR REPLACE FUNCTION strongroom_grant_to_service(service text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held   record;
    rights text;
BEGIN
    -- Replicas that start together would update the same rows of the catalogue.
    PERFORM pg_advisory_xact_lock(hashtext('strongroom_grant_to_service'));
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema, service);
    FOR held IN
        SELECT t.tablename, c.relispartition
        FROM pg_tables t JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', t.schemaname, t.tablename))
        WHERE t.schemaname = current_schema AND pg_has_role(current_user, t.tableowner, 'USAGE')
    LOOP
        rights := CASE
            WHEN held.relispartition THEN ''
            WHEN held.tablename IN ('audit_events', 'audit_links') THEN 'SELECT, INSERT'
            WHEN held.tablename IN ('_sqlx_migrations', 'audit_months', 'audit_heads', 'audit_archives', 'app_imports')
                THEN 'SELECT'
        END;
        IF rights IS NULL THEN
            rights := 'SELECT, INSERT, UPDATE, DELETE';
        ELSE
            EXECUTE format('REVOKE ALL ON TABLE %I.%I FROM %I', current_schema, held.tablename, service);
        END IF;
        IF rights <> '' THEN
            EXECUTE format('GRANT %s ON TABLE %I.%I TO %I', rights, current_schema, held.tablename, service);
        END IF;
    END LOOP;
    FOR held IN
        SELECT viewname FROM pg_views
        WHERE schemaname = current_schema AND pg_has_role(current_user, viewowner, 'USAGE')
    LOOP
        EXECUTE format('GRANT SELECT ON TABLE %I.%I TO %I', current_schema, held.viewname, service);
    END LOOP;
END $$;
