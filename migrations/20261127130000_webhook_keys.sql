-- The ids of the keys that Plaid has confirmed as its own: public, and known again after a restart and at every
-- replica, so that forged webhooks, which name keys that do not exist, take no look-up from genuine ones.
CREATE TABLE plaid_webhook_keys (
    app_id       uuid NOT NULL REFERENCES apps,
    key_id       text NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT strongroom_now(),
    PRIMARY KEY (app_id, key_id)
);
