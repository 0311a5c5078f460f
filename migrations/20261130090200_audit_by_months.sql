-- The third step: both tables become partitioned, and what there was their first part. Catalogue alone: the names, columns and
-- keys that the release before uses stay.

-- The last link of each app's chain. It outlives the months, so that a chain goes on after its links are archived, and no
-- position is ever given twice: a key of the partitions alone could not see that.
CREATE TABLE audit_heads (
    app_id uuid PRIMARY KEY,
    seq    bigint NOT NULL CHECK (seq > 0),
    hash   bytea NOT NULL CHECK (length(hash) = 32)
);

-- The parts that there were get names of their own.
ALTER TABLE audit_events RENAME TO audit_events_before;
ALTER TABLE audit_links RENAME TO audit_links_before;
ALTER INDEX audit_events_pkey RENAME TO audit_events_before_pkey;
ALTER INDEX audit_links_pkey RENAME TO audit_links_before_pkey;
ALTER INDEX audit_links_app_id_event_id_key RENAME TO audit_links_before_app_id_event_id_key;
ALTER INDEX audit_links_of_a_user RENAME TO audit_links_before_of_a_user;
ALTER INDEX audit_links_of_a_connection RENAME TO audit_links_before_of_a_connection;
DROP TRIGGER audit_events_await_their_links ON audit_events_before;

-- Behind the locks of those names: no link is inserted in between.
INSERT INTO audit_heads (app_id, seq, hash)
SELECT a.id, l.seq, l.hash
FROM apps a, LATERAL (SELECT seq, hash FROM audit_links_before WHERE app_id = a.id ORDER BY seq DESC LIMIT 1) l;

CREATE TABLE audit_events (LIKE audit_events_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id);
ALTER TABLE audit_events DROP CONSTRAINT audit_events_before_end, ADD PRIMARY KEY (app_id, id);
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only();
CREATE TRIGGER audit_events_await_their_links AFTER INSERT ON audit_events
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_await_their_links();

