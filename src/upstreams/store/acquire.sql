-- name: acquire_upstream_token
-- Reads an upstream's token and records that it leaves.
WITH
-- found: MATERIALIZED, so that every part sees one row and one moment; no lock.
found AS MATERIALIZED (
    SELECT u.*, strongroom_now() AS moment FROM upstreams u
    WHERE u.app_id = $1 AND u.name = $2),
-- valid: a token that lives for a second at least, in which it can reach its user.
valid AS MATERIALIZED (
    SELECT * FROM found WHERE token_expires_at >= moment + interval '1 second'),
-- recorded: MATERIALIZED, so that the function runs once; the token depends on its row.
recorded AS MATERIALIZED (
    SELECT record_audit($1, $3, $4, 'ok', NULL, NULL, $5) FROM valid)
SELECT f.id AS "id!: UpstreamId", f.base_url,
       CASE WHEN (SELECT count(*) FROM recorded) = 1 THEN v.access_token END
           AS "token: Sealed<UpstreamToken>",
       v.token_epoch AS "token_epoch?",
       floor(extract(epoch FROM v.token_expires_at - f.moment))::bigint AS expires_in,
       coalesce(f.token_refresh_at <= f.moment, true)
           AND coalesce(f.leased_until <= f.moment, true)
           AND coalesce(f.retry_at <= f.moment, true) AS "refresh_due!",
       CASE WHEN f.retry_at > f.moment
           THEN ceil(extract(epoch FROM f.retry_at - f.moment))::bigint END AS cooling,
       f.failure, f.failure_detail, f.oauth_error,
       key_of(k) AS "key!: WrappedKey"
FROM found f
JOIN data_keys k ON k.app_id = f.app_id AND k.purpose = 'app'
LEFT JOIN valid v ON true
