//! Growth: what each kind of request and each round of the background work costs beside 10⁴, 10⁵ and 10⁶ connections.
//!
//! The history is written by SQL, with sealed values of the right sizes that open under no key; what is exchanged,
//! read and revealed are connections that the product made beside it. One app has them all: 90 in 100 are active, 5 delinked,
//! the rest ended otherwise, and a handful is pending or revoking.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::Measured;
use crate::console::Console;
use crate::machine::Stage;
use crate::product::Product;

/// Rows that the chain round links.
const CHAINED: i64 = 20_000;

/// Rows a second that are committed while the chain follows them.
const PACE: i64 = 10_000;

/// What is printed of one cost at one size.
type Cell = (String, String);

/// Fills and measures at each size, and prints one table.
pub async fn run(stage: &Stage, product: &mut Product<'_>, seconds: Duration) {
    let sizes = std::env::var("BENCH_GROWTH_SIZES").unwrap_or("10000,100000,1000000".to_owned());
    let sizes: Vec<i64> = sizes.split(',').map(|size| size.trim().parse().unwrap()).collect();
    let mut conn = PgConnection::connect(&stage.url("product")).await.unwrap();
    let console = Console::sign_in(product).await;
    conn.execute(include_str!("growth.sql")).await.unwrap();
    let (mut filled, mut columns) = (0, Vec::new());
    for size in &sizes {
        println!("filling to {size} …");
        let began = Instant::now();
        fill(&mut conn, filled, *size).await;
        filled = *size;
        println!("filled after {:?}; measuring …", began.elapsed());
        let mut column = measure(stage, product, &mut conn, seconds).await;
        column.extend(screens(product, &mut conn, &console, seconds).await);
        // Last, because what is cancelled afterwards goes on ending for a while.
        column.extend(revoke(stage, product, &mut conn, &console, *size, seconds).await);
        columns.push(column);
    }
    print(&sizes, &columns);
    print_sizes(&mut conn, *sizes.last().unwrap()).await;
}

/// Writes the history of the connections from `first` to `last`, and waits until all of it is in the chain.
async fn fill(conn: &mut PgConnection, first: i64, last: i64) {
    for part in (first..last).step_by(100_000) {
        let end = (part + 100_000).min(last);
        sqlx::query("SELECT growth_fill($1, $2)")
            .bind(part + 1)
            .bind(end)
            .execute(&mut *conn)
            .await
            .unwrap();
    }
    linked(conn).await;
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT recount_connections(); COMMIT")
        .await
        .unwrap();
    conn.execute("VACUUM (ANALYZE)").await.unwrap();
    conn.execute("CHECKPOINT").await.unwrap();
}

/// Waits until every audit row has its link.
async fn linked(conn: &mut PgConnection) {
    let waits = "SELECT EXISTS (SELECT FROM audit_unlinked)";
    while sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *conn).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn measure(
    stage: &Stage,
    product: &mut Product<'_>,
    conn: &mut PgConnection,
    seconds: Duration,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut add = |name: &str, measured: Measured| cells.push((name.to_owned(), shown(&measured)));
    // Once unmeasured: caches, and statements that are planned anew after the ANALYZE.
    product.exchange(32, Duration::from_millis(500)).await;
    add("exchange, 32 callers", product.exchange(32, seconds).await);
    add("reveal, 32 callers", product.reveal(32, seconds).await);
    add("read, 32 callers", product.read(32, seconds).await);
    for (name, path) in [
        ("list, first page", "/v1/connections"),
        ("list, `status=active`", "/v1/connections?status=active"),
        ("list, `status=revoking`", "/v1/connections?status=revoking"),
        ("list, `status=pending`", "/v1/connections?status=pending"),
        ("list, `attention=true`", "/v1/connections?attention=true"),
        ("list of one user", "/v1/connections?clientUserID=history-77"),
        ("search by text, not there", "/v1/admin/connections?text=nothing-like-this"),
        ("search by a user's name", "/v1/admin/connections?text=history-77"),
        ("search by status", "/v1/admin/connections?status=revoking"),
        ("stats", "/v1/admin/stats"),
        ("events, first page", "/v1/events?limit=100"),
        ("audit trail, first page", "/v1/admin/audit-events"),
    ] {
        product.ask(path, Duration::from_millis(300)).await;
        add(name, product.ask(path, seconds).await);
    }
    let history = format!("/v1/admin/connections/{}", product.some_connection());
    add("one connection with its history", product.ask(&history, seconds).await);
    cells.push(("background work at rest".to_owned(), rest(stage, product).await));
    cells.push(("`strongroom sweep`, nothing due".to_owned(), command(product, &["sweep"]).await));
    cells.push((format!("chain, {CHAINED} rows"), chain(stage, product, conn).await));
    cells.push((
        "the same rows inserted as links, in one statement".to_owned(),
        floor_of_chain(conn).await,
    ));
    cells.push((
        format!("chain at {PACE} rows a second"),
        chain_at_a_pace(stage, product, conn).await,
    ));
    cells.push(("`audit verify`".to_owned(), verify(product, conn).await));
    cells.push(("the same rows copied out by `COPY`".to_owned(), floor_of_verify(conn).await));
    cells
}

