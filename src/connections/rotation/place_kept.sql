-- name: place_rotated_kept_token
-- Puts a new token in the place of the one that it replaces, among the superseded tokens.
WITH kept AS (
    UPDATE superseded_tokens k SET access_token = $3
    WHERE k.app_id = $1 AND k.connection_id = $2
    RETURNING k.connection_id),
-- The rotation of the connection that it would be restored to is over as well.
restorable AS (
    UPDATE connections c
    SET rotation = NULL, rotation_until = NULL, rotation_epoch = c.rotation_epoch + 1
    FROM kept WHERE c.app_id = $1 AND c.id = kept.connection_id
    RETURNING c.app_id, c.id, c.user_id),
-- The connection that took its place was told to doubt its token until this rotation is over. If it holds the replaced
-- one, it gets the new one too.
sure AS (
    UPDATE connections n
    SET rotation = NULL, rotation_until = NULL, rotation_epoch = n.rotation_epoch + 1
    FROM superseded_tokens k JOIN connections o ON o.id = k.connection_id
    WHERE k.app_id = $1 AND k.connection_id = $2 AND n.app_id = $1 AND n.id = k.replaced_by
      AND n.rotation = 'unanswered' AND n.rotation_epoch = o.rotation_epoch
    RETURNING n.id),
forgotten AS (
    DELETE FROM token_rotations r
    WHERE r.connection_id IN (SELECT id FROM restorable UNION ALL SELECT id FROM sure))
SELECT record_audit(app_id, $4, 'token.rotated', 'ok', user_id, id, NULL) FROM restorable
