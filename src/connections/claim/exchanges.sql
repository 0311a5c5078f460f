-- name: claim_exchanges
-- Claims due exchanges under new leases, and postpones those behind a delinking of their bank login.
WITH
-- Locks by ascending id. SKIP LOCKED: a row that another replica claims is not waited for. `coalesce` hides
-- `due_at` from the planner, which would otherwise read the index of all due rows instead of these ids.
due AS MATERIALIZED (
    SELECT c.app_id, c.id,
           (c.status = 'pending' AND EXISTS (
               SELECT FROM connections o
               WHERE o.app_id = c.app_id AND o.login_id = c.login_id
                 AND o.user_id = c.user_id AND o.status = 'revoking')) AS blocked
    FROM connections c
    WHERE c.id = ANY ($2) AND c.app_id = $1
      AND coalesce(c.due_at <= strongroom_now(), false) AND c.code IS NOT NULL
      AND c.code_expires_at > strongroom_now()
      AND (c.provider = ANY ($4) OR (c.leased_until IS NULL AND NOT c.unanswered))
    ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
-- A lease that ran out stays known as an attempt without an answer.
postponed AS (
    UPDATE connections c
    SET due_at = strongroom_now() + $5::interval, leased_until = NULL,
        unanswered = c.unanswered OR c.leased_until IS NOT NULL
    FROM due WHERE due.blocked AND c.app_id = due.app_id AND c.id = due.id),
-- `due_at` is the end of the lease, so that a crash makes the row due again by itself.
claimed AS (
    UPDATE connections c
    SET lease_epoch = c.lease_epoch + 1, exchange_attempts = c.exchange_attempts + 1,
        leased_until = t.now + lease, due_at = t.now + lease,
        unanswered = c.unanswered OR c.leased_until IS NOT NULL
    FROM due, (SELECT strongroom_now() AS now) t,
         (VALUES ('dapi', $3::interval), ('plaid', $6::interval)) AS l (provider, lease)
    WHERE l.provider = c.provider AND NOT due.blocked AND c.app_id = due.app_id AND c.id = due.id
    RETURNING c.app_id, c.id, c.user_id, c.login_id, c.lease_epoch, c.code, c.user_secret,
              c.revocation_binding)
SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
       c.login_id, c.lease_epoch, c.code AS "secret!: Sealed<AccessCode>",
       c.user_secret AS "user_secret: Sealed<UserSecret>",
       coalesce(c.revocation_binding, b.binding) AS "binding?: Binding",
       key_of(uk) AS "user_key!: WrappedKey",
       credentials_of(a, ak) AS "credentials!: SealedCredentials"
FROM claimed c
JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
JOIN apps a ON a.id = c.app_id
JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
LEFT JOIN token_bindings b ON b.connection_id = c.id