/// Every screen of the console, to one reader, but for an incident under way.
async fn screens(
    product: &Product<'_>,
    conn: &mut PgConnection,
    console: &Console,
    seconds: Duration,
) -> Vec<Cell> {
    let user: String =
        sqlx::query_scalar("SELECT 'usr_' || user_id FROM connections ORDER BY id LIMIT 1")
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    let approval: String = sqlx::query_scalar("SELECT 'apr_' || growth_approval()")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    let client: String = sqlx::query_scalar("SELECT id FROM clients ORDER BY id LIMIT 1")
        .fetch_one(conn)
        .await
        .unwrap();
    let mut cells = Vec::new();
    for (name, path) in [
        ("now", "now"),
        ("connections", "connections"),
        ("connections?status=revoking", "connections?status=revoking"),
        ("connections?text=nothing-like-this", "connections?text=nothing-like-this"),
        ("connections?client=nobody", "connections?client=nobody"),
        ("connections/", &format!("connections/{}", product.some_connection())),
        ("users/", &format!("users/{user}")),
        ("incident", "incident"),
        ("approvals", "approvals"),
        ("approvals/", &format!("approvals/{approval}")),
        ("audit", "audit"),
        ("audit?action=token.revealed", "audit?action=token.revealed"),
        ("audit/links", "audit/links"),
        ("clients", "clients"),
        ("clients/", &format!("clients/{client}")),
        ("keys", "keys"),
        ("webhooks", "webhooks"),
        ("upstreams", "upstreams"),
    ] {
        cells.push(screen(product, console, name, path, seconds).await);
    }
    console.ask_deployment(product, "/operators", Duration::from_millis(300)).await;
    let operators = console.ask_deployment(product, "/operators", seconds).await;
    cells.push(("console, `operators`".to_owned(), shown(&operators)));
    let form = "kind=delink&all=true";
    console.send(product, "incident/preview", form, Duration::from_millis(300)).await;
    let preview = console.send(product, "incident/preview", form, seconds).await;
    cells.push(("console, `incident/preview` of all".to_owned(), shown(&preview)));
    cells
}

async fn screen(
    product: &Product<'_>,
    console: &Console,
    name: &str,
    path: &str,
    seconds: Duration,
) -> Cell {
    console.ask(product, path, Duration::from_millis(300)).await;
    let measured = console.ask(product, path, seconds).await;
    (format!("console, `{name}`"), shown(&measured))
}

/// The console's pages of an incident under way, which has a tenth of the connections.
async fn screens_of_incident(
    product: &Product<'_>,
    console: &Console,
    order: &str,
    seconds: Duration,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, path) in [
        ("now, an incident under way", "now"),
        ("incident, one under way", "incident"),
        ("incident/ under way", &format!("incident/{order}")),
        ("incident/…/cancel", &format!("incident/{order}/cancel")),
        (
            "connections?incident=…&progress=waiting",
            &format!("connections?incident={order}&progress=waiting"),
        ),
    ] {
        cells.push(screen(product, console, name, path, seconds).await);
    }
    cells
}

fn shown(measured: &Measured) -> String {
    format!(
        "{:.2} ms; {:.0} + {:.0} µs",
        measured.p50.as_secs_f64() * 1000.0,
        measured.service_cpu,
        measured.postgres_cpu
    )
}

/// CPU of the service and of PostgreSQL while nothing is asked.
async fn rest(stage: &Stage, product: &Product<'_>) -> String {
    const REST: Duration = Duration::from_secs(20);
    let before = (product.cpu(), stage.postgres_cpu());
    tokio::time::sleep(REST).await;
    let took = |now: Duration, then: Duration| (now.saturating_sub(then)).as_secs_f64() * 1000.0;
    let (service, postgres) = (took(product.cpu(), before.0), took(stage.postgres_cpu(), before.1));
    let seconds = REST.as_secs_f64();
    format!("{:.1} + {:.1} ms of CPU a second", service / seconds, postgres / seconds)
}

