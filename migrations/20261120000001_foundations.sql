-- The clock, the keys, the apps, their users and the OAuth clients.

-- The one clock of everything that stands in this database: windows, leases, retries. The tests of
-- this project replace it. Volatile, so that PostgreSQL inlines it; where it is compared with an
-- indexed column, write (SELECT strongroom_now()), which is evaluated once and lets the index serve.
CREATE FUNCTION strongroom_now() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT clock_timestamp() $$;

-- Every master key (KEK) that this database has ever met, by its id, with a value derived from it
-- by HKDF that tells whether a key of that id is the same one. The keys themselves never come here.
CREATE TABLE master_keys (
    id          text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,32}$'),
    check_value bytea NOT NULL CHECK (length(check_value) = 32),
    created_at  timestamptz NOT NULL DEFAULT strongroom_now()
);

CREATE TABLE apps (
    id         uuid PRIMARY KEY,
    name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    app_key    text NOT NULL,
    app_secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT strongroom_now(),
    updated_at timestamptz NOT NULL DEFAULT strongroom_now()
);

-- The app's own users. Erasing a user deletes this row, which is the only link from the random id
-- that the audit trail holds to the name by which the app knows the user.
CREATE TABLE users (
    id             uuid PRIMARY KEY,
    app_id         uuid NOT NULL REFERENCES apps,
    client_user_id text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT strongroom_now(),
    UNIQUE (app_id, client_user_id),
    -- For foreign keys that tie what is held for a user to the user's app as well.
    UNIQUE (id, app_id)
);

-- Data keys, each wrapped by the master key that it names. A user's key seals all that is held for
-- that user and for nobody else, so that destroying it destroys all of that.
CREATE TABLE data_keys (
    id            uuid PRIMARY KEY,
    purpose       text NOT NULL,
    app_id        uuid REFERENCES apps ON DELETE CASCADE,
    user_id       uuid REFERENCES users ON DELETE CASCADE,
    master_key_id text NOT NULL REFERENCES master_keys,
    wrapped       bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT strongroom_now(),
    CONSTRAINT data_keys_owner CHECK (
        CASE purpose
            WHEN 'service'     THEN app_id IS NULL     AND user_id IS NULL
            WHEN 'code_hash'   THEN app_id IS NULL     AND user_id IS NULL
            WHEN 'secret_hash' THEN app_id IS NULL     AND user_id IS NULL
            WHEN 'app'         THEN app_id IS NOT NULL AND user_id IS NULL
            WHEN 'user'        THEN app_id IS NOT NULL AND user_id IS NOT NULL
            ELSE false
        END
    )
);
CREATE UNIQUE INDEX data_keys_of_the_service ON data_keys (purpose) WHERE app_id IS NULL;
CREATE UNIQUE INDEX data_keys_of_an_app ON data_keys (app_id) WHERE purpose = 'app';
CREATE UNIQUE INDEX data_keys_of_a_user ON data_keys (user_id) WHERE purpose = 'user';
-- Rotation asks which keys still name an old master key.
CREATE INDEX data_keys_by_master_key ON data_keys (master_key_id, id);

-- OAuth 2.0 clients (RFC 6749 §2). Ids and secrets are letters and digits only, because clients
-- disagree on how the halves of HTTP Basic are encoded.
CREATE TABLE clients (
    id             text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9]{1,64}$'),
    app_id         uuid NOT NULL REFERENCES apps,
    name           text NOT NULL,
    scopes         text[] NOT NULL,
    token_lifetime integer NOT NULL CHECK (token_lifetime BETWEEN 60 AND 86400),
    bootstrap      boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT strongroom_now(),
    disabled_at    timestamptz,
    last_used_at   timestamptz
);
CREATE INDEX clients_of_an_app ON clients (app_id, id);

-- A client's secrets as keyed hashes: 256 random bits need no slow password hash.
CREATE TABLE client_secrets (
    id         uuid PRIMARY KEY,
    client_id  text NOT NULL REFERENCES clients ON DELETE CASCADE,
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at timestamptz
);
CREATE INDEX client_secrets_of_a_client ON client_secrets (client_id);

-- Keys that sign access tokens. The private half is sealed under the service's data key, so that
-- every replica and every restart can open it.
CREATE TABLE signing_keys (
    id          uuid PRIMARY KEY,
    kid         text NOT NULL UNIQUE,
    algorithm   text NOT NULL CHECK (algorithm IN ('ES256', 'RS256', 'EdDSA')),
    private_key bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT strongroom_now(),
    -- From here on it signs nothing and only verifies.
    retired_at  timestamptz
);

-- What replicas keep in memory, by how often it changed: they read these two numbers every second
-- and the rest when one moved. The row's lock is held until the change commits, so the numbers grow in
-- the order of the commits.
CREATE TABLE oauth_generations (
    of         text PRIMARY KEY CHECK (of IN ('directory', 'revocations')),
    generation bigint NOT NULL DEFAULT 0
);
INSERT INTO oauth_generations (of) VALUES ('directory'), ('revocations');

CREATE FUNCTION oauth_directory_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE oauth_generations SET generation = generation + 1 WHERE of = 'directory';
    RETURN NULL;
END $$;
CREATE TRIGGER clients_changed
    AFTER INSERT OR DELETE OR UPDATE OF app_id, scopes, token_lifetime, disabled_at ON clients
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();
CREATE TRIGGER client_secrets_changed AFTER INSERT OR UPDATE OR DELETE ON client_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();
CREATE TRIGGER signing_keys_changed AFTER INSERT OR UPDATE OR DELETE ON signing_keys
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();

-- Access tokens that were revoked (RFC 7009) before they ran out, kept until they would have. The
-- number lets a replica read only what is new to it.
CREATE TABLE revoked_tokens (
    jti        uuid PRIMARY KEY,
    client_id  text NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT strongroom_now(),
    expires_at timestamptz NOT NULL,
    generation bigint NOT NULL
);
CREATE INDEX revoked_tokens_by_generation ON revoked_tokens (generation);
CREATE INDEX revoked_tokens_by_end ON revoked_tokens (expires_at);

CREATE FUNCTION revoked_token_takes_its_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE oauth_generations SET generation = generation + 1 WHERE of = 'revocations'
        RETURNING generation INTO NEW.generation;
    RETURN NEW;
END $$;
CREATE TRIGGER revoked_tokens_take_a_number BEFORE INSERT ON revoked_tokens
    FOR EACH ROW EXECUTE FUNCTION revoked_token_takes_its_number();
