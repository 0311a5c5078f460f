-- name: restore_superseded
-- Restores the connection that an ended one had superseded.
WITH kept AS (
    -- Deleted whether or not the connection can be restored: there is no second use for it.
    DELETE FROM superseded_tokens k
    WHERE k.replaced_by = $2 AND k.app_id = $1
    RETURNING k.*),
restored AS (
    -- Only what nothing has revoked since: by itself, by a bulk revocation whether marked or not, or by
    -- an erasure.
    UPDATE connections c
    SET status = 'active', access_token = k.access_token, user_secret = k.user_secret,
        replaced_by = NULL,
        -- It may have been superseded before they were confirmed.
        details_due_at = CASE c.provider WHEN 'plaid' THEN strongroom_now() END
    FROM kept k
    WHERE c.app_id = $1 AND c.id = k.connection_id
      AND c.status = 'invalidated' AND c.replaced_by = $2 AND c.revocation_kind IS NULL
      AND k.ends_at > strongroom_now()
      AND NOT EXISTS (
          SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                     c.ordinal))
      AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
    RETURNING c.app_id, c.id, c.user_id),
bound AS (
    -- The trigger deleted the binding when the connection was invalidated; the token opens only with it.
    INSERT INTO token_bindings (connection_id, binding)
    SELECT r.id, k.binding FROM restored r JOIN kept k ON k.connection_id = r.id
    WHERE k.binding IS NOT NULL),
audited AS (
    SELECT id, record_audit(app_id, $3, 'connection.restored', 'active', user_id, id, $4)
    FROM restored)
SELECT id AS "id: ConnectionId" FROM audited
