-- Data keys rotate while the service runs (ADR 24).
--
-- While a key rotates, its row holds two: `id` and `wrapped` seal, and `other_id` and `other_wrapped` only open. Both are
-- wrapped by the row's master key. Every statement that loads a key loads both, so that whatever it reads opens.
-- published: the other is the next one; nothing is sealed under it until every statement in flight has seen it.
-- switched: the other is the former one; what is sealed under it is sealed anew, and then it is destroyed.
ALTER TABLE data_keys
    ADD COLUMN other_id uuid,
    ADD COLUMN other_wrapped bytea,
    ADD COLUMN rotation text CHECK (rotation IN ('published', 'switched')),
    -- Since when the rotation is in this state.
    ADD COLUMN rotation_at timestamptz,
    ADD CONSTRAINT data_keys_rotation CHECK (
        (other_id IS NULL) = (rotation IS NULL) AND (other_wrapped IS NULL) = (rotation IS NULL)
        AND (rotation_at IS NULL) = (rotation IS NULL)) NOT VALID;
CREATE UNIQUE INDEX data_keys_others ON data_keys (other_id) WHERE other_id IS NOT NULL;

ALTER TYPE wrapped_key ADD ATTRIBUTE other_id uuid, ADD ATTRIBUTE other_wrapped bytea;
CREATE OR REPLACE FUNCTION key_of(data_key data_keys) RETURNS wrapped_key LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ROW(data_key.id, data_key.app_id, data_key.user_id, data_key.master_key_id, data_key.wrapped,
               data_key.other_id, data_key.other_wrapped)::wrapped_key
$$;

-- A key that no row holds any more is destroyed: replicas drop it from memory, and do not keep it again.
CREATE OR REPLACE FUNCTION record_data_key_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO data_key_changes (data_key_id, destroyed)
    SELECT c.id, TG_OP = 'DELETE' FROM changed c
    UNION ALL
    SELECT c.other_id, NOT EXISTS (
               SELECT FROM data_keys k WHERE k.id = c.other_id OR k.other_id = c.other_id)
    FROM changed c WHERE c.other_id IS NOT NULL;
    RETURN NULL;
END $$;

-- Every value that is sealed under the key of a user or of an app. `place` is the column of its AAD context, which a
-- renamed table did not change; `row_id` is the row of that context. What this leaves out keeps no key alive:
-- tests/api/key_rotation.rs compares it with the columns that there are.
CREATE VIEW sealed_values AS
    SELECT 'connections.code' AS place, c.app_id, c.user_id, c.id AS row_id, c.code AS value, NULL::bytea AS binding
    FROM connections c
    UNION ALL
    SELECT 'connections.access_token', c.app_id, c.user_id, c.id, c.access_token,
           coalesce(c.revocation_binding, b.binding)
    FROM connections c LEFT JOIN token_bindings b ON b.connection_id = c.id
    UNION ALL
    SELECT 'connections.user_secret', c.app_id, c.user_id, c.id, c.user_secret, NULL FROM connections c
    UNION ALL
    SELECT 'superseded_tokens.access_token', c.app_id, c.user_id, c.id, k.access_token, k.binding
    FROM connections c JOIN superseded_tokens k ON k.connection_id = c.id
    UNION ALL
    SELECT 'superseded_tokens.user_secret', c.app_id, c.user_id, c.id, k.user_secret, NULL
    FROM connections c JOIN superseded_tokens k ON k.connection_id = c.id
    UNION ALL
    SELECT 'proxy_tokens.token', c.app_id, c.user_id, c.id, s.token, NULL
    FROM connections c JOIN proxy_tokens s ON s.connection_id = c.id
    UNION ALL
    SELECT 'link_tokens.token', l.app_id, l.user_id, l.id, l.token, NULL FROM link_tokens l
    UNION ALL
    SELECT 'apps.app_secret', a.id, NULL, a.id, a.app_secret, NULL FROM apps a
    UNION ALL
    SELECT 'upstreams.client_secret', u.app_id, NULL, u.id, u.client_secret, NULL FROM upstreams u
    UNION ALL
    SELECT 'upstreams.access_token', u.app_id, NULL, u.id, u.access_token, NULL FROM upstreams u
    UNION ALL
    SELECT 'webhook_secrets.secret', e.app_id, NULL, s.id, s.secret, NULL
    FROM webhook_endpoints e JOIN webhook_secrets s ON s.endpoint_id = e.id
    UNION ALL
    SELECT 'webhook_secrets.signing_key', e.app_id, NULL, s.id, s.signing_key, NULL
    FROM webhook_endpoints e JOIN webhook_secrets s ON s.endpoint_id = e.id;

-- The id of the data key that sealed a value: it follows the format's byte.
CREATE FUNCTION sealing_key(value bytea) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN length(value) >= 17 THEN encode(substring(value FROM 2 FOR 16), 'hex')::uuid END
$$;

-- The keys that rotations have destroyed, for ever: nothing is stored under them any more.
CREATE TABLE destroyed_data_keys (
    id           uuid PRIMARY KEY,
    destroyed_at timestamptz NOT NULL DEFAULT strongroom_now()
);

