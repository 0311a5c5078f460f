-- Bulk revocations that take effect with one small commit. An order says by itself whom it means, and
-- whatever reads or uses a token asks the orders that are in force: those whose connections are not all
-- marked yet. The rows are marked afterwards, in batches that skip what is locked.

-- In which order connections came. A clock can be set back; this cannot. Connections that were there
-- before this migration have none, and came before every order.
CREATE SEQUENCE connection_ordinals;
-- The role that serves requests draws from it, whatever it is called.
GRANT USAGE ON SEQUENCE connection_ordinals TO PUBLIC;
ALTER TABLE connections ADD COLUMN ordinal bigint;
ALTER SEQUENCE connection_ordinals OWNED BY connections.ordinal;

-- An order means the connections for which all of this holds.
ALTER TABLE revocation_orders
    -- They came before it.
    ADD COLUMN before_ordinal bigint NOT NULL DEFAULT 0,
    ADD COLUMN created_before timestamptz,
    ADD COLUMN created_after  timestamptz,
    ADD COLUMN client_id      text,
    -- Their user, their id is among the targets.
    ADD COLUMN by_user        boolean NOT NULL DEFAULT false,
    ADD COLUMN by_connection  boolean NOT NULL DEFAULT false,
    -- The erasure that this revocation is a part of. No operator sees it, and it goes when it is marked.
    ADD COLUMN erasure        uuid UNIQUE,
    -- How far the marking has come: the next row in this status, and whether this pass left one out
    -- because it was locked.
    ADD COLUMN mark_status    text NOT NULL DEFAULT 'pending' CHECK (mark_status IN ('pending', 'active')),
    ADD COLUMN mark_after     uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN mark_missed    boolean NOT NULL DEFAULT false,
    -- Whatever was being added when the order was given is there, or will never be.
    ADD COLUMN mark_settled   boolean NOT NULL DEFAULT false,
    ADD COLUMN mark_at        timestamptz NOT NULL DEFAULT strongroom_now(),
    -- When no connection that it means was left usable. Until then it is in force.
    ADD COLUMN marked_at      timestamptz,
    -- Counted when all are marked.
    ALTER COLUMN matched DROP NOT NULL,
    ALTER COLUMN matched DROP DEFAULT;
-- A foreign key has every insert lock the app's one row, which somebody else may have locked.
ALTER TABLE revocation_orders DROP CONSTRAINT revocation_orders_app_id_fkey;
ALTER TABLE erasures DROP CONSTRAINT erasures_app_id_fkey;
-- Orders of earlier releases marked their connections as they were given.
UPDATE revocation_orders SET marked_at = created_at;
ALTER TABLE revocation_orders
    ADD CONSTRAINT revocation_orders_marked CHECK (
        (marked_at IS NULL) = (matched IS NULL) AND (marked_at IS NOT NULL OR finished_at IS NULL));
-- As a rule empty: what a reading of a token costs is one look into it.
CREATE INDEX revocation_orders_in_force ON revocation_orders (app_id) WHERE marked_at IS NULL;
CREATE INDEX revocation_orders_to_mark ON revocation_orders (mark_at) WHERE marked_at IS NULL;
-- Which orders came after a session began.
CREATE INDEX revocation_orders_by_time ON revocation_orders (app_id, created_at);

-- The users and connections that an order names, by their random ids alone. Forgotten a day after the
-- last of them was marked, when no token can come late any more.
CREATE TABLE revocation_order_targets (
    order_id uuid NOT NULL REFERENCES revocation_orders ON DELETE CASCADE,
    target   uuid NOT NULL,
    PRIMARY KEY (order_id, target)
);

-- The orders that mean a connection. Set-returning and stable, so that PostgreSQL inlines it.
CREATE FUNCTION orders_meaning(
    app uuid, connection uuid, of_user uuid, received_at timestamptz, received_from text, came bigint
) RETURNS SETOF revocation_orders LANGUAGE sql STABLE AS $$
    SELECT o.* FROM revocation_orders o
    WHERE o.app_id = app AND o.before_ordinal > coalesce(came, 0)
      AND (o.created_before IS NULL OR received_at < o.created_before)
      AND (o.created_after IS NULL OR received_at >= o.created_after)
      AND (o.client_id IS NULL OR received_from = o.client_id)
      AND (NOT o.by_user OR EXISTS (
          SELECT FROM revocation_order_targets t WHERE t.order_id = o.id AND t.target = of_user))
      AND (NOT o.by_connection OR EXISTS (
          SELECT FROM revocation_order_targets t WHERE t.order_id = o.id AND t.target = connection))
$$;

-- Two locks of an app, held until the transaction ends. They are PostgreSQL's advisory ones: in memory,
-- fair, and held by nothing else, whichever rows are locked.
--
-- Whoever uses a token holds the first one, shared; an order takes it alone, for its commit.
CREATE FUNCTION usage_lock(app uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended('use ' || app::text, 0)
$$;
-- Whoever adds a connection, or brings one back from an end, holds the second one, shared; the marking
-- takes it alone, once, so that nothing that began before the order comes after it.
CREATE FUNCTION arrival_lock(app uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended('arrival ' || app::text, 0)
$$;

-- Begins the use of an app's tokens: no order is committed before this transaction is. Tells whether
-- one is in force. Volatile, so that it looks after it has the lock: the statement that calls it may have
-- begun long before.
CREATE FUNCTION begin_use(app uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(usage_lock(app));
    RETURN EXISTS (SELECT FROM revocation_orders o WHERE o.app_id = app AND o.marked_at IS NULL);
END $$;

-- Whether an order that is in force means a connection, as it is now and not when the statement began.
CREATE FUNCTION is_revoked_by_order(
    app uuid, connection uuid, of_user uuid, received_at timestamptz, received_from text, came bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM orders_meaning(app, connection, of_user, received_at, received_from, came) o
        WHERE o.marked_at IS NULL);
END $$;

-- A connection takes its ordinal, unless its user is being erased: nothing new is received for them. A
-- user who is gone already is told of in the same way.
CREATE FUNCTION connection_arrives() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(arrival_lock(NEW.app_id));
    IF EXISTS (SELECT FROM erasures e WHERE e.user_id = NEW.user_id) THEN
        RAISE EXCEPTION 'the user is being erased' USING ERRCODE = 'foreign_key_violation';
    END IF;
    NEW.ordinal := nextval('connection_ordinals');
    RETURN NEW;
END $$;
CREATE TRIGGER connections_arrive BEFORE INSERT ON connections
    FOR EACH ROW EXECUTE FUNCTION connection_arrives();

-- Whether a user is being erased is told by `erasures` alone from now on: a row of `users` that somebody
-- has locked must not keep an erasure from beginning. `users.erasing_since` is not written any more.
COMMENT ON COLUMN users.erasing_since IS 'unused; erasures tells who is being erased';
