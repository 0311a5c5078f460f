//! A database of its own for each test: a copy of one that is migrated once, in a throw-away cluster
//! that is started once a run, or in the one that `TEST_DATABASE_URL` names.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use strongroom::config::{DatabaseConfig, DatabaseUrl};
use strongroom::database::Pools;
use strongroom_dev::postgres::{Durability, LocalPostgres, Settings};
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

struct Cluster {
    postgres: LocalPostgres,
    template: String,
    /// The folder of pgbouncer's socket, if the services are to reach PostgreSQL through it.
    pooler: Option<String>,
}

/// The port in the name of pgbouncer's socket.
const POOLER_PORT: u16 = 6432;

/// The role of the pooler's sessions. What a session of the service sets at its beginning is set on the role, as
/// docs/operating.md says: through a pooler those statements reach some of the server's sessions and not others.
const POOLED_ROLE: &str = "
    CREATE ROLE pooled LOGIN SUPERUSER;
    ALTER ROLE pooled SET statement_timeout = '4500ms';
    ALTER ROLE pooled SET lock_timeout = '200ms';
    ALTER ROLE pooled SET idle_in_transaction_session_timeout = '4500ms';
    ALTER ROLE pooled SET default_transaction_isolation = 'read committed';
    ALTER ROLE pooled SET enable_seqscan = off;
    ALTER ROLE pooled SET enable_hashjoin = off;
    ALTER ROLE pooled SET enable_mergejoin = off;
    ALTER ROLE pooled SET jit = off;
    ALTER ROLE pooled SET plan_cache_mode = force_generic_plan;";

impl Cluster {
    async fn get() -> &'static Self {
        CLUSTER.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let folder = format!("/tmp/strongroom-test-{}", uuid::Uuid::from_u128(rand()).simple());
        #[expect(
            clippy::disallowed_methods,
            reason = "tests look for PostgreSQL where they are told"
        )]
        let (programs, path, pooler) = (
            std::env::var_os("PG_BIN"),
            std::env::var_os("PATH"),
            std::env::var("STRONGROOM_TEST_POOLER").ok(),
        );
        let postgres = LocalPostgres::start(Settings {
            folder: folder.into(),
            durability: Durability::Throwaway,
            programs: programs.filter(|value| !value.is_empty()).map(Into::into),
            path,
        })
        .await
        .unwrap();
        let template = "template_strongroom".to_owned();
        let cluster = Self { postgres, template, pooler };
        cluster.make_template().await;
        if let Some(folder) = &cluster.pooler {
            cluster.await_pooler(folder).await;
        }
        cluster
    }

    /// Writes where the databases are, for `scripts/test-pgbouncer`, which starts pgbouncer then.
    async fn await_pooler(&self, folder: &str) {
        let mut conn = self.connect("postgres").await;
        conn.execute(POOLED_ROLE).await.unwrap();
        conn.close().await.unwrap();
        let find = |name: &str| parameter(&self.postgres.url(), name);
        let line = format!("* = host={} port={} user=pooled\n", find("host="), find("port="));
        let folder = std::path::Path::new(folder);
        std::fs::write(folder.join("databases.part"), format!("[databases]\n{line}")).unwrap();
        std::fs::rename(folder.join("databases.part"), folder.join("databases.ini")).unwrap();
        let socket = folder.join(format!(".s.PGSQL.{POOLER_PORT}"));
        for _ in 0..600 {
            if tokio::net::UnixStream::connect(&socket).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no pooler came");
    }

    /// Returns the URL by which a service reaches a database, and the one by which it migrates it if that is another.
    fn urls(&self, database: &str) -> (String, Option<String>) {
        let direct = self.postgres.url().replace("///postgres?", &format!("///{database}?"));
        match &self.pooler {
            None => (direct, None),
            Some(folder) => {
                let pooled = format!(
                    "postgres:///{database}?host={folder}&port={POOLER_PORT}&user=postgres&sslmode=disable"
                );
                (pooled, Some(direct))
            }
        }
    }

    async fn make_template(&self) {
        let mut conn = self.connect("postgres").await;
        let sql = format!("CREATE DATABASE {}", self.template);
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        conn.close().await.unwrap();
        let mut conn = self.connect(&self.template).await;
        sqlx::migrate!().run(&mut conn).await.unwrap();
        // The clock that the tests turn.
        conn.execute(
            "CREATE TABLE test_clock (ahead interval NOT NULL);
             INSERT INTO test_clock VALUES ('0');
             CREATE OR REPLACE FUNCTION strongroom_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $$ SELECT clock_timestamp() + ahead FROM test_clock $$;",
        )
        .await
        .unwrap();
        conn.close().await.unwrap();
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        self.postgres.connect_options().database(database)
    }

    async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options(database)).await.unwrap()
    }
}

/// Random enough for a name.
fn rand() -> u128 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = || std::hash::RandomState::new().build_hasher().finish();
    u128::from(random()) << 64 | u128::from(random())
}

/// Returns the value of a parameter of a URL; `name` ends with the sign of equality.
fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap().to_owned()
}

pub struct TestDatabase {
    url: String,
    /// The way past the pooler, if there is one.
    owner_url: Option<String>,
    pub pool: PgPool,
}

