-- no-transaction
-- Answers that replicas which lost their work may still bring, of an app that is to move: few, and looked for ten times a second.
CREATE INDEX CONCURRENTLY connections_by_answer ON connections (app_id, answer_until) WHERE answer_until IS NOT NULL
