-- The audit trail by months (ADR 33), the first of three steps. What there is becomes one part of it, with an end: without a
-- CHECK that says so, attaching it would read the whole of it while everybody waits.
--
-- Nothing is written beyond that end until the third step, which comes at once: it is four weeks away at least.

-- Returns the least id of a moment (RFC 9562 §5.7): rows are divided by their ids, which begin with their time, so that the
-- keys stay what they are.
CREATE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- The parts of the trail, each a partition of `audit_events` and one of `audit_links`. Months are those of UTC.
CREATE TABLE audit_months (
    -- What both tables' names end with.
    name       text PRIMARY KEY CHECK (name ~ '^(before|[0-9]{4}_[0-9]{2})$'),
    -- Of the ids in it, inclusive and exclusive.
    begins_at  timestamptz NOT NULL,
    ends_at    timestamptz NOT NULL,
    -- When it was dropped, after it had been archived.
    dropped_at timestamptz,
    CHECK (begins_at < ends_at)
);
-- Consecutive months share no moment.
CREATE UNIQUE INDEX audit_months_by_end ON audit_months (ends_at);

INSERT INTO audit_months (name, begins_at, ends_at)
SELECT 'before', '1970-01-01 00:00:00Z',
       (date_trunc('month', (strongroom_now() AT TIME ZONE 'UTC') + interval '28 days') + interval '1 month') AT TIME ZONE 'UTC';

DO $$
DECLARE
    bound uuid := first_id_at((SELECT ends_at FROM audit_months WHERE name = 'before'));
BEGIN
    EXECUTE format('ALTER TABLE audit_events ADD CONSTRAINT audit_events_before_end CHECK (id < %L::uuid) NOT VALID', bound);
    EXECUTE format('ALTER TABLE audit_links ADD CONSTRAINT audit_links_before_end CHECK (event_id < %L::uuid) NOT VALID', bound);
END $$;
