//! What the console says about keys without counting them.

use sqlx::{AssertSqlSafe, Executor as _};
use strongroom::vault;

use crate::support::TestApp;

#[tokio::test]
async fn about_how_much_is_sealed_is_known_without_reading_it_and_is_never_less_than_it_was() {
    let app = TestApp::by_hand().await;
    for user in ["ada", "bob", "eve"] {
        app.active(user).await;
    }
    app.hand_in("max", &app.connect()).await;
    for statement in ["SELECT 1", "ANALYZE"] {
        app.database.execute(statement).await;
        let values = "SELECT count(*) FROM sealed_values WHERE value IS NOT NULL";
        let values: i64 = app.database.value(values).await.parse().unwrap();
        let keys: i64 = app.database.value("SELECT count(*) FROM data_keys").await.parse().unwrap();
        let mut conn = app.context.pool.acquire().await.unwrap();
        let about = vault::estimate(&mut conn).await.unwrap();
        assert!(values > 6 && keys > 4, "{values} {keys}");
        assert!(about.values >= values && about.data_keys >= keys, "{statement}: {about:?}");
        assert_eq!(about.rotating_since, None);
    }
}

#[tokio::test]
async fn every_table_with_sealed_values_is_among_those_whose_sizes_are_read() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    // As the statistics of a table that has grown say it.
    let tables = [
        ("connections", 4),
        ("superseded_tokens", 3),
        ("proxy_tokens", 1),
        ("link_tokens", 1),
        ("apps", 1),
        ("upstreams", 2),
        ("webhook_secrets", 2),
    ];
    for (table, columns) in tables {
        for (rows, least) in [(1_000_000, columns * 1_000_000), (0, 0)] {
            let size =
                format!("UPDATE pg_class SET reltuples = {rows} WHERE oid = '{table}'::regclass");
            app.database.pool.execute(AssertSqlSafe(size)).await.unwrap();
            let about = vault::estimate(&mut conn).await.unwrap().values;
            assert!(about >= least, "{table}: {about}");
        }
    }
}
