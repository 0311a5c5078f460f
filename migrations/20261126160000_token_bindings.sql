-- What an access token is bound to besides its place: bytes that a revocation takes away. A token that was
-- revoked does not come back when its status is written back by hand, nor when its old ciphertext is, from a
-- backup of the table or from a log.

-- One row for each connection that may be used, made when the connection arrives. The bytes are random and
-- part of the token's associated data; they need not be secret.
CREATE TABLE token_bindings (
    connection_id uuid PRIMARY KEY REFERENCES connections ON DELETE CASCADE,
    binding       bytea NOT NULL CHECK (length(binding) = 16)
);

ALTER TABLE connections
    -- The same bytes once the connection is revoked, for the delinking alone: it has to open the token.
    -- Nothing that reads or uses a token looks here.
    ADD COLUMN revocation_binding bytea,
    ADD CONSTRAINT connections_binding CHECK (revocation_binding IS NULL OR status = 'revoking');

-- What is kept of a superseded connection keeps what it is bound to.
ALTER TABLE superseded_tokens ADD COLUMN binding bytea;

-- By a trigger, so that no way into a revocation, and no hand, forgets it.
CREATE FUNCTION connection_loses_its_binding() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    taken bytea;
BEGIN
    DELETE FROM token_bindings b WHERE b.connection_id = NEW.id RETURNING b.binding INTO taken;
    IF NEW.status <> 'revoking' THEN
        NEW.revocation_binding := NULL;
    ELSIF taken IS NOT NULL THEN
        NEW.revocation_binding := taken;
    END IF;
    RETURN NEW;
END $$;
-- An orphan keeps it: a late token may still come, sealed with it.
CREATE TRIGGER connections_lose_their_binding BEFORE UPDATE OF status ON connections
    FOR EACH ROW
    WHEN (NEW.status IN ('revoking', 'delinked', 'invalidated', 'rejected', 'expired'))
    EXECUTE FUNCTION connection_loses_its_binding();

-- Tokens of earlier releases, which are bound to nothing yet: the background work binds them.
CREATE INDEX connections_unbound ON connections (id)
    WHERE access_token IS NOT NULL AND status = 'active' AND get_byte(access_token, 0) = 1;
