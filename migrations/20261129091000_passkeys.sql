-- Passkeys of operators: public keys, and what shows a copied authenticator.
CREATE TABLE operator_passkeys (
    -- The credential id, which the authenticator chooses.
    id           bytea PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 1023),
    operator_id  uuid NOT NULL REFERENCES operators,
    label        text NOT NULL CHECK (length(label) BETWEEN 1 AND 100),
    -- COSE: -7 is ES256, -8 is EdDSA with Ed25519.
    algorithm    smallint NOT NULL CHECK (algorithm IN (-7, -8)),
    public_key   bytea NOT NULL,
    sign_count   bigint NOT NULL CHECK (sign_count BETWEEN 0 AND 4294967295),
    created_at   timestamptz NOT NULL DEFAULT strongroom_now(),
    last_used_at timestamptz
);
CREATE INDEX operator_passkeys_of_an_operator ON operator_passkeys (operator_id);

-- Challenges that were answered, so that none is answered twice; older ones have expired and are deleted.
CREATE TABLE operator_challenges (
    hash    bytea PRIMARY KEY CHECK (length(hash) = 32),
    used_at timestamptz NOT NULL DEFAULT strongroom_now()
);
CREATE INDEX operator_challenges_by_time ON operator_challenges (used_at);
