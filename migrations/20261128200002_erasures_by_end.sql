-- no-transaction
CREATE INDEX CONCURRENTLY erasures_by_end ON erasures (erased_at) WHERE erased_at IS NOT NULL;
