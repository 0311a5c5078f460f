-- How far the connections of a bulk revocation are, counted as they change: whoever asks reads no connection (ADR 36).

-- How far one connection is.
CREATE FUNCTION revocation_progress(status text, confirmed_at timestamptz, due_at timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN confirmed_at IS NOT NULL THEN 'told' WHEN status <> 'revoking' THEN 'failed'
                WHEN due_at IS NOT NULL THEN 'telling' ELSE 'waiting' END
$$;

-- Of the bulk revocations that have not finished; changes below are not in it yet. A finished one has its counts on its row.
CREATE TABLE bulk_revocation_counts (
    bulk_revocation_id uuid NOT NULL,
    progress           text NOT NULL CHECK (progress IN ('told', 'failed', 'telling', 'waiting')),
    n                  bigint NOT NULL,
    PRIMARY KEY (bulk_revocation_id, progress)
) WITH (fillfactor = 80);

-- One row for each connection that comes, goes, or is further than before. Writers append and share no row; the background work
-- moves the rows to the counts, in one statement, so that every snapshot sees each change once. No index, as for
-- `connection_count_changes`.
CREATE TABLE bulk_revocation_count_changes (
    bulk_revocation_id uuid NOT NULL,
    was                text,
    progress           text
);
ALTER TABLE bulk_revocation_count_changes SET (
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

CREATE FUNCTION bulk_revocation_is_counted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_id uuid;
    new_id uuid;
    was text;
    progress text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        old_id := OLD.bulk_revocation_id;
        was := revocation_progress(OLD.status, OLD.revocation_confirmed_at, OLD.due_at);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_id := NEW.bulk_revocation_id;
        progress := revocation_progress(NEW.status, NEW.revocation_confirmed_at, NEW.due_at);
    END IF;
    IF old_id = new_id THEN
        INSERT INTO bulk_revocation_count_changes (bulk_revocation_id, was, progress) VALUES (new_id, was, progress);
        RETURN NULL;
    END IF;
    IF old_id IS NOT NULL THEN
        INSERT INTO bulk_revocation_count_changes (bulk_revocation_id, was) VALUES (old_id, was);
    END IF;
    IF new_id IS NOT NULL THEN
        INSERT INTO bulk_revocation_count_changes (bulk_revocation_id, progress) VALUES (new_id, progress);
    END IF;
    RETURN NULL;
END $$;
-- An exchange, a reveal and a single delinking pay for the comparison with NULL alone.
CREATE TRIGGER bulk_revocations_are_counted AFTER UPDATE ON connections
    FOR EACH ROW WHEN (
        (OLD.bulk_revocation_id IS NOT NULL OR NEW.bulk_revocation_id IS NOT NULL)
        AND (OLD.bulk_revocation_id IS DISTINCT FROM NEW.bulk_revocation_id
             OR revocation_progress(OLD.status, OLD.revocation_confirmed_at, OLD.due_at)
                <> revocation_progress(NEW.status, NEW.revocation_confirmed_at, NEW.due_at)))
    EXECUTE FUNCTION bulk_revocation_is_counted();
CREATE TRIGGER bulk_revocations_are_counted_first AFTER INSERT ON connections
    FOR EACH ROW WHEN (NEW.bulk_revocation_id IS NOT NULL) EXECUTE FUNCTION bulk_revocation_is_counted();
CREATE TRIGGER bulk_revocations_are_counted_last AFTER DELETE ON connections
    FOR EACH ROW WHEN (OLD.bulk_revocation_id IS NOT NULL) EXECUTE FUNCTION bulk_revocation_is_counted();

-- What one change adds to which counts. PostgreSQL inlines it.
CREATE FUNCTION bulk_revocation_count_change(was text, progress text)
    RETURNS TABLE (progress text, n integer) LANGUAGE sql STABLE AS $$
    SELECT s.progress, s.n FROM (VALUES (was, -1), (progress, 1)) s (progress, n) WHERE s.progress IS NOT NULL
$$;

-- How far a bulk revocation that has not finished is. PostgreSQL inlines it.
CREATE FUNCTION progress_of_bulk_revocation(bulk_revocation uuid)
    RETURNS TABLE (told bigint, failed bigint, telling bigint, waiting bigint) LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(k.n) FILTER (WHERE k.progress = 'told'), 0)::bigint,
           coalesce(sum(k.n) FILTER (WHERE k.progress = 'failed'), 0)::bigint,
           coalesce(sum(k.n) FILTER (WHERE k.progress = 'telling'), 0)::bigint,
           coalesce(sum(k.n) FILTER (WHERE k.progress = 'waiting'), 0)::bigint
    FROM (SELECT c.progress, c.n FROM bulk_revocation_counts c WHERE c.bulk_revocation_id = bulk_revocation
          UNION ALL
          SELECT s.progress, s.n::bigint
          FROM bulk_revocation_count_changes c CROSS JOIN LATERAL bulk_revocation_count_change(c.was, c.progress) s
          WHERE c.bulk_revocation_id = bulk_revocation) k
$$;

-- Counts all that have not finished from the beginning, in one snapshot: run it in a transaction that is REPEATABLE READ. For
-- connections that were written without the triggers.
CREATE FUNCTION recount_bulk_revocations() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM bulk_revocation_counts;
    DELETE FROM bulk_revocation_count_changes;
    INSERT INTO bulk_revocation_counts (bulk_revocation_id, progress, n)
    SELECT c.bulk_revocation_id, revocation_progress(c.status, c.revocation_confirmed_at, c.due_at), count(*)
    FROM bulk_revocations o JOIN connections c ON c.bulk_revocation_id = o.id
    WHERE o.finished_at IS NULL GROUP BY 1, 2;
END $$;
