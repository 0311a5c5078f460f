-- name: claim_delinks
-- Claims due delinkings with the leases of their tokens, and postpones those that cannot run yet.
WITH
-- Locks by ascending id; SKIP LOCKED and `coalesce` as in `claim_exchanges`. A token of a paused bulk
-- revocation is due only for an erasure or for a new link of the same bank login.
locked AS MATERIALIZED (
    SELECT c.app_id, c.id, c.provider = 'dapi' AND c.user_secret IS NULL AS secretless,
           CASE c.provider WHEN 'plaid' THEN $6::interval ELSE $3::interval END AS lease,
           coalesce(c.revocation_released_at, c.revocation_requested_at) + $4::interval AS gives_up_at,
           EXISTS (SELECT FROM bulk_revocations r
                   WHERE r.id = c.bulk_revocation_id AND r.state = 'cancelled') AS cancelled,
           EXISTS (SELECT FROM token_leases t
                   WHERE t.connection_id = c.id AND t.ends_at > strongroom_now()) AS in_a_call,
           EXISTS (SELECT FROM token_leases t
                   WHERE t.connection_id = c.id
                     AND t.slot = '00000000-0000-0000-0000-000000000000') AS has_lease
    FROM connections c
    WHERE c.id = ANY ($2) AND c.app_id = $1
      AND coalesce(c.due_at <= strongroom_now(), false) AND c.status = 'revoking'
      AND c.access_token IS NOT NULL
      -- A connection of an app that moves is not claimed, and the token's lease would be taken for nothing.
      AND NOT EXISTS (SELECT FROM app_fences f WHERE f.app_id = $1)
      AND (NOT EXISTS (SELECT FROM bulk_revocations r
                       WHERE r.id = c.bulk_revocation_id AND r.state = 'paused')
           OR EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
           OR EXISTS (SELECT FROM connections w
                      WHERE w.app_id = c.app_id AND w.login_id = c.login_id
                        AND w.user_id = c.user_id AND w.status = 'pending'))
    ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
-- `later` is null for the rows to claim. Evaluated once, so that the CTEs below agree.
decided AS MATERIALIZED (
    SELECT l.*, l.cancelled OR l.gives_up_at <= strongroom_now() AS given_up,
           CASE WHEN l.in_a_call THEN strongroom_now() + $5::interval
                WHEN l.secretless AND NOT l.cancelled AND l.gives_up_at > strongroom_now()
                    THEN l.gives_up_at
           END AS later
    FROM locked l),
-- The error of a real attempt is kept; only a missing user secret overwrites it.
postponed AS (
    UPDATE connections c
    SET leased_until = NULL, due_at = d.later,
        revocation_last_error = CASE WHEN d.in_a_call THEN c.revocation_last_error
                                     ELSE 'user_secret_missing' END
    FROM decided d WHERE d.later IS NOT NULL AND c.app_id = d.app_id AND c.id = d.id),
-- The INSERT below would wait for a locked lease row; a connection whose lease row is locked is left out.
free_leases AS MATERIALIZED (
    SELECT t.connection_id FROM token_leases t
    WHERE t.slot = '00000000-0000-0000-0000-000000000000'
      AND t.connection_id IN (SELECT id FROM decided WHERE later IS NULL AND has_lease)
    FOR UPDATE SKIP LOCKED),
-- Takes over a lease that ran out, but not one that is alive.
acquired AS (
    INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
    SELECT id, new_uuid_v7(), strongroom_now() + lease FROM decided
    WHERE later IS NULL
      AND (NOT has_lease OR id IN (SELECT connection_id FROM free_leases)) ORDER BY id
    ON CONFLICT (connection_id, slot) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
    WHERE t.ends_at <= strongroom_now()
    RETURNING connection_id, lease_id),
-- Only with the token's lease: without it, the row stays due and the next round tries again.
claimed AS (
    UPDATE connections c
    SET lease_epoch = c.lease_epoch + 1, revocation_attempts = c.revocation_attempts + 1,
        leased_until = t.now + d.lease, due_at = t.now + d.lease
    FROM decided d, acquired, (SELECT strongroom_now() AS now) t
    WHERE c.app_id = d.app_id AND c.id = d.id AND acquired.connection_id = d.id
    RETURNING c.*, acquired.lease_id, d.given_up)
SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
       c.login_id, c.lease_epoch, c.access_token AS "secret!: Sealed<AccessToken>",
       c.user_secret AS "user_secret: Sealed<UserSecret>",
       coalesce(c.revocation_binding, b.binding) AS "binding?: Binding",
       -- What is sent is known to be right: by Dapi's user secret, by a token that has worked.
       -- A token that may have been replaced by another is refused although its item lives.
       CASE c.provider WHEN 'dapi' THEN c.user_secret_proven
            ELSE NOT c.unproven AND coalesce(c.rotation NOT IN ('sent', 'unanswered'), true)
                 AND NOT EXISTS (SELECT FROM token_rotations r WHERE r.connection_id = c.id AND r.doubted)
       END AS "proven!",
       c.revocation_attempts,
       c.lease_id AS "lease_id: TokenLeaseId",
       c.given_up AS "given_up!",
       EXISTS (SELECT FROM connections o
               WHERE o.app_id = c.app_id AND o.login_id = c.login_id
                 AND o.status = 'active') AS "login_in_use!",
       key_of(uk) AS "user_key!: WrappedKey",
       credentials_of(a, ak) AS "credentials!: SealedCredentials"
FROM claimed c
JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
JOIN apps a ON a.id = c.app_id
JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
LEFT JOIN token_bindings b ON b.connection_id = c.id
