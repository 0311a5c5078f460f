-- Connections that need their user, when they were used last, and tokens that are kept until the one that
-- took their place has proven itself.

ALTER TABLE connections
    -- Dapi's `type` by which going on could lock the user's bank account, and since when. It counts while
    -- the connection is active.
    ADD COLUMN attention_type text,
    ADD COLUMN attention_since timestamptz,
    -- To a minute: a call does not pay for it.
    ADD COLUMN last_used_at timestamptz,
    -- Imported, and no call has succeeded with it yet.
    ADD COLUMN unproven boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT connections_attention CHECK (
        (attention_type IS NULL) = (attention_since IS NULL)),
    -- What was exchanged came from Dapi itself.
    ADD CONSTRAINT connections_unproven CHECK (NOT unproven OR code_hash IS NULL);

-- What a list of an app's connections that need attention is answered from.
CREATE INDEX connections_needing_attention ON connections ((app_id::text), id)
    WHERE attention_type IS NOT NULL AND status = 'active';

-- The token of a connection that an unproven import superseded: out of everybody's reach, because nothing
-- that reads or uses tokens looks here, and sealed for the place in `connections` that it came from, so
-- that it opens there alone. It becomes that row's again if Dapi calls the newer token dead before
-- `ends_at`. No foreign key to the newer one, which is inserted later in the same transaction.
CREATE TABLE superseded_tokens (
    connection_id uuid PRIMARY KEY REFERENCES connections ON DELETE CASCADE,
    app_id        uuid NOT NULL,
    replaced_by   uuid NOT NULL UNIQUE,
    access_token  bytea NOT NULL,
    user_secret   bytea,
    ends_at       timestamptz NOT NULL,
    CHECK (replaced_by <> connection_id)
);
CREATE INDEX superseded_tokens_by_end ON superseded_tokens (ends_at);
