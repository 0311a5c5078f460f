-- What an operator asks of millions of connections: lists of an app or of one of its statuses, and how many there are.

-- Lists go over one number that says whose connections, or whose in which status, so that no other index can answer any
-- part of their conditions (ADR 11), and an entry is small. Two that collide share a range of the index: statements compare the
-- columns as well.
CREATE FUNCTION list_key(app uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT uuid_hash_extended(app, 0)
$$;
CREATE FUNCTION list_key(app uuid, status text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended(status, uuid_hash_extended(app, 0))
$$;

-- Counts of an app's connections by status, pending ones excepted: in all, by the hour of their arrival for 32 days, and by
-- its minute for two hours. Changes below are not in it yet.
CREATE TABLE connection_counts (
    app_id uuid NOT NULL,
    span   text NOT NULL CHECK (span IN ('all', 'hour', 'minute')),
    status text NOT NULL,
    since  timestamptz NOT NULL,
    n      bigint NOT NULL,
    PRIMARY KEY (app_id, span, status, since)
) WITH (fillfactor = 80);
CREATE INDEX connection_counts_by_age ON connection_counts (span, since) WHERE span <> 'all';

-- One row for each change of a status that the counts do not contain yet. Writers append and share no row; the background
-- work moves the rows to the counts, in one statement, so that every snapshot sees each change once. No index: it is emptied
-- from one end to the other.
CREATE TABLE connection_count_changes (
    app_id     uuid NOT NULL,
    created_at timestamptz NOT NULL,
    was        text,
    status     text
);
ALTER TABLE connection_count_changes SET (
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- Pending connections are not counted: they are few, and found by their index. So an exchange appends one row.
CREATE FUNCTION connection_is_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO connection_count_changes (app_id, created_at, was, status)
        VALUES (NEW.app_id, NEW.created_at, nullif(OLD.status, 'pending'), nullif(NEW.status, 'pending'));
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO connection_count_changes (app_id, created_at, status)
        VALUES (NEW.app_id, NEW.created_at, NEW.status);
    ELSE
        INSERT INTO connection_count_changes (app_id, created_at, was)
        VALUES (OLD.app_id, OLD.created_at, OLD.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER connections_are_counted AFTER UPDATE ON connections
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION connection_is_counted();
CREATE TRIGGER connections_are_counted_first AFTER INSERT ON connections
    FOR EACH ROW WHEN (NEW.status <> 'pending') EXECUTE FUNCTION connection_is_counted();
CREATE TRIGGER connections_are_counted_last AFTER DELETE ON connections
    FOR EACH ROW WHEN (OLD.status <> 'pending') EXECUTE FUNCTION connection_is_counted();

-- What one change adds to which counts. PostgreSQL inlines it.
CREATE FUNCTION count_change(created_at timestamptz, was text, status text)
    RETURNS TABLE (span text, status text, since timestamptz, n integer) LANGUAGE sql STABLE AS $$
    SELECT p.span, s.status, p.since, s.n
    FROM (VALUES (was, -1), (status, 1)) s (status, n),
         (VALUES ('all', '-infinity'::timestamptz), ('hour', date_trunc('hour', created_at, 'UTC')),
                 ('minute', date_trunc('minute', created_at, 'UTC'))) p (span, since)
    WHERE s.status IS NOT NULL
$$;

-- Whether counts of this span are kept. A connection's age grows, so a count that is not kept any more never is again.
CREATE FUNCTION is_count_kept(span text, since timestamptz, now timestamptz) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE span WHEN 'all' THEN true
                     WHEN 'hour' THEN since >= now - interval '32 days'
                     ELSE since >= now - interval '2 hours' END
$$;

-- Counts all connections from the beginning, in one snapshot: run it in a transaction that is REPEATABLE READ. For a table
-- that grew before it was counted, or without its triggers.
CREATE FUNCTION recount_connections() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM connection_counts;
    DELETE FROM connection_count_changes;
    INSERT INTO connection_counts (app_id, span, status, since, n)
    SELECT c.app_id, k.span, k.status, k.since, sum(c.n)
    FROM (SELECT c.app_id, c.status, count(*) AS n,
                 -- As few groups as are kept.
                 CASE WHEN c.created_at >= t.now - interval '33 days'
                      THEN date_trunc('minute', c.created_at, 'UTC') ELSE '-infinity' END AS minute
          FROM connections c, (SELECT strongroom_now() AS now) t
          WHERE c.status <> 'pending' GROUP BY 1, 2, 4) c
    CROSS JOIN LATERAL count_change(c.minute, NULL, c.status) k
    WHERE is_count_kept(k.span, k.since, (SELECT strongroom_now()))
    GROUP BY 1, 2, 3, 4;
END $$;
