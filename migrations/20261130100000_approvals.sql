-- Four eyes: what waits for a second person. A row without an app is of the deployment: a change of who its operators are.
CREATE TABLE approvals (
    id              uuid PRIMARY KEY,
    app_id          uuid REFERENCES apps,
    kind            text NOT NULL CHECK (kind IN (
                        'bulk_revocation', 'cancellation', 'invalidation', 'erasure', 'operator', 'role')),
    -- What is carried out, in full. Gone with the decision: it may hold the app's names of users.
    request         text,
    -- The same as everybody may read it for good: of lists, their lengths.
    described       jsonb NOT NULL CHECK (jsonb_typeof(described) = 'object'),
    -- The keyed hash of app, kind and request: a request that was changed here is not carried out.
    digest          bytea NOT NULL CHECK (length(digest) = 32),
    -- How many connections it would have affected when it was asked for.
    matched         bigint CHECK (matched >= 0),
    requested_by    text NOT NULL CHECK (
                        requested_by ~ '^client: .+$' OR requested_by = 'operator'
                        OR requested_by ~ '^operator: [a-z0-9][a-z0-9._@-]{0,62}$'),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    status          text NOT NULL DEFAULT 'pending' CHECK (
                        status IN ('pending', 'approved', 'rejected', 'withdrawn', 'expired')),
    decided_by      text,
    decided_at      timestamptz,
    -- The session of the console in which somebody approved or rejected.
    decided_in      uuid,
    decision_reason text CHECK (length(decision_reason) BETWEEN 1 AND 500),
    CONSTRAINT approvals_last_an_hour CHECK (expires_at = created_at + interval '1 hour'),
    CONSTRAINT approvals_keep_no_request CHECK ((status = 'pending') = (request IS NOT NULL)),
    CONSTRAINT approvals_decided CHECK (
        (status = 'pending') = (decided_at IS NULL) AND (status = 'pending') = (decided_by IS NULL)),
    -- The minimum: one approver who is not the requester, signed in, with a name, in time.
    CONSTRAINT approvals_by_another_person CHECK (
        status <> 'approved' OR coalesce(
            decided_by ~ '^operator: [a-z0-9][a-z0-9._@-]{0,62}$' AND decided_by <> requested_by
            AND decided_in IS NOT NULL AND decided_at >= created_at AND decided_at < expires_at, false)),
    CONSTRAINT approvals_rejected_with_a_reason CHECK (status <> 'rejected' OR (
        decision_reason IS NOT NULL AND decided_in IS NOT NULL)),
    CONSTRAINT approvals_withdrawn_by_the_requester CHECK (status <> 'withdrawn' OR decided_by = requested_by)
);

-- A request that is repeated while it waits is the same one.
CREATE UNIQUE INDEX approvals_pending ON approvals (digest, requested_by) WHERE status = 'pending';
CREATE INDEX approvals_of_an_app ON approvals (app_id, id);
CREATE INDEX approvals_due ON approvals (expires_at) WHERE status = 'pending';
CREATE INDEX approvals_decided_at ON approvals (decided_at) WHERE status <> 'pending';

-- What was asked for never changes, and what was decided is decided: whatever the code does, nothing is used twice.
CREATE FUNCTION approvals_end_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'pending' OR NEW.status = 'pending' THEN
        RAISE EXCEPTION 'an approval is decided once' USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.app_id, NEW.kind, NEW.described, NEW.digest, NEW.matched, NEW.requested_by, NEW.created_at,
        NEW.expires_at)
       IS DISTINCT FROM
       (OLD.id, OLD.app_id, OLD.kind, OLD.described, OLD.digest, OLD.matched, OLD.requested_by, OLD.created_at,
        OLD.expires_at) THEN
        RAISE EXCEPTION 'what is to be approved does not change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER approvals_end_once BEFORE UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION approvals_end_once();