async fn command(product: &Product<'_>, arguments: &[&str]) -> String {
    let began = Instant::now();
    drop(product.command(arguments).await);
    format!("{:.0} ms", began.elapsed().as_secs_f64() * 1000.0)
}

/// From the commit of audit rows to their links.
async fn chain(stage: &Stage, product: &Product<'_>, conn: &mut PgConnection) -> String {
    let before = (product.cpu(), stage.postgres_cpu());
    let began = Instant::now();
    sqlx::query("SELECT growth_audit($1)").bind(CHAINED).execute(&mut *conn).await.unwrap();
    linked(conn).await;
    let took = began.elapsed();
    let each = |now: Duration, then: Duration| {
        now.saturating_sub(then).as_secs_f64() * 1e6 / CHAINED as f64
    };
    let (service, postgres) = (each(product.cpu(), before.0), each(stage.postgres_cpu(), before.1));
    format!("{:.0} ms; {service:.0} + {postgres:.0} µs a row", took.as_secs_f64() * 1000.0)
}

/// What PostgreSQL needs at least: links of the same number into a table with the same indexes, without a chain.
async fn floor_of_chain(conn: &mut PgConnection) -> String {
    conn.execute("CREATE TEMPORARY TABLE growth_links (LIKE audit_links INCLUDING ALL)")
        .await
        .unwrap();
    let began = Instant::now();
    sqlx::query(
        "INSERT INTO growth_links (app_id, seq, event_id, version, hash, user_id, connection_id)
         SELECT app_id, seq, event_id, version, hash, user_id, connection_id
         FROM audit_links ORDER BY app_id DESC, seq DESC LIMIT $1",
    )
    .bind(CHAINED)
    .execute(&mut *conn)
    .await
    .unwrap();
    let took = began.elapsed();
    conn.execute("DROP TABLE growth_links").await.unwrap();
    format!("{:.0} ms", took.as_secs_f64() * 1000.0)
}

/// Ten seconds of commits at a pace that no app reaches; how long after the last one its link is there.
async fn chain_at_a_pace(stage: &Stage, product: &Product<'_>, conn: &mut PgConnection) -> String {
    const STEPS: i64 = 100;
    const STEP: Duration = Duration::from_millis(100);
    let before = (product.cpu(), stage.postgres_cpu());
    let began = Instant::now();
    let mut ticks = tokio::time::interval(STEP);
    for _ in 0..STEPS {
        ticks.tick().await;
        sqlx::query("SELECT growth_audit($1)").bind(PACE / 10).execute(&mut *conn).await.unwrap();
    }
    let committed = began.elapsed();
    linked(conn).await;
    let took = began.elapsed();
    let share = |now: Duration, then: Duration| {
        now.saturating_sub(then).as_secs_f64() / took.as_secs_f64() * 100.0
    };
    let (service, postgres) =
        (share(product.cpu(), before.0), share(stage.postgres_cpu(), before.1));
    let reached = (STEPS * PACE / 10) as f64 / committed.as_secs_f64();
    let behind = took.saturating_sub(committed).as_secs_f64();
    format!(
        "{reached:.0}/s; linked {behind:.1} s after the last; {service:.0} % + {postgres:.0} % of a core"
    )
}

/// What PostgreSQL needs at least to hand out what `audit verify` reads.
async fn floor_of_verify(conn: &mut PgConnection) -> String {
    let began = Instant::now();
    let mut rows = conn
        .copy_out_raw(
            "COPY (SELECT e.*, l.seq, l.hash, l.version FROM audit_links l
                   LEFT JOIN audit_events e ON e.app_id = l.app_id AND e.id = l.event_id
                   ORDER BY l.app_id, l.seq) TO STDOUT (FORMAT binary)",
        )
        .await
        .unwrap();
    while let Some(part) = rows.next().await {
        part.unwrap();
    }
    format!("{:.1} s", began.elapsed().as_secs_f64())
}

async fn verify(product: &Product<'_>, conn: &mut PgConnection) -> String {
    linked(conn).await;
    let links: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_links").fetch_one(conn).await.unwrap();
    let began = Instant::now();
    drop(product.command(&["audit", "verify", "--app", "default"]).await);
    let took = began.elapsed();
    let each = took.as_secs_f64() * 1e6 / links as f64;
    format!("{:.1} s; {each:.1} µs a link", took.as_secs_f64())
}