impl TestDatabase {
    pub async fn new() -> Self {
        let cluster = Cluster::get().await;
        let name = format!("test_{}", uuid::Uuid::from_u128(rand()).simple());
        let mut conn = cluster.connect("postgres").await;
        let sql = format!("CREATE DATABASE {name} TEMPLATE {}", cluster.template);
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        conn.close().await.unwrap();
        let (url, owner_url) = cluster.urls(&name);
        // The test writes even while the database's default says that nobody does.
        let writes = cluster.options(&name).options([("default_transaction_read_only", "off")]);
        let pool = PgPool::connect_lazy_with(writes);
        Self { url, owner_url, pool }
    }

    /// One that holds what the release before `20261126170000` wrote: its schema, and the rows of `data`.
    pub async fn of_an_earlier_release(until: i64, data: &'static str) -> Self {
        let database = Self::migrated_until(until).await;
        database.execute(data).await;
        database
    }

    /// One with the migrations up to a version, and without rows.
    pub async fn migrated_until(until: i64) -> Self {
        let cluster = Cluster::get().await;
        let name = format!("test_{}", uuid::Uuid::from_u128(rand()).simple());
        let mut conn = cluster.connect("postgres").await;
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        conn.close().await.unwrap();
        let (url, owner_url) = cluster.urls(&name);
        let all = sqlx::migrate!();
        let earlier: Vec<_> = all.iter().filter(|it| it.version <= until).cloned().collect();
        let mut conn = cluster.connect(&name).await;
        sqlx::migrate::Migrator { migrations: earlier.into(), ..all }.run(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        let pool = PgPool::connect_lazy_with(cluster.options(&name));
        Self { url, owner_url, pool }.past_the_pooler()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A service's pools of connections to it.
    pub fn pools(&self) -> Arc<Pools> {
        Pools::new(&DatabaseConfig {
            service: DatabaseUrl::parse(&self.url).unwrap(),
            connections: 16,
            console: 0,
            timeout: Duration::from_secs(5),
            migrate: false,
            owner: None,
        })
    }

    /// The same without the pooler, for what it keeps from its clients: the settings, the locks and the end of a session.
    #[must_use]
    pub fn past_the_pooler(mut self) -> Self {
        self.url = self.owner_url.take().unwrap_or(self.url);
        self
    }

    /// The URL that is for migrations alone, if services reach PostgreSQL through a pooler.
    pub fn owner_url(&self) -> Option<&str> {
        self.owner_url.as_deref()
    }

    /// PostgreSQL's socket, or the pooler's.
    pub fn socket(&self) -> std::path::PathBuf {
        let find = |name: &str| parameter(&self.url, name);
        std::path::Path::new(&find("host=")).join(format!(".s.PGSQL.{}", find("port=")))
    }

    pub async fn turn_clock(&self, by: Duration) {
        sqlx::query("UPDATE test_clock SET ahead = ahead + $1 * interval '1 second'")
            .bind(by.as_secs_f64())
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn execute(&self, sql: &'static str) {
        self.pool.execute(sql).await.unwrap();
    }

    /// The one value that a query answers, as text.
    pub async fn value(&self, sql: &'static str) -> String {
        let wrapped = format!("SELECT coalesce(v::text, 'null') FROM ({sql}) AS t(v)");
        sqlx::query_scalar(AssertSqlSafe(wrapped)).fetch_one(&self.pool).await.unwrap()
    }

    /// Every row of a query of one column, as text.
    pub async fn values(&self, sql: &'static str) -> Vec<String> {
        let wrapped = format!("SELECT coalesce(v::text, 'null') FROM ({sql}) AS t(v)");
        sqlx::query_scalar(AssertSqlSafe(wrapped)).fetch_all(&self.pool).await.unwrap()
    }

    /// Waits until as many statements wait for locks.
    pub async fn waits_for_locks(&self, count: &str) {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..2000 {
            if self.value(sql).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{count} statements never wait");
    }

    pub async fn is_leased(&self, connection: &str) -> bool {
        let uuid: uuid::Uuid = connection.trim_start_matches("conn_").parse().unwrap();
        sqlx::query_scalar("SELECT leased_until IS NOT NULL FROM connections WHERE id = $1")
            .bind(uuid)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Whether a connection's institution and accounts are yet to be asked for, for the first time.
    pub async fn awaits_details(&self, connection: &str) -> bool {
        let uuid: uuid::Uuid = connection.trim_start_matches("conn_").parse().unwrap();
        let sql = "SELECT details_due_at IS NOT NULL AND details_attempts = 0
                   FROM connections WHERE id = $1";
        sqlx::query_scalar(sql).bind(uuid).fetch_one(&self.pool).await.unwrap()
    }

    /// What the audit trail tells, `action outcome`, in order.
    pub async fn audit(&self) -> Vec<String> {
        self.values("SELECT action || ' ' || outcome FROM audit_events ORDER BY id").await
    }

    /// The same, of connections alone.
    pub async fn trail(&self) -> Vec<String> {
        let all = self.audit().await;
        all.into_iter().filter(|event| event.starts_with("connection.")).collect()
    }
}
