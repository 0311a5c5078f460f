-- no-transaction
CREATE INDEX CONCURRENTLY connections_by_status ON connections (list_key(app_id, status), id)
