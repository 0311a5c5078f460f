-- name: look_up_submission
-- Finds what submissions are decided by, one row for each, in their order.
SELECT strongroom_now() AS "now!",
       credentials_of(a, ak) AS "credentials!: SealedCredentials",
       EXISTS (SELECT FROM erasures e WHERE e.user_id = u.id) AS "erasing!",
       u.id AS "user_id?: UserId",
       CASE WHEN uk.id IS NOT NULL THEN key_of(uk) END AS "user_key?: WrappedKey",
       c.id AS "existing?: ConnectionId", c.user_id AS "existing_user?: UserId",
       coalesce(o.of_another_user, false) AS "of_another_user!",
       coalesce(o.revoking, false) AS "revoking!"
FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[])
     WITH ORDINALITY AS i (app_id, client_user_id, code_hash, login_id, n)
JOIN apps a ON a.id = i.app_id
JOIN data_keys ak ON ak.app_id = a.id AND ak.purpose = 'app'
LEFT JOIN users u ON u.app_id = i.app_id AND u.client_user_id = i.client_user_id
LEFT JOIN data_keys uk ON uk.user_id = u.id AND uk.purpose = 'user'
LEFT JOIN connections c ON c.app_id = i.app_id AND c.code_hash = i.code_hash
LEFT JOIN LATERAL (
    -- Without a user row every connection of the login is another user's.
    SELECT bool_or(l.user_id IS DISTINCT FROM u.id) AS of_another_user,
           bool_or(l.status = 'revoking' AND l.user_id = u.id) AS revoking
    FROM connections l
    WHERE l.app_id = i.app_id AND l.login_id = i.login_id
      AND l.status IN ('active', 'revoking')) o ON true
ORDER BY i.n
