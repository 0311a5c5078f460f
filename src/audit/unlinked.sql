-- name: find_unlinked_audit_events
         WITH
         -- Ordered sub-selects, so that both come out of their indexes in the order in which they are merged.
         missing AS MATERIALIZED (
            SELECT e.id
            FROM (SELECT id FROM audit_events WHERE app_id = $1 ORDER BY id OFFSET 0) e
            LEFT JOIN (SELECT event_id FROM audit_links WHERE app_id = $1 ORDER BY event_id OFFSET 0) l
                ON l.event_id = e.id
            WHERE l.event_id IS NULL),
         -- Rows without a link. Those in the queue will get one; any other was tampered with.
         outside AS (
            SELECT m.id, (SELECT e.at FROM audit_events e WHERE e.app_id = $1 AND e.id = m.id) AS at,
                   m.id IN (SELECT u.event_id FROM audit_unlinked u WHERE u.app_id = $1) AS waits
            FROM missing m)
         SELECT count(*) FILTER (WHERE waits) AS "waiting!", min(at) FILTER (WHERE waits) AS oldest,
                (SELECT id FROM outside WHERE NOT waits ORDER BY id LIMIT 1) AS "lost: AuditEventId"
         FROM outside