-- Tokens that were revealed, and are to be replaced by others: when their reader is done, or some minutes afterwards.
CREATE TABLE token_rotations (
    connection_id uuid PRIMARY KEY REFERENCES connections ON DELETE CASCADE,
    app_id        uuid NOT NULL,
    -- The first reveal of the present token; later ones put the replacement off, but not for ever.
    revealed_at   timestamptz NOT NULL DEFAULT strongroom_now(),
    -- While a lease is alive, its end.
    due_at        timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    -- A call went out and its answer was lost.
    doubted       boolean NOT NULL DEFAULT false,
    last_error    text
);
CREATE INDEX token_rotations_due ON token_rotations (due_at);

ALTER TABLE connections
    -- waiting: for the calls that use the token to end. sent: the call that replaces it may have been made.
    -- unanswered: it was, or may have been, and the answer was lost. On this row, so that whoever locks it knows.
    ADD COLUMN rotation text CHECK (rotation IN ('waiting', 'sent', 'unanswered')),
    -- No call begins with the token before this time.
    ADD COLUMN rotation_until timestamptz,
    ADD COLUMN rotation_epoch integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT connections_rotation CHECK (rotation_until IS NULL OR rotation IS NOT NULL) NOT VALID;
