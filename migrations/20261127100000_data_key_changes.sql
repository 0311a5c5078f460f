-- Data keys that were destroyed or wrapped anew. Replicas keep opened keys in memory for a while, and read here which of
-- them to drop. The id of the transaction is what a reader goes by: rows become visible in the order of commits, not in
-- that of ids or times, and everything below a snapshot's xmin has ended.
CREATE TABLE data_key_changes (
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    data_key_id uuid NOT NULL,
    destroyed   boolean NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT strongroom_now()
);
CREATE INDEX data_key_changes_by_xid ON data_key_changes (xid);
CREATE INDEX data_key_changes_by_time ON data_key_changes (changed_at);

CREATE FUNCTION record_data_key_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO data_key_changes (data_key_id, destroyed) SELECT id, TG_OP = 'DELETE' FROM changed;
    RETURN NULL;
END $$;
CREATE TRIGGER data_keys_destroyed AFTER DELETE ON data_keys REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_data_key_changes();
CREATE TRIGGER data_keys_rewrapped AFTER UPDATE ON data_keys REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_data_key_changes();
