-- Locks nothing that others need: what changes meanwhile is in `bulk_revocation_count_changes`.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SELECT recount_bulk_revocations();
