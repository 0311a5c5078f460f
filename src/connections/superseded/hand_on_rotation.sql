-- name: hand_on_rotation
-- Hands the rotation of a superseded connection on to the one that took its place.
WITH older AS MATERIALIZED (
    SELECT c.id, c.rotation_epoch, c.rotation_until,
           coalesce(c.rotation IN ('sent', 'unanswered'), false) AS in_doubt
    FROM connections c WHERE c.app_id = $1 AND c.id = $2 AND c.provider = 'plaid'),
newer AS (
    UPDATE connections n
    SET rotation_epoch = greatest(n.rotation_epoch, o.rotation_epoch),
        -- Its exchange may have returned the token that was replaced.
        unproven = n.unproven OR o.rotation_epoch > 0,
        rotation = CASE WHEN o.in_doubt THEN 'unanswered' ELSE n.rotation END,
        rotation_until = CASE WHEN o.in_doubt THEN o.rotation_until ELSE n.rotation_until END
    FROM older o WHERE n.app_id = $1 AND n.id = $3 AND n.status = 'active'
    RETURNING n.id)
INSERT INTO token_rotations (connection_id, app_id, revealed_at, due_at, attempts, doubted, last_error)
SELECT n.id, r.app_id, r.revealed_at, r.due_at, r.attempts, r.doubted OR o.in_doubt, r.last_error
FROM older o CROSS JOIN newer n JOIN token_rotations r ON r.connection_id = o.id
WHERE NOT r.lost
ON CONFLICT (connection_id) DO NOTHING
