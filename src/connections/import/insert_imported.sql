-- name: insert_imported
-- Inserts a connection that an app brings with its token.
WITH
-- `$9`: no older link of the bank login has to be delinked first.
inserted AS (
    INSERT INTO connections (
        app_id, id, user_id, status, login_id, dapi_user_id, dapi_token_id,
        access_token, user_secret, activated_at, due_at, created_by,
        unproven, attention_type, attention_since, provider, details_due_at)
    SELECT $1, $2, $3, CASE WHEN $9 THEN 'active' ELSE 'pending' END, $4, $5, $6, $7, $8,
           CASE WHEN $9 THEN strongroom_now() END,
           CASE WHEN NOT $9 THEN strongroom_now() + $10::interval END,
           ($11::audit_actor).client_id,
           $12, $13::text, CASE WHEN $13 IS NOT NULL THEN strongroom_now() END, $15,
           CASE WHEN $9 AND $15 = 'plaid' THEN strongroom_now() END
    RETURNING app_id, id, user_id, status),
bound AS (
    INSERT INTO token_bindings (connection_id, binding) SELECT id, $14 FROM inserted)
SELECT record_audit(app_id, $11, 'connection.imported', status, user_id, id,
                    CASE WHEN NOT $12 THEN 'verified' END)
FROM inserted
UNION ALL
SELECT record_audit(app_id, $11, 'connection.attention_set', 'ok', user_id, id, $13)
FROM inserted WHERE $13 IS NOT NULL
