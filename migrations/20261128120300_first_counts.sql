-- Locks nothing that others need: what changes meanwhile is in `connection_count_changes`.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SELECT recount_connections();
