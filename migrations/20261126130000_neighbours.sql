-- What is due, app by app and kind by kind: however much one app has, the first of another's is found at
-- once. Each index holds only rows that wait, so that no other statement is tempted by it.
CREATE INDEX connections_due_exchanges ON connections (app_id, due_at)
    WHERE due_at IS NOT NULL AND code IS NOT NULL;
CREATE INDEX connections_due_delinks ON connections (app_id, due_at)
    WHERE due_at IS NOT NULL AND status = 'revoking' AND access_token IS NOT NULL;
CREATE INDEX connections_due_held ON connections (app_id, due_at)
    WHERE due_at IS NOT NULL AND status = 'pending' AND access_token IS NOT NULL;
-- Codes whose window closed, among any number that wait for their next attempt.
CREATE INDEX connections_codes_by_end ON connections (code_expires_at)
    WHERE due_at IS NOT NULL AND code IS NOT NULL;
-- A claim puts off by itself what lacks its user secret.
DROP INDEX connections_lacking_user_secret;

-- Users whose name begins with a text that an operator looks for.
CREATE INDEX users_by_prefix ON users (app_id, client_user_id text_pattern_ops);
