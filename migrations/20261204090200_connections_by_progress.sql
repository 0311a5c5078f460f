-- no-transaction
-- The connections of a bulk revocation that are equally far, newest first: what each of its figures leads to. Over one number, so
-- that no other index can answer a part of the condition (ADR 11).
CREATE INDEX CONCURRENTLY connections_by_progress ON connections (
    list_key(bulk_revocation_id, revocation_progress(status, revocation_confirmed_at, due_at)), id)
    WHERE bulk_revocation_id IS NOT NULL;
