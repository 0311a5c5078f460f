-- More ways in which a client proves who it is: keys of its own (RFC 7523), a workload's token, and tokens that are
-- bound to a key (RFC 9449).

ALTER TABLE clients
    -- Public keys as a JWK set (RFC 7517), or where one is published: the client's own, or, with a workload, its issuer's.
    ADD COLUMN jwks jsonb CHECK (jsonb_typeof(jwks) = 'object'),
    ADD COLUMN jwks_uri text CHECK (jwks_uri <> ''),
    -- Whose tokens this client presents: all three, each of them exact.
    ADD COLUMN workload_issuer text CHECK (workload_issuer <> ''),
    ADD COLUMN workload_audience text CHECK (workload_audience <> ''),
    ADD COLUMN workload_subject text CHECK (workload_subject <> ''),
    -- Whether its tokens are bound to a key, all of them.
    ADD COLUMN dpop_bound boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT clients_keys_once CHECK (num_nonnulls(jwks, jwks_uri) <= 1),
    ADD CONSTRAINT clients_workload_whole
        CHECK (num_nonnulls(workload_issuer, workload_audience, workload_subject) IN (0, 3));

DROP TRIGGER clients_changed ON clients;
CREATE TRIGGER clients_changed
    AFTER INSERT OR DELETE OR UPDATE OF app_id, scopes, external_scopes, required_scopes, token_lifetime,
        reveals_per_minute, disabled_at, jwks, jwks_uri, workload_issuer, workload_audience, workload_subject, dpop_bound
    ON clients
    FOR EACH STATEMENT EXECUTE FUNCTION oauth_directory_changed();

-- Assertions and proofs that were used, by a hash of whose they are and their `jti`: each counts once, at any replica.
-- A row is kept for longer than what it stands for is accepted.
CREATE TABLE used_jtis (
    hash       bytea PRIMARY KEY CHECK (length(hash) = 32),
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_jtis_by_end ON used_jtis (expires_at);

-- The event's snapshot is what GET shows, the new fields included.
CREATE OR REPLACE FUNCTION client_tells_of_its_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_outbox (app_id, type, subject, snapshot)
    SELECT NEW.app_id, 'client.disabled', NEW.id, jsonb_build_object(
        'id', NEW.id, 'app_name', a.name, 'name', NEW.name, 'scopes', NEW.scopes,
        'external_scopes', NEW.external_scopes, 'required_scopes', NEW.required_scopes,
        'token_lifetime', NEW.token_lifetime, 'reveals_per_minute', NEW.reveals_per_minute,
        'jwks', NEW.jwks, 'jwks_uri', NEW.jwks_uri, 'workload_issuer', NEW.workload_issuer,
        'workload_audience', NEW.workload_audience, 'workload_subject', NEW.workload_subject,
        'dpop_bound', NEW.dpop_bound,
        'bootstrap', NEW.bootstrap, 'created_at', NEW.created_at, 'disabled_at', NEW.disabled_at,
        'last_used_at', NEW.last_used_at,
        'secrets', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'id', s.id, 'created_at', s.created_at, 'expires_at', s.expires_at,
                'last_used_at', s.last_used_at) ORDER BY s.created_at, s.id), '[]')
            FROM client_secrets s
            WHERE s.client_id = NEW.id AND (s.expires_at IS NULL OR s.expires_at > strongroom_now())))
    FROM apps a WHERE a.id = NEW.app_id;
    RETURN NULL;
END $$;
