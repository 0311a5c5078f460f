-- no-transaction
-- One key of each kind for an app that was moved in, and where replicas look for them.
CREATE UNIQUE INDEX CONCURRENTLY data_keys_of_hashes ON data_keys (app_id, purpose)
    WHERE purpose IN ('code_hash', 'secret_hash') AND app_id IS NOT NULL
