-- Calls to Dapi on a connection's behalf: whose turn it is with a token, who waits, and the tokens that
-- Dapi's own wire hands out in place of Dapi's.

-- Who uses a connection's token at this moment: Dapi fails all calls that use one token at once. The row
-- is the turn. It is taken by whoever finds none, or one that has ended, and deleted when the call is
-- over; a replica that died leaves it behind until the call's time limit has passed. No foreign key and
-- no further index: every call writes here, there are as many rows as calls under way, and what is left
-- of a connection that is gone ends by itself.
CREATE TABLE token_turns (
    connection_id uuid PRIMARY KEY,
    turn          uuid NOT NULL,
    ends_at       timestamptz NOT NULL
);

-- Who waits for a turn, in the order of arrival. A place counts as long as its replica says that
-- somebody still waits there.
CREATE TABLE token_queue (
    connection_id uuid NOT NULL,
    place         bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    alive_until   timestamptz NOT NULL,
    PRIMARY KEY (connection_id, place)
);

ALTER TABLE connections
    -- Came through Dapi's own wire, whose exchange does not bring the user secret: it comes with the
    -- first call.
    ADD COLUMN by_wire boolean NOT NULL DEFAULT false,
    -- Whether Dapi has taken the user secret, or Connect handed it over; until then another one that a
    -- call brings takes its place, so that one wrong call does not keep the token from being delinked.
    ADD COLUMN user_secret_proven boolean NOT NULL DEFAULT true,
    DROP CONSTRAINT connections_secrets,
    ADD CONSTRAINT connections_secrets CHECK (
        CASE
            -- A code to exchange, or its token that waits for the delinking of an older link.
            WHEN status IN ('pending', 'revoking')
                THEN (user_secret IS NOT NULL OR by_wire) AND (code IS NULL) <> (access_token IS NULL)
            WHEN status = 'active'
                THEN (user_secret IS NOT NULL OR by_wire) AND code IS NULL AND access_token IS NOT NULL
            ELSE user_secret IS NULL AND code IS NULL AND access_token IS NULL
        END);

-- Revocations that cannot be told yet, to be found among many that can.
CREATE INDEX connections_lacking_user_secret ON connections (due_at)
    WHERE status = 'revoking' AND access_token IS NOT NULL AND user_secret IS NULL;

-- What Dapi's own wire hands out as access token: random, of no use to anybody but Strongroom, and good
-- as long as its connection is active. Sealed under the user's data key, so that a repeated exchange
-- answers the same; found by its keyed hash.
CREATE TABLE stand_ins (
    connection_id uuid PRIMARY KEY REFERENCES connections ON DELETE CASCADE,
    app_id        uuid NOT NULL,
    hash          bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    token         bytea NOT NULL
);
