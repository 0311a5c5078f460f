-- The user that each of Plaid's link tokens was created for: Plaid's exchange does not say whose code it is.
CREATE TABLE link_tokens (
    id         uuid PRIMARY KEY,
    app_id     uuid NOT NULL,
    user_id    uuid NOT NULL,
    -- Keyed, with the app.
    hash       bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- Sealed under the user's key: Plaid is asked by it which codes it led to.
    token      bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    -- An erasure takes the row away with the user.
    FOREIGN KEY (user_id, app_id) REFERENCES users (id, app_id) ON DELETE CASCADE
);
CREATE INDEX link_tokens_of_an_app ON link_tokens (app_id, id);
CREATE INDEX link_tokens_of_a_user ON link_tokens (user_id);
CREATE INDEX link_tokens_by_end ON link_tokens (expires_at);