-- Refuses a value whose key was destroyed, and keeps a key until the transaction that writes under it has ended: the
-- destruction takes a lock that conflicts with this one, and looks afterwards. A task that opened the key before it was
-- destroyed gets the error, and seals anew (`vault::is_key_destroyed`).
CREATE FUNCTION hold_data_key(key uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM data_keys k WHERE k.id = key FOR KEY SHARE;
    IF FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM data_keys k WHERE k.other_id = key FOR KEY SHARE;
    IF FOUND THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM destroyed_data_keys d WHERE d.id = key) THEN
        RAISE EXCEPTION 'a value is sealed under data key %, which was destroyed', key USING ERRCODE = 'SR001';
    END IF;
END $$;

CREATE FUNCTION connection_holds_its_keys() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    token uuid := sealing_key(coalesce(NEW.access_token, NEW.code));
    secret uuid := sealing_key(NEW.user_secret);
BEGIN
    IF token IS NOT NULL THEN
        -- The first look of the function, without a call: as a rule it is enough.
        PERFORM FROM data_keys k WHERE k.id = token FOR KEY SHARE;
        IF NOT FOUND THEN
            PERFORM hold_data_key(token);
        END IF;
    END IF;
    -- As a rule one key for both.
    IF secret IS NOT NULL AND secret IS DISTINCT FROM token THEN
        PERFORM hold_data_key(secret);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER connections_hold_their_first_keys BEFORE INSERT ON connections
    FOR EACH ROW EXECUTE FUNCTION connection_holds_its_keys();
CREATE TRIGGER connections_hold_their_keys BEFORE UPDATE ON connections
    FOR EACH ROW WHEN (
        NEW.code IS NOT NULL AND NEW.code IS DISTINCT FROM OLD.code
        OR NEW.access_token IS NOT NULL AND NEW.access_token IS DISTINCT FROM OLD.access_token
        OR NEW.user_secret IS NOT NULL AND NEW.user_secret IS DISTINCT FROM OLD.user_secret)
    EXECUTE FUNCTION connection_holds_its_keys();

CREATE FUNCTION superseded_token_holds_its_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_data_key(sealing_key(NEW.access_token));
    IF NEW.user_secret IS NOT NULL THEN
        PERFORM hold_data_key(sealing_key(NEW.user_secret));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER superseded_tokens_hold_their_keys BEFORE INSERT OR UPDATE OF access_token, user_secret ON superseded_tokens
    FOR EACH ROW EXECUTE FUNCTION superseded_token_holds_its_keys();

CREATE FUNCTION token_holds_its_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_data_key(sealing_key(NEW.token));
    RETURN NEW;
END $$;
CREATE TRIGGER proxy_tokens_hold_their_key BEFORE INSERT OR UPDATE OF token ON proxy_tokens
    FOR EACH ROW EXECUTE FUNCTION token_holds_its_key();
CREATE TRIGGER link_tokens_hold_their_key BEFORE INSERT OR UPDATE OF token ON link_tokens
    FOR EACH ROW EXECUTE FUNCTION token_holds_its_key();

-- A new app's key is inserted after it, in the same transaction.
CREATE FUNCTION app_holds_its_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_data_key(sealing_key(NEW.app_secret));
    RETURN NEW;
END $$;
CREATE TRIGGER apps_hold_their_key BEFORE UPDATE OF app_secret ON apps
    FOR EACH ROW EXECUTE FUNCTION app_holds_its_key();

CREATE FUNCTION upstream_holds_its_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_data_key(sealing_key(NEW.client_secret));
    IF NEW.access_token IS NOT NULL THEN
        PERFORM hold_data_key(sealing_key(NEW.access_token));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER upstreams_hold_their_first_keys BEFORE INSERT ON upstreams
    FOR EACH ROW EXECUTE FUNCTION upstream_holds_its_keys();
CREATE TRIGGER upstreams_hold_their_keys BEFORE UPDATE ON upstreams
    FOR EACH ROW WHEN (
        NEW.client_secret IS DISTINCT FROM OLD.client_secret
        OR NEW.access_token IS NOT NULL AND NEW.access_token IS DISTINCT FROM OLD.access_token)
    EXECUTE FUNCTION upstream_holds_its_keys();

CREATE FUNCTION webhook_secret_holds_its_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_data_key(sealing_key(NEW.secret));
    PERFORM hold_data_key(sealing_key(NEW.signing_key));
    RETURN NEW;
END $$;
CREATE TRIGGER webhook_secrets_hold_their_keys BEFORE INSERT OR UPDATE OF secret, signing_key ON webhook_secrets
    FOR EACH ROW EXECUTE FUNCTION webhook_secret_holds_its_keys();

-- The service reads views as well; it did not have any before.
CREATE OR REPLACE FUNCTION strongroom_grant_to_service(service text) RETURNS void LANGUAGE plpgsql AS $$
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
    FOR held IN
        SELECT viewname FROM pg_views
        WHERE schemaname = current_schema AND pg_has_role(current_user, viewowner, 'USAGE')
    LOOP
        EXECUTE format('GRANT SELECT ON TABLE %I.%I TO %I', current_schema, held.viewname, service);
    END LOOP;
END $$;
