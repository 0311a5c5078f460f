-- The operator's side: revocations of many connections at once, and the erasure of users.

-- An order to revoke many connections. All of them are unusable from its commit on; Dapi is told of
-- them in the background, so many a second. It names nobody: of the users and connections that were
-- asked for it keeps how many there were, so that an erasure has nothing to look for here.
CREATE TABLE revocation_orders (
    id              uuid PRIMARY KEY,
    app_id          uuid NOT NULL REFERENCES apps,
    kind            text NOT NULL CHECK (kind IN ('delink', 'invalidate')),
    reason          text NOT NULL,
    filter          jsonb NOT NULL CHECK (jsonb_typeof(filter) = 'object'),
    per_second      integer NOT NULL CHECK (per_second > 0),
    state           text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled')),
    created_by      text,
    created_at      timestamptz NOT NULL DEFAULT strongroom_now(),
    matched         bigint NOT NULL DEFAULT 0,

    -- A request that is repeated under its key is the same order; a keyed hash of what was asked tells
    -- whether it was the same request.
    idempotency_key text,
    request_hash    bytea NOT NULL CHECK (length(request_hash) = 32),

    -- When the next connections are let through to Dapi.
    next_release_at timestamptz NOT NULL DEFAULT strongroom_now(),

    -- Once nothing of it is left to be told: when that was, and how it ended.
    finished_at     timestamptz,
    told            bigint,
    failed          bigint,
    UNIQUE (app_id, idempotency_key),
    CONSTRAINT revocation_orders_end CHECK (
        (finished_at IS NULL) = (told IS NULL) AND (finished_at IS NULL) = (failed IS NULL))
);
CREATE INDEX revocation_orders_of_an_app ON revocation_orders (app_id, id);
CREATE INDEX revocation_orders_open ON revocation_orders (next_release_at)
    WHERE finished_at IS NULL AND state <> 'paused';

ALTER TABLE connections
    -- The OAuth client that handed it in, or that made the session which did; none where the operator's
    -- own hands or an earlier release were at work.
    ADD COLUMN created_by text,
    -- The order that revoked it. No foreign key: checking it row by row would double the time that an
    -- order takes, and orders are never deleted.
    ADD COLUMN revocation_order uuid,
    -- When the order let it through to Dapi. From here on counts how long Dapi is tried for.
    ADD COLUMN revocation_released_at timestamptz,
    DROP CONSTRAINT connections_work,
    -- Nothing that is not at its end is ever left without a time at which somebody looks at it, or an
    -- order that lets it through when its turn has come.
    ADD CONSTRAINT connections_work CHECK (
        CASE status
            WHEN 'pending' THEN due_at IS NOT NULL
            WHEN 'revoking' THEN due_at IS NOT NULL OR (revocation_order IS NOT NULL AND code IS NULL)
            ELSE due_at IS NULL
        END
        AND (leased_until IS NULL OR (due_at IS NOT NULL AND due_at = leased_until))),
    ADD CONSTRAINT connections_order CHECK (
        revocation_order IS NULL OR revocation_kind IS NOT NULL);
-- What an order has not let through yet.
CREATE INDEX connections_held ON connections (revocation_order, id)
    WHERE status = 'revoking' AND due_at IS NULL;
CREATE INDEX connections_of_an_order ON connections (revocation_order, status)
    WHERE revocation_order IS NOT NULL;

-- Users who are being erased: nothing new is received for them.
ALTER TABLE users ADD COLUMN erasing_since timestamptz;

-- The erasure of a user, and what is told of it afterwards: counts, times and ids that are random. The
-- name by which the app knew the user stands in `users` alone and goes with it.
CREATE TABLE erasures (
    id           uuid PRIMARY KEY,
    app_id       uuid NOT NULL REFERENCES apps,
    user_id      uuid NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT strongroom_now(),
    -- When somebody looks whether it can be concluded.
    due_at       timestamptz DEFAULT strongroom_now(),
    erased_at    timestamptz,
    -- A keyed hash of the app's name for the user, so that a repeated request finds its receipt. It is
    -- forgotten thirty days after the end.
    name_hash    bytea CHECK (length(name_hash) = 32),
    -- What there was when it was asked for, and what was destroyed in the end.
    sealed       bigint NOT NULL,
    sessions     bigint NOT NULL,
    data_key_id  uuid,
    connections  bigint,
    unconfirmed  bigint,
    CONSTRAINT erasures_end CHECK (
        (erased_at IS NULL) = (due_at IS NOT NULL)
        AND (erased_at IS NULL) = (data_key_id IS NULL)
        AND (erased_at IS NULL) = (connections IS NULL)
        AND (erased_at IS NULL) = (unconfirmed IS NULL))
);
CREATE UNIQUE INDEX erasures_of_a_user ON erasures (user_id);
CREATE INDEX erasures_due ON erasures (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX erasures_by_name ON erasures (name_hash) WHERE name_hash IS NOT NULL;
