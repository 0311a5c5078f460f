-- The changes of data keys are recorded row by row. It costs the same as by statement, and needs no transition table, which not
-- every engine that speaks PostgreSQL has (docs/scaling.md).
CREATE OR REPLACE FUNCTION record_data_key_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO data_key_changes (data_key_id, destroyed) VALUES (OLD.id, TG_OP = 'DELETE');
    -- After the whole statement: a key that moved to another row, or to its other place, is not destroyed.
    IF OLD.other_id IS NOT NULL THEN
        INSERT INTO data_key_changes (data_key_id, destroyed)
        VALUES (OLD.other_id, NOT EXISTS (
            SELECT FROM data_keys k WHERE k.id = OLD.other_id OR k.other_id = OLD.other_id));
    END IF;
    RETURN NULL;
END $$;
-- Replaced, not dropped and created: readers wait for nothing.
CREATE OR REPLACE TRIGGER data_keys_destroyed AFTER DELETE ON data_keys
    FOR EACH ROW EXECUTE FUNCTION record_data_key_changes();
CREATE OR REPLACE TRIGGER data_keys_rewrapped AFTER UPDATE ON data_keys
    FOR EACH ROW EXECUTE FUNCTION record_data_key_changes();
