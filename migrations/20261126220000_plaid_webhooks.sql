-- Plaid's webhooks that mean something for a connection, for a day: what was received before is known again, and
-- what came before its item was known here is applied as soon as it is.
CREATE TABLE plaid_webhooks (
    app_id      uuid NOT NULL REFERENCES apps,
    -- SHA-256 of what the signature covers. Not of the signature itself, of which another that is as valid can be made.
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    item_id     text NOT NULL,
    -- What it means here.
    event       text NOT NULL CHECK (
        event IN ('login_required', 'login_repaired', 'login_expiring', 'permission_revoked')),
    -- Plaid's code.
    code        text NOT NULL,
    -- By Plaid's clock, and signed.
    issued_at   timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT strongroom_now(),
    -- Null while no connection of the item is usable.
    applied_at  timestamptz,
    PRIMARY KEY (digest, app_id)
);
-- The background work asks for the few that wait.
CREATE INDEX plaid_webhooks_waiting ON plaid_webhooks (received_at) WHERE applied_at IS NULL;
CREATE INDEX plaid_webhooks_of_an_item ON plaid_webhooks (item_id, app_id);
CREATE INDEX plaid_webhooks_by_time ON plaid_webhooks (received_at);
