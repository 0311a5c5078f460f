//! The parts of the audit trail: which rows are where, and what happens without the right one.

use std::time::Duration;

use strongroom::audit;
use strongroom::database::Fault;

use crate::support::{TestApp, id};

/// Beyond the first part, which ends two months ahead at the latest.
const LATER: Duration = Duration::from_hours(24 * 100);
/// The tables that the rows written in this month are in.
const WHERE: &str = "SELECT DISTINCT tableoid::regclass::text FROM audit_events
                     WHERE at >= date_trunc('month', strongroom_now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'";
const REST: &str = "SELECT (SELECT count(*) FROM audit_events_rest) || ' ' || (SELECT count(*) FROM audit_links_rest)";

impl TestApp {
    pub async fn prepare_months(&self) -> i32 {
        audit::prepare_months(&mut self.context.pool.acquire().await.unwrap()).await.unwrap()
    }

    /// The part of this month, by the turned clock.
    async fn part(&self, table: &str) -> String {
        let month = "SELECT to_char(strongroom_now() AT TIME ZONE 'UTC', 'YYYY_MM')";
        format!("{table}_{}", self.database.value(month).await)
    }

    async fn holds(&self) -> bool {
        let mut conn = self.context.pool.acquire().await.unwrap();
        let app = strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap();
        let report = audit::verify(&mut conn, app.id, &audit::Known::default(), |_, _| {}).await;
        let report = report.unwrap();
        report.broken.is_none() && report.unlinked == 0
    }
}

#[tokio::test]
async fn rows_are_in_the_part_of_their_month_and_the_chain_crosses_from_one_to_the_next() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    app.link().await;
    app.turn_clock(LATER).await;
    assert_eq!(app.prepare_months().await, 3, "this month and the two after it");
    assert_eq!(app.prepare_months().await, 0);
    assert_eq!(app.api.reveal(&app.token().await, id(&connection)).await.status, 200);
    app.link().await;
    assert_eq!(app.database.values(WHERE).await, [app.part("audit_events").await]);
    assert_eq!(app.database.value(REST).await, "0 0");
    assert!(app.holds().await);
    let events = app.api.get(&app.token().await, "/v1/admin/audit-events?limit=100").await.json;
    let seqs: Vec<_> =
        events["events"].as_array().unwrap().iter().filter_map(|it| it["seq"].as_i64()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] > pair[1]), "newest first, across the parts");
}

#[tokio::test]
async fn a_month_without_a_part_fails_nothing_and_its_rows_move_when_it_gets_one() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.link().await;
    app.turn_clock(LATER).await;
    let connection = app.active("bob").await;
    assert_eq!(app.api.reveal(&app.token().await, id(&connection)).await.status, 200);
    app.link().await;
    assert_eq!(app.database.values(WHERE).await, ["audit_events_rest"]);
    assert!(app.holds().await);
    app.prepare_months().await;
    assert_eq!(app.database.values(WHERE).await, [app.part("audit_events").await]);
    assert_eq!(app.database.value(REST).await, "0 0");
    assert!(app.holds().await);
    // What was switched off to move them is on again.
    let off = "SELECT count(*) FROM pg_trigger WHERE tgname = 'append_only' AND tgenabled <> 'O'";
    assert_eq!(app.database.value(off).await, "0");
}

#[tokio::test]
async fn what_is_written_while_its_month_gets_a_part_can_be_tried_again() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.turn_clock(LATER).await;
    let mut months = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT audit_prepare_months()").execute(&mut *months).await.unwrap();
    let committed = async {
        app.database.waits_for_locks("1").await;
        months.commit().await.unwrap();
    };
    let sql = "INSERT INTO audit_events (app_id, action, outcome, actor)
               SELECT id, 'app.added', 'ok', 'operator' FROM apps";
    let (written, ()) = tokio::join!(sqlx::query(sql).execute(&app.database.pool), committed);
    // The row was on its way into the rest, which does not take it any more.
    assert_eq!(Fault::of(&written.unwrap_err()), Fault::Contention);
    sqlx::query(sql).execute(&app.database.pool).await.unwrap();
    assert_eq!(app.database.value(REST).await, "0 0");
}

#[tokio::test]
async fn no_position_is_given_twice_or_left_out_in_whatever_month() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.link().await;
    for (seq, why) in [("seq", "twice"), ("seq + 2", "a gap")] {
        let sql = format!(
            "INSERT INTO audit_links (app_id, seq, event_id, version, hash)
             SELECT app_id, {seq}, first_id_at(strongroom_now() + interval '100 days'), 1, hash FROM audit_heads LIMIT 1"
        );
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.database.pool).await;
        let code = error.unwrap_err().as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "23505", "{why}");
    }
    assert!(app.holds().await);
}

#[tokio::test]
async fn the_background_work_makes_the_next_months() {
    let app = TestApp::by_hand().await;
    app.turn_clock(LATER).await;
    let config = strongroom::config::Config::from_environment(&app.environment).unwrap().oauth;
    strongroom::background::housekeeping(&app.context, &config).await.unwrap();
    let ahead = "SELECT count(*) FROM audit_months WHERE ends_at > strongroom_now()";
    assert_eq!(app.database.value(ahead).await, "3");
}