-- A link stands in its row's month. Its position is unique in each part by the part's own key (see audit_add_part), and in
-- all of them together by `audit_heads`.
CREATE TABLE audit_links (LIKE audit_links_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (event_id);
ALTER TABLE audit_links DROP CONSTRAINT audit_links_before_end, ADD UNIQUE (app_id, event_id);
CREATE INDEX audit_links_of_a_user ON audit_links (user_id, event_id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_links_of_a_connection ON audit_links (connection_id, event_id) WHERE connection_id IS NOT NULL;
CREATE TRIGGER audit_links_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_links
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only();

DO $$
DECLARE
    bound uuid := first_id_at((SELECT ends_at FROM audit_months WHERE name = 'before'));
BEGIN
    EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION audit_events_before FOR VALUES FROM (MINVALUE) TO (%L)', bound);
    EXECUTE format('ALTER TABLE audit_links ATTACH PARTITION audit_links_before FOR VALUES FROM (MINVALUE) TO (%L)', bound);
END $$;

-- What an append-only trigger of the whole does not see: statements that name a part.
CREATE FUNCTION audit_add_part(events text, links text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    granted record;
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', events);
    EXECUTE format('CREATE TABLE %I (LIKE audit_links INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,
                                     PRIMARY KEY (app_id, seq))', links);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only()', events);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_append_only()', links);
    -- The service reads and inserts through the whole. The owner's default privileges would let it change a part.
    FOR granted IN
        SELECT DISTINCT c.relname, a.grantee
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid IN (to_regclass(quote_ident(events)), to_regclass(quote_ident(links))) AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %I FROM %s', granted.relname,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION audit_add_part(text, text) FROM PUBLIC;

-- Where a row goes for whose month there is no part: nothing that is written ever fails for want of one.
SELECT audit_add_part('audit_events_rest', 'audit_links_rest');
ALTER TABLE audit_events ATTACH PARTITION audit_events_rest DEFAULT;
ALTER TABLE audit_links ATTACH PARTITION audit_links_rest DEFAULT;

-- Adds the parts of one month, unless it has some. Rows of it that are in the rest move, up to `most`: they are locked
-- meanwhile. Waits a second for its locks, like a migration.
CREATE FUNCTION audit_add_month(month timestamp, most bigint) RETURNS boolean LANGUAGE plpgsql
    SET lock_timeout = '1s' AS $$
DECLARE
    part   text := to_char(month, 'YYYY_MM');
    first  timestamptz := month AT TIME ZONE 'UTC';
    next   timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
    bounds text := format('FROM (%L) TO (%L)', first_id_at(first), first_id_at(next));
    moving bigint;
BEGIN
    IF EXISTS (SELECT FROM audit_months m WHERE m.name = part OR m.ends_at > first AND m.begins_at < next) THEN
        RETURN false;
    END IF;
    PERFORM audit_add_part('audit_events_' || part, 'audit_links_' || part);
    SELECT count(*) INTO moving FROM (
        SELECT FROM audit_events_rest WHERE id >= first_id_at(first) AND id < first_id_at(next) LIMIT most + 1) r;
    IF moving > most THEN
        RAISE EXCEPTION 'more than % rows of % are in audit_events_rest', most, part
            USING HINT = 'At a quiet time the owner moves them with SELECT audit_add_months(1000000000).';
    ELSIF moving > 0 THEN
        LOCK TABLE audit_events_rest, audit_links_rest IN ACCESS EXCLUSIVE MODE;
        ALTER TABLE audit_events_rest DISABLE TRIGGER append_only;
        ALTER TABLE audit_links_rest DISABLE TRIGGER append_only;
        EXECUTE format('WITH moved AS (DELETE FROM audit_events_rest WHERE id >= $1 AND id < $2 RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', 'audit_events_' || part)
            USING first_id_at(first), first_id_at(next);
        EXECUTE format('WITH moved AS (DELETE FROM audit_links_rest WHERE event_id >= $1 AND event_id < $2 RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', 'audit_links_' || part)
            USING first_id_at(first), first_id_at(next);
        ALTER TABLE audit_events_rest ENABLE TRIGGER append_only;
        ALTER TABLE audit_links_rest ENABLE TRIGGER append_only;
    END IF;
    EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES %s', 'audit_events_' || part, bounds);
    EXECUTE format('ALTER TABLE audit_links ATTACH PARTITION %I FOR VALUES %s', 'audit_links_' || part, bounds);
    INSERT INTO audit_months (name, begins_at, ends_at) VALUES (part, first, next);
    RETURN true;
END $$;
REVOKE EXECUTE ON FUNCTION audit_add_month(timestamp, bigint) FROM PUBLIC;

-- Adds what is missing of this month and the two after it, and of months that have rows in the rest. Returns how many.
CREATE FUNCTION audit_add_months(most bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month timestamp;
    added integer := 0;
BEGIN
    -- Replicas that do so at the same moment.
    PERFORM pg_advisory_xact_lock(hashtext('strongroom_audit_months'));
    -- As an array: the rest cannot be altered while a statement reads it.
    FOREACH month IN ARRAY ARRAY(
        SELECT date_trunc('month', strongroom_now() AT TIME ZONE 'UTC') + n * interval '1 month' FROM generate_series(0, 2) n
        UNION
        SELECT date_trunc('month', to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
                                   AT TIME ZONE 'UTC')
        FROM audit_events_rest
        ORDER BY 1)
    LOOP
        added := added + audit_add_month(month, most)::integer;
    END LOOP;
    RETURN added;
END $$;
REVOKE EXECUTE ON FUNCTION audit_add_months(bigint) FROM PUBLIC;

-- The same for the service, whose role may create no table: as the owner, without an argument that it could choose. What it
-- moves takes a moment.
CREATE FUNCTION audit_prepare_months() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$
    SELECT audit_add_months(20000)
$$;

-- Continues the head of each chain, or refuses: positions follow each other without a gap, whoever inserts, in whatever month.
-- As the owner: nobody else changes the heads.
CREATE FUNCTION audit_links_continue_their_chains() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    piece record;
BEGIN
    FOR piece IN
        SELECT app_id, min(seq) AS first, max(seq) AS last, count(DISTINCT seq) AS positions, count(*) AS links
        FROM added GROUP BY app_id ORDER BY app_id
    LOOP
        INSERT INTO audit_heads AS h (app_id, seq, hash)
        SELECT app_id, seq, hash FROM added
        WHERE app_id = piece.app_id AND seq = piece.last
          AND piece.links = piece.positions AND piece.last - piece.first + 1 = piece.positions
          AND piece.first = 1 + coalesce((SELECT k.seq FROM audit_heads k WHERE k.app_id = piece.app_id FOR UPDATE), 0)
        ON CONFLICT (app_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash WHERE h.seq = piece.first - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'links from % on do not continue the chain', piece.first USING ERRCODE = 'unique_violation';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_links_continue_their_chains AFTER INSERT ON audit_links
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION audit_links_continue_their_chains();

-- What was archived: one file for each app and month.
CREATE TABLE audit_archives (
    app_id      uuid NOT NULL,
    month       text NOT NULL REFERENCES audit_months,
    -- What the file says, signed: which links it holds, from which hash to which (src/audit/archive).
    statement   text NOT NULL,
    -- Where it was written, for people.
    location    text NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT strongroom_now(),
    PRIMARY KEY (app_id, month)
);

-- The parts are reached through the whole alone, and what only the owner writes is read.
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
            WHEN held.tablename IN ('_sqlx_migrations', 'audit_months', 'audit_heads', 'audit_archives') THEN 'SELECT'
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

-- Who could use the tables before goes on without a moment in which they cannot, and with no more than they could, whatever the
-- owner's default privileges give.
DO $$
DECLARE
    held  record;
    named text;
BEGIN
    FOR held IN
        SELECT c.relname, a.grantee, a.grantee::regrole::text AS role, a.privilege_type AS may
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = ANY (ARRAY['audit_events', 'audit_links', 'audit_heads', 'audit_months', 'audit_archives']::regclass[])
          AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %I FROM %s', held.relname, CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE held.role END);
    END LOOP;
    FOR held IN
        SELECT c.relname, a.grantee, a.grantee::regrole::text AS role, a.privilege_type AS may
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = ANY (ARRAY['audit_events_before', 'audit_links_before']::regclass[]) AND a.grantee <> c.relowner
    LOOP
        named := CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE held.role END;
        IF held.may IN ('SELECT', 'INSERT') THEN
            EXECUTE format('GRANT %s ON TABLE %I TO %s', held.may, replace(held.relname, '_before', ''), named);
            EXECUTE format('GRANT SELECT ON TABLE audit_heads, audit_months, audit_archives TO %s', named);
        END IF;
        EXECUTE format('REVOKE ALL ON TABLE %I FROM %s', held.relname, named);
    END LOOP;
END $$;

-- What runs as the owner finds this schema's objects and no temporary ones of its caller.
DO $$
DECLARE
    called regprocedure;
BEGIN
    FOREACH called IN ARRAY ARRAY['audit_prepare_months()', 'audit_add_months(bigint)', 'audit_add_month(timestamp, bigint)',
                                  'audit_links_continue_their_chains()']::regprocedure[]
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', called, current_schema);
    END LOOP;
END $$;

SELECT audit_add_months(0);
