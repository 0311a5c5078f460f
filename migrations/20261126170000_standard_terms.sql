-- Names in the terms of the field. What is Dapi's says so; `connection_id` is Strongroom's id everywhere. Names
-- inside associated data, hashes and the audit trail are not the schema's, and stay as they are.

ALTER TABLE connections RENAME COLUMN connection_id TO dapi_connection_id;
ALTER TABLE connections RENAME COLUMN token_id TO dapi_token_id;
ALTER TABLE connections RENAME COLUMN revocation_order TO bulk_revocation_id;
ALTER TABLE connections RENAME CONSTRAINT connections_order TO connections_bulk_revocation;
ALTER INDEX connections_of_an_order RENAME TO connections_of_a_bulk_revocation;

ALTER TABLE clients RENAME COLUMN other_scopes TO external_scopes;

-- One call at a time with a token: its lease, and the callers that wait for it.
ALTER TABLE token_turns RENAME TO token_leases;
ALTER TABLE token_leases RENAME COLUMN turn TO lease_id;
ALTER INDEX token_turns_pkey RENAME TO token_leases_pkey;
ALTER TABLE token_queue RENAME TO token_lease_queue;
ALTER TABLE token_lease_queue RENAME COLUMN place TO position;
ALTER INDEX token_queue_pkey RENAME TO token_lease_queue_pkey;
ALTER SEQUENCE token_queue_place_seq RENAME TO token_lease_queue_position_seq;

ALTER TABLE stand_ins RENAME TO proxy_tokens;
ALTER INDEX stand_ins_pkey RENAME TO proxy_tokens_pkey;
ALTER INDEX stand_ins_hash_key RENAME TO proxy_tokens_hash_key;

ALTER TABLE revocation_orders RENAME TO bulk_revocations;
ALTER TABLE bulk_revocations RENAME CONSTRAINT revocation_orders_end TO bulk_revocations_end;
ALTER TABLE bulk_revocations RENAME CONSTRAINT revocation_orders_marked TO bulk_revocations_marked;
ALTER INDEX revocation_orders_pkey RENAME TO bulk_revocations_pkey;
ALTER INDEX revocation_orders_of_an_app RENAME TO bulk_revocations_of_an_app;
ALTER INDEX revocation_orders_open RENAME TO bulk_revocations_open;
ALTER INDEX revocation_orders_in_force RENAME TO bulk_revocations_in_force;
ALTER INDEX revocation_orders_to_mark RENAME TO bulk_revocations_to_mark;
ALTER INDEX revocation_orders_by_time RENAME TO bulk_revocations_by_time;
ALTER TABLE bulk_revocations RENAME COLUMN erasure TO erasure_id;
ALTER TABLE revocation_order_targets RENAME TO bulk_revocation_targets;
ALTER TABLE bulk_revocation_targets RENAME COLUMN order_id TO bulk_revocation_id;
ALTER INDEX revocation_order_targets_pkey RENAME TO bulk_revocation_targets_pkey;

-- The names that PostgreSQL derived from the tables' old ones.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT conrelid::regclass AS of_table, conname AS old,
               replace(replace(replace(conname, 'revocation_orders', 'bulk_revocations'),
                               'revocation_order_targets', 'bulk_revocation_targets'),
                       'stand_ins', 'proxy_tokens') AS new
        FROM pg_constraint
        WHERE connamespace = current_schema::regnamespace
          AND (conname LIKE 'revocation\_order%' OR conname LIKE 'stand\_ins%')
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', held.of_table, held.old, held.new);
    END LOOP;
END $$;

DROP FUNCTION is_revoked_by_order(uuid, uuid, uuid, timestamptz, text, bigint);
DROP FUNCTION orders_meaning(uuid, uuid, uuid, timestamptz, text, bigint);

-- The bulk revocations whose scope a connection is in. Set-returning and stable, so that PostgreSQL inlines it.
CREATE FUNCTION bulk_revocations_of(
    app uuid, connection uuid, of_user uuid, received_at timestamptz, received_from text, arrived bigint
) RETURNS SETOF bulk_revocations LANGUAGE sql STABLE AS $$
    SELECT r.* FROM bulk_revocations r
    WHERE r.app_id = app AND r.before_ordinal > coalesce(arrived, 0)
      AND (r.created_before IS NULL OR received_at < r.created_before)
      AND (r.created_after IS NULL OR received_at >= r.created_after)
      AND (r.client_id IS NULL OR received_from = r.client_id)
      AND (NOT r.by_user OR EXISTS (
          SELECT FROM bulk_revocation_targets t WHERE t.bulk_revocation_id = r.id AND t.target = of_user))
      AND (NOT r.by_connection OR EXISTS (
          SELECT FROM bulk_revocation_targets t WHERE t.bulk_revocation_id = r.id AND t.target = connection))
$$;

-- Begins the use of an app's tokens: no bulk revocation commits before this transaction does. Returns whether
-- one is in force. Volatile, so that it reads after it has the lock: the statement that calls it may have
-- begun long before.
CREATE OR REPLACE FUNCTION begin_use(app uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(usage_lock(app));
    RETURN EXISTS (SELECT FROM bulk_revocations r WHERE r.app_id = app AND r.marked_at IS NULL);
END $$;

-- Whether a connection is in the scope of a bulk revocation in force, now and not when the statement began.
CREATE FUNCTION is_bulk_revoked(
    app uuid, connection uuid, of_user uuid, received_at timestamptz, received_from text, arrived bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM bulk_revocations_of(app, connection, of_user, received_at, received_from, arrived) r
        WHERE r.marked_at IS NULL);
END $$;
