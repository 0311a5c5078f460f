-- no-transaction
-- Of columns, so that a count needs no row.
CREATE INDEX CONCURRENTLY connections_by_attention ON connections (app_id, id)
    WHERE attention_type IS NOT NULL AND status = 'active'
