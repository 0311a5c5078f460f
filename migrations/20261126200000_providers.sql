-- A second bank link. What is common to both says nothing of Dapi; what is Dapi's alone keeps its name.

-- Adding columns with a constant default, and constraints that no row can violate, touches no row.
ALTER TABLE apps
    ADD COLUMN provider text NOT NULL DEFAULT 'dapi' CHECK (provider IN ('dapi', 'plaid')),
    -- A link of the same accounts by the same user ends the older one.
    ADD COLUMN supersede_duplicates boolean NOT NULL DEFAULT false,
    -- A token that was revealed is replaced by another when its reader is done.
    ADD COLUMN rotate_after_reveal boolean NOT NULL DEFAULT false;

-- The bank login: Dapi's connectionID, Plaid's item_id.
ALTER TABLE connections RENAME COLUMN dapi_connection_id TO login_id;
ALTER TABLE connections
    -- Plaid's is known only after the exchange.
    ALTER COLUMN login_id DROP NOT NULL,
    -- The app's, which never changes.
    ADD COLUMN provider text NOT NULL DEFAULT 'dapi' CHECK (provider IN ('dapi', 'plaid')),
    -- As the browser claimed them, until the provider has confirmed them.
    ADD COLUMN institution_id text,
    ADD COLUMN institution_name text,
    -- [{id, name, mask, type}]
    ADD COLUMN accounts jsonb,
    -- When the background work asks the provider for them, unless the exchange's own task has.
    ADD COLUMN details_due_at timestamptz,
    ADD COLUMN details_attempts integer NOT NULL DEFAULT 0,
    -- An older connection of the same user to the same accounts.
    ADD COLUMN duplicate_of uuid,
    ADD CONSTRAINT connections_login CHECK (
        login_id IS NOT NULL OR provider = 'plaid' AND access_token IS NULL AND status <> 'active') NOT VALID,
    ADD CONSTRAINT connections_details CHECK (details_due_at IS NULL OR status = 'active') NOT VALID,
    DROP CONSTRAINT connections_secrets,
    ADD CONSTRAINT connections_secrets CHECK (
        CASE
            -- A code to exchange, or its token that waits for the delinking of an older link.
            WHEN status IN ('pending', 'revoking')
                THEN (user_secret IS NOT NULL OR by_wire OR provider = 'plaid')
                     AND (code IS NULL) <> (access_token IS NULL)
            WHEN status = 'active'
                THEN (user_secret IS NOT NULL OR by_wire OR provider = 'plaid')
                     AND code IS NULL AND access_token IS NOT NULL
            ELSE user_secret IS NULL AND code IS NULL AND access_token IS NULL
        END) NOT VALID,
    -- A superseded duplicate is another item at the provider: it is revoked there, so it passes through `revoking`.
    DROP CONSTRAINT connections_replacement,
    ADD CONSTRAINT connections_replacement CHECK (
        replaced_by IS NULL OR status IN ('revoking', 'delinked', 'invalidated')) NOT VALID;

CREATE INDEX connections_details_due ON connections (details_due_at) WHERE details_due_at IS NOT NULL;

-- What a status implies, so that no way into it forgets it: details are asked for while a connection is active.
CREATE FUNCTION connection_needs_no_details() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.details_due_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER connections_need_no_details BEFORE UPDATE OF status ON connections
    FOR EACH ROW
    WHEN (NEW.status <> 'active' AND NEW.details_due_at IS NOT NULL)
    EXECUTE FUNCTION connection_needs_no_details();

-- A provider that allows calls at the same time gives each a lease of its own; where it does not, all share slot nil.
ALTER TABLE token_leases
    ADD COLUMN slot uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    DROP CONSTRAINT token_leases_pkey,
    ADD CONSTRAINT token_leases_pkey PRIMARY KEY (connection_id, slot);

-- Wrapped keys and sealed credentials as one value each, so that every statement that loads them does it alike.
-- Functions of whole rows without a FROM, which PostgreSQL inlines.
CREATE TYPE wrapped_key AS (id uuid, app_id uuid, user_id uuid, master_key_id text, wrapped bytea);
CREATE FUNCTION key_of(data_key data_keys) RETURNS wrapped_key LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ROW(data_key.id, data_key.app_id, data_key.user_id, data_key.master_key_id, data_key.wrapped)::wrapped_key
$$;
CREATE TYPE sealed_credentials AS (
    app_id uuid, provider text, app_key text, app_secret bytea, key wrapped_key);
CREATE FUNCTION credentials_of(app apps, data_key data_keys) RETURNS sealed_credentials
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ROW(app.id, app.provider, app.app_key, app.app_secret, key_of(data_key))::sealed_credentials
$$;
