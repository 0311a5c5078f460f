//! Which tables move with an app, in the order of their foreign keys, and which stay and why. A test compares both lists with the
//! database, so that a table that a later migration adds is decided about.

/// A table of which an app's rows move.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// The table's name, and that of its file.
    pub name: &'static str,
    /// Which rows `t` of it are the app's, whose id is `$1`.
    pub rows: &'static str,
    /// In which order they are written.
    pub order: &'static str,
    /// Columns that mean nothing elsewhere; the target's defaults take their place.
    pub omitted: &'static [&'static str],
}

const fn moving(name: &'static str, rows: &'static str, order: &'static str) -> Moving {
    Moving { name, rows, order, omitted: &[] }
}

/// The app's own column decides.
const OF_APP: &str = "t.app_id = $1";
/// And so does the connection that the row is about, which is of the app as well.
const OF_APP_AND_CONNECTION: &str = "t.app_id = $1 AND EXISTS (
    SELECT FROM connections c WHERE c.id = t.connection_id AND c.app_id = $1)";
const OF_CONNECTION: &str =
    "EXISTS (SELECT FROM connections c WHERE c.id = t.connection_id AND c.app_id = $1)";

/// The table whose rows travel in another form: sealed to the import key instead of wrapped (`data_keys.rs`). They are inserted
/// behind `users`.
pub const DATA_KEYS: &str = "data_keys";
/// After this table the data keys are inserted: what is sealed under them follows.
pub const BEFORE_DATA_KEYS: &str = "users";

/// The tables that move, in the order in which their rows are inserted.
pub const MOVING: &[Moving] = &[
    moving("apps", "t.id = $1", "id"),
    moving("users", OF_APP, "id"),
    moving("upstreams", OF_APP, "id"),
    Moving {
        name: "connections",
        rows: OF_APP,
        order: "id",
        // A transaction of the source's, and what its replicas may still bring.
        omitted: &["event_transaction", "answer_until"],
    },
    moving("token_bindings", OF_CONNECTION, "connection_id"),
    moving("proxy_tokens", OF_APP_AND_CONNECTION, "connection_id"),
    moving("link_tokens", OF_APP, "id"),
    moving("superseded_tokens", OF_APP_AND_CONNECTION, "connection_id"),
    moving("token_rotations", OF_APP_AND_CONNECTION, "connection_id"),
    moving("bulk_revocations", OF_APP, "id"),
    moving(
        "bulk_revocation_targets",
        "EXISTS (SELECT FROM bulk_revocations r WHERE r.id = t.bulk_revocation_id AND r.app_id = $1)",
        "bulk_revocation_id, target",
    ),
    moving("erasures", OF_APP, "id"),
    moving("plaid_webhooks", OF_APP, "digest"),
    moving("plaid_webhook_keys", OF_APP, "key_id"),
    moving("event_heads", OF_APP, "app_id"),
    moving("events", OF_APP, "position"),
    Moving {
        name: "event_outbox",
        rows: OF_APP,
        order: "ordinal",
        // Given anew, in the same order.
        omitted: &["ordinal"],
    },
    moving("webhook_endpoints", OF_APP, "id"),
    moving(
        "webhook_secrets",
        "EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = t.endpoint_id AND e.app_id = $1)",
        "id",
    ),
    moving(
        "webhook_deliveries",
        "t.app_id = $1 AND EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = t.endpoint_id AND e.app_id = $1)",
        "endpoint_id, position",
    ),
    moving("audit_events", OF_APP, "id"),
    moving("audit_links", OF_APP, "seq"),
    // Last: whoever inserts a client keeps all others from changing any until the commit.
    // The bootstrap client is the environment's.
    moving("clients", "t.app_id = $1 AND NOT t.bootstrap", "id"),
    moving(
        "client_secrets",
        "EXISTS (SELECT FROM clients c WHERE c.id = t.client_id AND c.app_id = $1 AND NOT c.bootstrap)",
        "id",
    ),
];

/// The tables that stay where they are, and why.
pub const STAYING: &[(&str, &str)] = &[
    ("_sqlx_migrations", "of the database; both must have the same"),
    ("app_fences", "says that the app moves"),
    ("app_imports", "what it states is in the manifest"),
    ("approvals", "they are decided within an hour, by people of this deployment"),
    ("audit_archives", "their statements are in the manifest; the files are where they were put"),
    ("audit_chainer", "a lock"),
    ("audit_heads", "follows from the links"),
    ("audit_months", "of the database"),
    ("audit_unlinked", "empty for an app that is exported"),
    ("bulk_revocation_count_changes", "follows from the connections"),
    ("bulk_revocation_counts", "follows from the connections"),
    ("connect_session_results", "of sessions"),
    ("connect_sessions", "half an hour long; the frontend asks for another"),
    ("connection_count_changes", "follows from the connections"),
    ("connection_counts", "follows from the connections"),
    ("data_key_changes", "of this deployment's memory"),
    ("destroyed_data_keys", "keeps tasks of this deployment from sealing under them"),
    ("import_keys", "of this deployment"),
    ("master_keys", "of this deployment"),
    ("oauth_generations", "of this deployment's memory"),
    ("operator_challenges", "of people of this deployment"),
    ("operator_links", "of people of this deployment"),
    ("operator_passkeys", "of people of this deployment"),
    ("operator_sessions", "of people of this deployment"),
    ("operators", "people of this deployment"),
    ("replicas", "of this deployment"),
    ("reveal_budgets", "a minute's"),
    ("revoked_tokens", "access tokens of this deployment are none elsewhere"),
    ("signing_keys", "of this deployment; callers fetch new access tokens"),
    ("token_lease_queue", "empty for an app that is exported"),
    ("token_leases", "empty for an app that is exported"),
    ("used_jtis", "assertions and proofs name the deployment that they are for"),
];
