-- no-transaction
CREATE INDEX CONCURRENTLY bulk_revocations_by_end ON bulk_revocations (finished_at) WHERE finished_at IS NOT NULL;
