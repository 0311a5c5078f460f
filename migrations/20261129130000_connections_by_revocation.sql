-- no-transaction
-- What the console asks first: which revocations of an app the provider has not confirmed, the longest waiting first.
CREATE INDEX CONCURRENTLY connections_by_revocation ON connections (app_id, revocation_requested_at)
    WHERE status = 'revoking';
