-- name: claim_rotation
-- Claims a rotation with the token's lease, and records that its call begins.
WITH
-- One end for the lease, the rotation and the row: MATERIALIZED, so that the clock is read once.
t AS MATERIALIZED (SELECT strongroom_now() + $3::interval AS ends_at),
-- Takes over a lease that ran out, but not one that is alive.
acquired AS (
    INSERT INTO token_leases AS l (connection_id, lease_id, ends_at) SELECT $2, new_uuid_v7(), t.ends_at FROM t
    ON CONFLICT (connection_id, slot) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
    WHERE l.ends_at <= strongroom_now()
    RETURNING lease_id),
-- Without the lease nothing changes. The epoch fences the outcome of an earlier attempt.
claimed AS (
    UPDATE connections c
    SET rotation = CASE WHEN $4 THEN 'unanswered' ELSE 'sent' END,
        rotation_epoch = c.rotation_epoch + 1, rotation_until = t.ends_at
    FROM t, acquired WHERE c.app_id = $1 AND c.id = $2
    RETURNING c.*, acquired.lease_id),
-- The end of the lease, so that a crash makes it due again by itself.
counted AS (
    UPDATE token_rotations r
    SET due_at = t.ends_at, attempts = r.attempts + 1, doubted = r.doubted OR $4
    FROM t, claimed WHERE r.connection_id = claimed.id
    RETURNING r.connection_id, r.attempts, r.doubted),
-- Before the call: its answer may get lost.
audited AS (
    SELECT id, record_audit(app_id, $5, 'token.rotation_begun', 'begun', user_id, id, $6) FROM claimed)
SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
       c.login_id AS "login_id!", c.rotation_epoch, c.lease_id AS "lease_id!: TokenLeaseId",
       c.access_token AS "token!: Sealed<AccessToken>", b.binding AS "binding?: Binding",
       n.attempts, n.doubted,
       key_of(uk) AS "user_key!: WrappedKey", credentials_of(a, ak) AS "credentials!: SealedCredentials"
FROM claimed c
JOIN audited ON audited.id = c.id
JOIN counted n ON n.connection_id = c.id
JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
JOIN apps a ON a.id = c.app_id
JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
LEFT JOIN token_bindings b ON b.connection_id = c.id
