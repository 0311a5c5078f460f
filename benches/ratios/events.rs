//! Events: about a thousand a second through one replica to twenty endpoints, of which one hangs.
//!
//! The events are copies of one that a trigger wrote, of nine types in turn; each type has two endpoints or three, so that
//! more than two thousand deliveries a second are made, a ninth of the events to the endpoint that hangs. How late an event arrives is
//! measured from its `timestamp`, which is that of its commit, by the clock of the same machine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::machine::{self, Stage};
use crate::product::Product;

const ENDPOINTS: usize = 20;
const A_SECOND: u32 = 990;
const TYPES: [&str; 9] = [
    "connection.active",
    "connection.rejected",
    "connection.expired",
    "connection.orphaned",
    "connection.revoking",
    "connection.delinked",
    "connection.invalidated",
    "connection.attention",
    "connection.attention_cleared",
];

type Delays = Arc<Mutex<Vec<Duration>>>;

/// Sends events for so long and prints how late they arrived, and what a delivery costs; before, the same of the floor.
pub async fn run(stage: &Stage, service: &Product<'_>, seconds: u64) {
    let delays = Delays::default();
    let mut urls = Vec::new();
    for number in 0..ENDPOINTS {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        urls.push(format!("http://{}/hook", listener.local_addr().unwrap()));
        tokio::spawn(listen(listener, number == 0, Arc::clone(&delays)));
    }
    floor(&urls[1..], &delays, Duration::from_secs(seconds)).await;
    for (number, url) in urls.iter().enumerate() {
        service.add_webhook(url, TYPES[number % TYPES.len()]).await;
    }
    let cpu_before = (service.cpu(), stage.postgres_cpu());
    let mut conn = PgConnection::connect(&stage.url("product")).await.unwrap();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..seconds * 10 {
        ticks.tick().await;
        write(&mut conn, i64::from(A_SECOND / 10)).await;
    }
    let events = u64::from(A_SECOND) * seconds;
    println!("{events} events in {:?}", began.elapsed());
    let expected = (0..ENDPOINTS).skip(1).len() * usize::try_from(events).unwrap() / TYPES.len();
    let until = Instant::now() + Duration::from_mins(1);
    while delays.lock().unwrap().len() < expected && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let (of_service, of_postgres) = (
        service.cpu().saturating_sub(cpu_before.0),
        stage.postgres_cpu().saturating_sub(cpu_before.1),
    );
    let delays = std::mem::take(&mut *delays.lock().unwrap());
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / delays.len() as f64;
    let (each_service, each_postgres) = (each(of_service), each(of_postgres));
    println!(
        "of {expected} deliveries to endpoints that answer, with {each_service:.0} µs of the service's CPU each and {each_postgres:.0} of PostgreSQL's:"
    );
    tell(delays, took);
}

/// The least that a delivery can cost: a process that has the bodies in memory and posts as many in the same time.
async fn floor(urls: &[String], delays: &Delays, seconds: Duration) {
    let process = machine::play("--poster", Some(&urls.join(",")));
    tokio::time::sleep(seconds).await;
    let cpu = machine::cpu(process.0.id());
    let delays = std::mem::take(&mut *delays.lock().unwrap());
    drop(process);
    println!(
        "the floor, which only posts, with {:.0} µs of CPU each:",
        cpu.as_secs_f64() * 1e6 / delays.len() as f64
    );
    tell(delays, seconds);
}

/// Posts to these URLs in turn, as often as the product does, for as long as it lives.
pub fn post(urls: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        let a_tick = A_SECOND as usize / 10 * urls.len() / TYPES.len();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            for number in 0..a_tick {
                let call = client.post(&urls[number % urls.len()]).body(body());
                tokio::spawn(async move { call.send().await.unwrap().bytes().await.unwrap() });
            }
        }
    });
}

/// As long as an event of a connection.
fn body() -> String {
    let now = time::OffsetDateTime::now_utc();
    let now = now.format(&time::format_description::well_known::Rfc3339).unwrap();
    serde_json::json!({ "timestamp": now, "data": "x".repeat(900) }).to_string()
}

fn tell(mut delays: Vec<Duration>, took: Duration) {
    delays.sort_unstable();
    let Some(last) = delays.last() else { return println!("    no deliveries") };
    let at = |percent: usize| delays[delays.len() * percent / 100];
    println!(
        "    {} deliveries, {:.0} a second; late by {:.1?} (half), {:.1?} (99 of 100), {last:.1?} (all)",
        delays.len(),
        delays.len() as f64 / took.as_secs_f64(),
        at(50),
        at(99),
    );
}

/// Commits `count` events: one as the trigger writes it, and copies of it.
async fn write(conn: &mut PgConnection, count: i64) {
    let mut tx = conn.begin().await.unwrap();
    tx.execute(
        "UPDATE connections SET attention_type = CASE WHEN attention_type IS NULL THEN 'BENCH' END,
                attention_since = CASE WHEN attention_type IS NULL THEN now() END
         WHERE id = (SELECT min(id::text)::uuid FROM connections WHERE status = 'active')",
    )
    .await
    .unwrap();
    tx.execute("SET CONSTRAINTS ALL IMMEDIATE").await.unwrap();
    sqlx::query(
        "WITH mine AS (
            DELETE FROM event_outbox WHERE xmin = pg_current_xact_id()::xid
            RETURNING app_id, sequence, user_id, subject, snapshot)
         INSERT INTO event_outbox (app_id, type, sequence, user_id, subject, snapshot)
         SELECT m.app_id, $2[1 + n % cardinality($2)], m.sequence, m.user_id, m.subject, m.snapshot
         FROM mine m, generate_series(1, $1) n",
    )
    .bind(count)
    .bind(TYPES.map(str::to_owned).to_vec())
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

async fn listen(listener: TcpListener, hangs: bool, delays: Delays) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(receive(stream, hangs, Arc::clone(&delays)));
    }
}

/// Answers each request of a connection, or none.
async fn receive(mut stream: TcpStream, hangs: bool, delays: Delays) {
    let mut buffer = Vec::new();
    while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        while let Some(length) = complete(&buffer) {
            let request: Vec<u8> = buffer.drain(..length).collect();
            if hangs {
                continue;
            }
            if let Some(delay) = delay(&request) {
                delays.lock().unwrap().push(delay);
            }
            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// The length of the request at the beginning of the buffer, once all of it is there.
fn complete(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).unwrap().to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1)?.split("\r\n").next()?;
    let whole = head + length.parse::<usize>().unwrap();
    (buffer.len() >= whole).then_some(whole)
}

fn delay(request: &[u8]) -> Option<Duration> {
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let event: Value = serde_json::from_slice(&request[head..]).ok()?;
    let at = event["timestamp"].as_str()?;
    let at =
        time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).ok()?;
    Some(SystemTime::now().duration_since(at.into()).unwrap_or_default())
}
