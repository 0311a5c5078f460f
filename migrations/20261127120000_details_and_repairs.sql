-- What is due is found app by app, from an index that begins with the app: a backlog of one does not delay another's.
CREATE INDEX connections_details_due_by_app ON connections (app_id, details_due_at)
    WHERE details_due_at IS NOT NULL;
CREATE INDEX token_rotations_due_by_app ON token_rotations (app_id, due_at);

ALTER TABLE connections
    -- What was wrong with the login before this time is past, whenever it becomes known.
    ADD COLUMN attention_cleared_at timestamptz,
    -- From this time on a call may try whether the user has repaired the login; null while no repair was begun.
    ADD COLUMN repair_tried_from timestamptz,
    -- Until then the user may still be at it, so that a call that is refused is followed by another.
    ADD COLUMN repair_ends_at timestamptz,
    ADD CONSTRAINT connections_repair CHECK (
        (repair_tried_from IS NULL OR attention_type IS NOT NULL)
        AND (repair_ends_at IS NULL OR attention_type IS NOT NULL)) NOT VALID;