/// A bulk revocation of a tenth, as a dry run, to its answer, to the last mark, and in the console; cancelled afterwards.
async fn revoke(
    stage: &Stage,
    product: &Product<'_>,
    conn: &mut PgConnection,
    console: &Console,
    size: i64,
    seconds: Duration,
) -> Vec<Cell> {
    let tenth = format!("history{size}");
    sqlx::query("SELECT growth_tenth($1)").bind(&tenth).execute(&mut *conn).await.unwrap();
    let path = "/v1/admin/revocations";
    let mut body = json!({
        "kind": "invalidate", "reason": "a benchmark", "perSecond": 1, "dryRun": true, "filter": { "all": true },
    });
    let began = Instant::now();
    product.post(path, &body).await;
    let dry = began.elapsed();
    body["filter"] = json!({ "clientID": tenth });
    body["dryRun"] = json!(false);
    let before = (product.cpu(), stage.postgres_cpu());
    let began = Instant::now();
    let order = product.post(path, &body).await;
    let acknowledged = began.elapsed();
    let id = order["id"].as_str().unwrap().to_owned();
    let one = format!("{path}/{id}");
    let mut counted = order;
    while counted["matched"].is_null() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        counted = product.get(&one).await;
    }
    let marked = began.elapsed();
    let count = counted["matched"].as_f64().unwrap().max(1.0);
    let each = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() * 1e6 / count;
    let (service, postgres) = (each(product.cpu(), before.0), each(stage.postgres_cpu(), before.1));
    // Some of them need a fresh sign-in, and to fill a database takes longer than one stays fresh.
    sqlx::query("UPDATE operator_sessions SET authenticated_at = strongroom_now(), last_seen_at = strongroom_now()")
        .execute(&mut *conn)
        .await
        .unwrap();
    let under_way = screens_of_incident(product, console, &id, seconds).await;
    let began = Instant::now();
    product.post(&format!("{one}/cancel"), &json!({})).await;
    let cancelled = began.elapsed();
    let ending = screen(product, console, "now, one cancelled", "now", seconds).await;
    let millis = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
    let mut cells = vec![
        ("dry run of a revocation of all".to_owned(), millis(dry)),
        ("revocation of a tenth: in force".to_owned(), millis(acknowledged)),
        (
            "revocation of a tenth: marked".to_owned(),
            format!("{:.1} s; {service:.0} + {postgres:.0} µs a row", marked.as_secs_f64()),
        ),
        ("revocation of a tenth: cancelled".to_owned(), millis(cancelled)),
    ];
    cells.extend(under_way);
    cells.push(ending);
    cells
}

fn print(sizes: &[i64], columns: &[Vec<Cell>]) {
    let mut table = String::from("\n| |");
    for size in sizes {
        let _ = write!(table, " {size} |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(sizes.len()));
    for row in 0..columns[0].len() {
        let _ = write!(table, "\n| {} |", columns[0][row].0);
        for column in columns {
            let _ = write!(table, " {} |", column[row].1);
        }
    }
    println!("{table}\n\nMedian of the wall clock; CPU of the service + of PostgreSQL.");
}

/// Bytes of one connection's whole life, by table and index.
async fn print_sizes(conn: &mut PgConnection, size: i64) {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(AssertSqlSafe(
        "SELECT relname::text, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_total_relation_size(oid) > 1000000
         ORDER BY pg_total_relation_size(oid) DESC",
    ))
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    println!("\n| table | bytes a connection | its indexes | GB at 10⁸ |\n|---|---|---|---|");
    let each = |bytes: i64| bytes as f64 / size as f64;
    let (mut table, mut index) = (0, 0);
    for (name, of_table, of_index) in rows {
        println!(
            "| `{name}` | {:.0} | {:.0} | {:.1} |",
            each(of_table),
            each(of_index),
            each(of_table + of_index) / 10.0
        );
        (table, index) = (table + of_table, index + of_index);
    }
    println!(
        "| all | {:.0} | {:.0} | {:.1} |",
        each(table),
        each(index),
        each(table + index) / 10.0
    );
    let indexes: Vec<(String, i64)> = sqlx::query_as(
        "SELECT indexrelname::text, pg_relation_size(indexrelid) FROM pg_stat_user_indexes
         WHERE pg_relation_size(indexrelid) > 1000000 ORDER BY 2 DESC",
    )
    .fetch_all(conn)
    .await
    .unwrap();
    println!("\n| index | bytes a connection |\n|---|---|");
    for (name, bytes) in indexes {
        println!("| `{name}` | {:.0} |", each(bytes));
    }
}
