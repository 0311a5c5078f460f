-- no-transaction
-- The only statement of its migration: that of CREATE INDEX CONCURRENTLY, which blocks no writer, has no transaction around it.
CREATE INDEX CONCURRENTLY connections_by_app ON connections (list_key(app_id), id)
