-- Where a token's rotation meets new links of its item, and tokens that arrive after they were given up.

ALTER TABLE token_rotations
    -- The answer was concluded to be lost, and the connection has ended. If the new token comes after all, the
    -- connection gets it back, unless something has revoked it since.
    ADD COLUMN lost boolean NOT NULL DEFAULT false;

-- A link of an item again (Plaid's update mode) may bring the token that a rotation replaces meanwhile. Until a call
-- says which of the two counts, it is as doubtful as an imported one.
ALTER TABLE connections
    DROP CONSTRAINT connections_unproven,
    ADD CONSTRAINT connections_unproven CHECK (NOT unproven OR code_hash IS NULL OR provider = 'plaid') NOT VALID;
