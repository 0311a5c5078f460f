-- no-transaction
-- What retention looks for: connections that have ended, by the last moment that is known of them.
CREATE INDEX CONCURRENTLY connections_by_end
    ON connections (greatest(created_at, activated_at, code_expires_at, revocation_requested_at, revocation_confirmed_at))
    WHERE status IN ('rejected', 'expired', 'orphaned', 'delinked', 'invalidated');
