//! What the machine can do at most: pgbench with the same commits, a bare actix server.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::machine::Stage;
use crate::{Measured, load};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS intents (id uuid PRIMARY KEY, code bytea, token bytea, hash bytea UNIQUE, at timestamptz DEFAULT now());
    CREATE TABLE IF NOT EXISTS trail (id uuid PRIMARY KEY, what text, at timestamptz DEFAULT now());
    CREATE TABLE IF NOT EXISTS held (id uuid PRIMARY KEY, token bytea);
    INSERT INTO held SELECT md5(n::text)::uuid, decode(repeat('ab', 200), 'hex') FROM generate_series(1, 10000) n
        ON CONFLICT DO NOTHING;";

const PAIR: &str = "
    \\set n random(1, 1000000000000000)
    INSERT INTO intents (id, code, hash)
        VALUES (md5((:n)::text)::uuid, decode(repeat('ab', 400), 'hex'), sha256((:n)::text::bytea));
    BEGIN;
    UPDATE intents SET token = decode(repeat('cd', 300), 'hex'), code = NULL WHERE id = md5((:n)::text)::uuid;
    INSERT INTO trail (id, what) VALUES (md5((:n)::text)::uuid, 'activated');
    COMMIT;";

const SELECT: &str = "
    \\set n random(1, 10000)
    SELECT token FROM held WHERE id = md5((:n)::text)::uuid;";

const AUDITED: &str = "
    \\set n random(1, 10000)
    BEGIN;
    SELECT token FROM held WHERE id = md5((:n)::text)::uuid;
    INSERT INTO trail (id, what) VALUES (gen_random_uuid(), 'revealed');
    COMMIT;";

/// Makes the tables of the floors, unless they are there.
pub async fn prepare(stage: &Stage) {
    let mut conn = PgConnection::connect(&stage.url("postgres")).await.unwrap();
    let _ = conn.execute(AssertSqlSafe("CREATE DATABASE floor")).await;
    let mut conn = PgConnection::connect(&stage.url("floor")).await.unwrap();
    conn.execute(AssertSqlSafe(SCHEMA)).await.unwrap();
    conn.close().await.unwrap();
}

async fn pgbench(stage: &Stage, script: &str, connections: usize, seconds: Duration) -> Measured {
    prepare(stage).await;
    let file = stage.folder.join("floor.sql");
    std::fs::write(&file, script.trim()).unwrap();
    let before = stage.postgres_cpu();
    let mut command = Command::new("pgbench");
    command
        .args(["-n", "-M", "prepared", "-c", &connections.to_string(), "-j", "2"])
        .args(["-T", &seconds.as_secs().to_string(), "-f"])
        .arg(&file)
        .arg(stage.url("floor"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    let per_second = value("tps = ");
    let took = stage.postgres_cpu().checked_sub(before).unwrap_or_default();
    Measured {
        per_second,
        p50: Duration::from_secs_f64(value("latency average = ") / 1000.0),
        postgres_cpu: took.as_secs_f64() * 1e6 / (per_second * seconds.as_secs_f64()),
        ..Measured::default()
    }
}

/// Insert an intent, commit; update its outcome and insert an audit row, commit.
async fn pair(stage: &Stage, connections: usize, seconds: Duration) -> Measured {
    pgbench(stage, PAIR, connections, seconds).await
}

/// One row of 200 bytes by its id.
async fn select(stage: &Stage, connections: usize, seconds: Duration) -> Measured {
    pgbench(stage, SELECT, connections, seconds).await
}

/// The same, with an audit row and a commit.
async fn audited(stage: &Stage, connections: usize, seconds: Duration) -> Measured {
    pgbench(stage, AUDITED, connections, seconds).await
}

/// A bare actix server answering JSON.
async fn bare(stage: &Stage, connections: usize, seconds: Duration) -> Measured {
    let requests: load::Requests = Arc::new(|_| load::request("GET", "/", "", ""));
    load::run(stage.bare, connections, seconds, 200, requests).await
}

/// A bare reverse proxy before the upstream, with its own CPU.
async fn proxy(stage: &Stage, connections: usize, seconds: Duration) -> Measured {
    let requests: load::Requests = Arc::new(|_| load::request("POST", "/", "", "{}"));
    let before = stage.proxy_cpu();
    let measured = load::run(stage.proxy, connections, seconds, 200, requests).await;
    let took = stage.proxy_cpu().checked_sub(before).unwrap_or_default();
    let count = measured.per_second * seconds.as_secs_f64();
    Measured { service_cpu: took.as_secs_f64() * 1e6 / count, ..measured }
}

/// The floor of this name.
pub async fn measure(
    stage: &Stage,
    floor: &str,
    connections: usize,
    seconds: Duration,
) -> Measured {
    match floor {
        "pair" => pair(stage, connections, seconds).await,
        "select" => select(stage, connections, seconds).await,
        "audited" => audited(stage, connections, seconds).await,
        "bare" => bare(stage, connections, seconds).await,
        "proxy" => proxy(stage, connections, seconds).await,
        other => panic!("no floor {other}"),
    }
}
