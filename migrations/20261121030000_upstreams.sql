-- Upstreams: other APIs that an app reaches with OAuth 2.0 client credentials (RFC 6749 §4.4), each with
-- the one cached token that all replicas share.
CREATE TABLE upstreams (
    id            uuid PRIMARY KEY,
    app_id        uuid NOT NULL REFERENCES apps,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    token_url     text NOT NULL,
    client_id     text NOT NULL,
    -- How id and secret are sent: HTTP Basic, in the form, or in a JSON body.
    auth          text NOT NULL CHECK (auth IN ('basic', 'form', 'json')),
    scope         text,
    -- Further parameters of the token request, names and values. Nothing secret.
    parameters    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(parameters) = 'object'),
    -- Where calls go; without it only the token can be had.
    base_url      text,
    created_at    timestamptz NOT NULL DEFAULT strongroom_now(),
    updated_at    timestamptz NOT NULL DEFAULT strongroom_now(),

    -- Both sealed under the app's data key.
    client_secret bytea NOT NULL,
    access_token  bytea,

    -- The lease under which the token was fetched, when it was asked for, when it is fetched anew (a
    -- little early, and not at the same moment for every upstream), and when it ends.
    token_epoch      integer,
    token_asked_at   timestamptz,
    token_refresh_at timestamptz,
    token_expires_at timestamptz,

    -- The lease on the token request: whoever took it last is known by its epoch, which only grows.
    lease_epoch   integer NOT NULL DEFAULT 0,
    leased_until  timestamptz,

    -- Token requests that failed since the last one that did not, why the last one failed, and until when
    -- nobody asks again. The OAuth error code is the upstream's; the detail is in our words.
    failures       integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    failure        text CHECK (failure IN ('refused', 'unusable', 'unreachable', 'timeout', 'not_allowed')),
    failure_detail text,
    oauth_error    text CHECK (oauth_error ~ '^[a-z][a-z0-9_]{0,63}$'),
    retry_at       timestamptz,

    UNIQUE (app_id, name),
    CONSTRAINT upstreams_token CHECK (
        (access_token IS NULL) = (token_epoch IS NULL)
        AND (access_token IS NULL) = (token_asked_at IS NULL)
        AND (access_token IS NULL) = (token_refresh_at IS NULL)
        AND (access_token IS NULL) = (token_expires_at IS NULL)
        AND (access_token IS NULL
             OR (token_asked_at <= token_refresh_at AND token_refresh_at <= token_expires_at
                 AND token_epoch <= lease_epoch))),
    CONSTRAINT upstreams_failure CHECK (
        (failure IS NULL) = (failures = 0)
        AND (failure IS NULL) = (retry_at IS NULL)
        AND (failure IS NULL) = (failure_detail IS NULL)
        AND (oauth_error IS NULL OR failure = 'refused'))
);
