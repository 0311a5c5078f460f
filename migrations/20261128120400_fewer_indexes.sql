-- Lists read `connections_by_app` and `connections_by_status`, whose entries are less than half as large, and
-- `connections_by_attention`.
SET LOCAL lock_timeout = '3s';
DROP INDEX connections_of_an_app;
DROP INDEX connections_needing_attention;
DROP INDEX connections_of_an_app_by_status;
