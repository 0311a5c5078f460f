-- Which replicas there are. A replica writes its row whenever it is asked whether it is ready: a database
-- that cannot commit that cannot serve. Each writes a row of its own, so that none waits for another.
CREATE TABLE replicas (
    id      uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT strongroom_now()
);
