//! The rule of a revocation stands twice: in the model, for one connection, and in SQL, for any number. On every state
//! that a row can have, the two do the same.

use serde_json::json;
use strongroom::connections::reconcile;
use strongroom::connections::reconcile::Part;

use crate::support::TestApp;

/// Every state of a row that a revocation may meet: what differs from a received code, by column.
const STATES: [(&str, &str); 15] = [
    ("a code that was never sent", ""),
    ("a code that was sent", "lease_epoch = 1, exchange_attempts = 1, unanswered = true"),
    (
        "a code under a lease",
        "lease_epoch = 1, exchange_attempts = 1, leased_until = now() + interval '1 hour',
         due_at = now() + interval '1 hour'",
    ),
    ("a token that waits", "lease_epoch = 1, code = NULL, access_token = '\\x00'"),
    (
        "active",
        "status = 'active', lease_epoch = 1, code = NULL, access_token = '\\x00', activated_at = now(),
         due_at = NULL",
    ),
    (
        "active, imported",
        "status = 'active', code = NULL, code_hash = NULL, code_expires_at = NULL, unproven = true,
         access_token = '\\x00', activated_at = now(), due_at = NULL",
    ),
    (
        "revoking with a token, delink",
        "status = 'revoking', lease_epoch = 1, code = NULL, access_token = '\\x00', revocation_kind = 'delink',
         revocation_requested_at = now()",
    ),
    (
        "revoking with a code, invalidate",
        "status = 'revoking', lease_epoch = 1, revocation_kind = 'invalidate', revocation_requested_at = now()",
    ),
    (
        "delinked",
        "status = 'delinked', code = NULL, user_secret = NULL, due_at = NULL, revocation_kind = 'delink',
         revocation_requested_at = now(), revocation_confirmed_at = now()",
    ),
    (
        "invalidated",
        "status = 'invalidated', code = NULL, user_secret = NULL, due_at = NULL, revocation_kind = 'invalidate',
         revocation_requested_at = now()",
    ),
    (
        "superseded",
        "status = 'invalidated', code = NULL, user_secret = NULL, due_at = NULL, replaced_by = id",
    ),
    (
        "rejected",
        "status = 'rejected', code = NULL, user_secret = NULL, due_at = NULL, failure_type = 'X'",
    ),
    (
        "expired",
        "status = 'expired', code = NULL, user_secret = NULL, due_at = NULL, failure_type = 'code_expired'",
    ),
    (
        "orphaned",
        "status = 'orphaned', code = NULL, user_secret = NULL, due_at = NULL, failure_type = 'answer_lost'",
    ),
    ("a code of Plaid's", "provider = 'plaid', login_id = NULL, user_secret = NULL, lease_epoch = 1"),
];

/// What a revocation decides about a row: everything but times and the bulk revocation's own id.
const OUTCOME: &str =
    "SELECT concat_ws(' ', status, revocation_kind, revocation_reason, code IS NOT NULL,
        access_token IS NOT NULL, user_secret IS NOT NULL, revocation_confirmed_at IS NOT NULL,
        leased_until IS NOT NULL, failure_type, replaced_by IS NOT NULL)
    FROM connections WHERE login_id IS NOT DISTINCT FROM $1 OR id::text = $1";

async fn insert(app: &TestApp, changes: &str) -> String {
    let pool = &app.database.pool;
    let id = sqlx::query_scalar::<_, uuid::Uuid>(
        "INSERT INTO connections (id, app_id, user_id, status, login_id, code_hash, code_expires_at, code,
                                  user_secret, due_at)
         SELECT new_uuid_v7(), u.app_id, u.id, 'pending', gen_random_uuid()::text,
                sha256(gen_random_uuid()::text::bytea), now() + interval '20 minutes', '\\x00', '\\x00',
                now() + interval '1 hour'
         FROM users u WHERE u.client_user_id = 'ada'
         RETURNING id",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    if !changes.is_empty() {
        let change = format!("UPDATE connections SET {changes} WHERE id = $1");
        sqlx::query(sqlx::AssertSqlSafe(change)).bind(id).execute(pool).await.unwrap();
    }
    format!("conn_{id}")
}

async fn outcome(app: &TestApp, id: &str) -> String {
    let id = uuid::Uuid::parse_str(id.trim_start_matches("conn_")).unwrap();
    sqlx::query_scalar(OUTCOME).bind(id.to_string()).fetch_one(&app.database.pool).await.unwrap()
}

#[tokio::test]
async fn one_revocation_and_a_bulk_revocation_decide_alike_on_every_state() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let token = app.token().await;
    for kind in ["delink", "invalidate"] {
        for (name, changes) in STATES {
            let (one, of_many) = (insert(&app, changes).await, insert(&app, changes).await);
            let body = json!({ "reason": "incident 7" });
            let body = if kind == "delink" { json!({}) } else { body };
            let answer =
                app.api.post(&token, &format!("/v1/connections/{one}/{kind}"), &body).await;
            assert!([200, 202, 409].contains(&answer.status), "{name}: {}", answer.text);
            let filter = json!({ "connectionIDs": [of_many] });
            let order = json!({ "kind": kind, "reason": "incident 7", "filter": filter });
            let order = app.api.post(&token, "/v1/admin/revocations", &order).await;
            assert_eq!(order.status, 202, "{}", order.text);
            reconcile::part(&app.context, Part::Rows).await;
            // A delinking has no reason of its own; the bulk revocation's is the operator's.
            let bare = |text: String| text.replace(" incident 7", "");
            let (one, of_many) = (outcome(&app, &one).await, outcome(&app, &of_many).await);
            assert_eq!(bare(one), bare(of_many), "{kind}: {name}");
        }
    }
}
