-- What completes OAuth: more that a client may be, keys that are published before they sign, and the
-- budget of what a client may read.

ALTER TABLE clients
    -- Scopes of other APIs, which tokens carry and Strongroom itself never honours. Kept apart from its
    -- own, so that a name that a later release gives a meaning to does not come alive by itself.
    ADD COLUMN other_scopes text[] NOT NULL DEFAULT '{}',
    -- Scopes that a token request of this client has to name; where there are none, a request without
    -- a scope is one for everything.
    ADD COLUMN required_scopes text[] NOT NULL DEFAULT '{}',
    -- Tokens that it may read in the clear within a minute; the service's own setting where it is null.
    ADD COLUMN reveals_per_minute integer CHECK (reveals_per_minute > 0);
-- Lists are an app's, newest first.
CREATE INDEX clients_of_an_app_by_age ON clients (app_id, created_at, id);

ALTER TABLE client_secrets ADD COLUMN last_used_at timestamptz;

DROP TRIGGER clients_changed ON clients;
CREATE TRIGGER clients_changed
    AFTER INSERT OR DELETE OR UPDATE OF app_id, scopes, other_scopes, required_scopes, token_lifetime,
        reveals_per_minute, disabled_at ON clients
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();
-- That a secret was used changes nothing for anybody.
DROP TRIGGER client_secrets_changed ON client_secrets;
CREATE TRIGGER client_secrets_changed
    AFTER INSERT OR DELETE OR UPDATE OF client_id, hash, expires_at ON client_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();

-- From when on a key signs. Until then it is only published, so that whoever verifies tokens knows it
-- before the first one comes. `retired_at` is when its successor takes over, perhaps in the future; the
-- newest key has none.
ALTER TABLE signing_keys ADD COLUMN signs_from timestamptz NOT NULL DEFAULT strongroom_now();
UPDATE signing_keys SET signs_from = created_at;
CREATE UNIQUE INDEX signing_keys_one_newest ON signing_keys ((true)) WHERE retired_at IS NULL;

-- How much of a client's budget of readings is given out for the minute that began at `since`. Replicas
-- take portions, so that this row is not written for every reading. `portion` is what the last one got.
CREATE TABLE reveal_budgets (
    client_id text PRIMARY KEY,
    since     timestamptz NOT NULL,
    taken     integer NOT NULL,
    portion   integer NOT NULL
);
