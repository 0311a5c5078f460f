//! Events: each transition is told once, with the resource as `GET` showed it at the commit, in an order that never
//! changes and leaves nothing out.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::Fault;

use crate::for_each_bank;
use crate::support::{Answer, Bank, TestApp, id};

for_each_bank! {
    each_transition_is_told_once_with_the_connection_as_get_shows_it,
    each_connection_of_a_bulk_revocation_has_its_own_event_and_the_end_of_all_one,
    an_erased_user_leaves_no_event_but_that_they_were_erased,
}

async fn list(app: &TestApp, query: &str) -> Answer {
    app.api.get(&app.token().await, &format!("/v1/events{query}")).await
}

/// All events behind a cursor, and the cursor behind them.
async fn after(app: &TestApp, cursor: Option<&str>) -> (Vec<Value>, String) {
    let (mut events, mut cursor) = (Vec::new(), cursor.map(str::to_owned));
    loop {
        let query =
            cursor.as_ref().map_or("?limit=7".to_owned(), |at| format!("?limit=7&after={at}"));
        let page = list(app, &query).await;
        assert_eq!(page.status, 200, "{}", page.text);
        cursor = Some(page.json["nextCursor"].as_str().unwrap().to_owned());
        let found = page.json["events"].as_array().unwrap().clone();
        if found.is_empty() {
            return (events, cursor.unwrap());
        }
        events.extend(found);
    }
}

/// A reader that has read everything so far.
struct Reader {
    cursor: String,
}

impl Reader {
    async fn of(app: &TestApp) -> Self {
        app.dispatch().await;
        Self { cursor: after(app, None).await.1 }
    }

    /// What is new since the last time.
    async fn news(&mut self, app: &TestApp) -> Vec<Value> {
        app.dispatch().await;
        let (events, cursor) = after(app, Some(&self.cursor)).await;
        self.cursor = cursor;
        events
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

async fn shown(app: &TestApp, id: &str) -> Value {
    app.api.connection(&app.token().await, id).await
}

/// The one new event is of this type, and its data is what `GET` shows.
async fn told(app: &TestApp, reader: &mut Reader, kind: &str, id: &str, sequence: u64) {
    let news = reader.news(app).await;
    assert_eq!(types(&news), [kind]);
    let event = &news[0];
    assert_eq!(event["data"], shown(app, id).await, "{kind}");
    assert_eq!(event["data"]["id"], id);
    assert_eq!(event["sequence"], sequence, "{kind}");
    assert!(event["id"].as_str().unwrap().starts_with("event_"));
    assert!(event["timestamp"].is_string());
}

/// A connection whose exchange has not settled, handed in while the bank link gives no usable answer.
async fn pending(app: &TestApp) -> String {
    app.sandbox.set_fault(Fault::status(503).on(app.bank.exchange())).unwrap();
    let answer = app.hand_in("ada", &app.connect()).await;
    let pending = app.settled(id(&answer.json)).await;
    assert_eq!(pending["status"], "pending");
    app.sandbox.clear_faults();
    id(&pending).to_owned()
}

async fn each_transition_is_told_once_with_the_connection_as_get_shows_it(bank: Bank) {
    let app = bank.by_hand().await;
    let mut reader = Reader::of(&app).await;
    let token = app.token().await;

    let active = app.active("ada").await;
    let first = id(&active);
    // At Plaid the institution follows in a commit of its own, which is not a transition.
    let news = reader.news(&app).await;
    assert_eq!((types(&news), &news[0]["sequence"]), (vec!["connection.active"], &json!(1)));
    assert_eq!(
        (&news[0]["data"]["id"], &news[0]["data"]["status"]),
        (&active["id"], &json!("active"))
    );
    if bank == Bank::Dapi {
        assert_eq!(news[0]["data"], active);
    }

    app.sandbox.set_fault(bank.refusal(bank.needs_attention()).on(bank.read()).times(1)).unwrap();
    app.api.read(&token, bank, &active).await;
    let news = reader.news(&app).await;
    assert_eq!(types(&news), ["connection.attention"]);
    assert_eq!(news[0]["data"]["attention"], shown(&app, first).await["attention"]);
    let clear = app.api.request(Method::DELETE, &format!("/v1/connections/{first}/attention"));
    app.api.send(clear.bearer_auth(&token)).await;
    told(&app, &mut reader, "connection.attention_cleared", first, 3).await;

    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    assert_eq!(app.api.delink(&token, first).await.status, 202);
    told(&app, &mut reader, "connection.revoking", first, 4).await;
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(3600)).await;
    app.tick().await;
    told(&app, &mut reader, "connection.delinked", first, 5).await;

    let second = app.active("ada").await;
    reader.news(&app).await;
    let token = app.token().await;
    let at_once = json!({ "reason": "x", "revokeUpstream": false });
    assert_eq!(app.api.invalidate(&token, id(&second), &at_once).await.status, 200);
    told(&app, &mut reader, "connection.invalidated", id(&second), 2).await;

    app.sandbox.set_fault(bank.code_refused()).unwrap();
    let answer = app.hand_in("ada", &app.connect()).await;
    let rejected = app.settled(id(&answer.json)).await;
    told(&app, &mut reader, "connection.rejected", id(&rejected), 1).await;
    app.sandbox.clear_faults();

    let expired = pending(&app).await;
    assert_eq!(reader.news(&app).await, Vec::<Value>::new(), "pending is no event");
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    app.tick().await;
    told(&app, &mut reader, "connection.expired", &expired, 1).await;

    let orphaned = pending(&app).await;
    app.sandbox.set_fault(bank.code_refused()).unwrap();
    app.turn_clock(Duration::from_secs(60)).await;
    app.tick().await;
    assert_eq!(app.settled(&orphaned).await["status"], "orphaned");
    told(&app, &mut reader, "connection.orphaned", &orphaned, 1).await;
}

async fn each_connection_of_a_bulk_revocation_has_its_own_event_and_the_end_of_all_one(bank: Bank) {
    let app = bank.by_hand().await;
    let mut active = Vec::new();
    for user in ["ada", "bob", "eve"] {
        active.push(app.active(user).await["id"].clone());
    }
    let mut reader = Reader::of(&app).await;
    let order =
        json!({ "kind": "delink", "reason": "x", "perSecond": 1000, "filter": { "all": true } });
    let order = app.api.post(&app.token().await, "/v1/admin/revocations", &order).await;
    assert_eq!(order.status, 202, "{}", order.text);
    let mut news = Vec::new();
    for _ in 0..20 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(10)).await;
        news.extend(reader.news(&app).await);
    }
    for kind in ["connection.revoking", "connection.delinked"] {
        let of_kind = news.iter().filter(|event| event["type"] == kind);
        let mut ids: Vec<_> = of_kind.map(|event| event["data"]["id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        assert_eq!(ids, active, "{kind}");
    }
    assert_eq!(news.len(), 7, "{:?}", types(&news));
    let last = news.last().unwrap();
    assert_eq!((&last["type"], &last["sequence"]), (&json!("revocation.finished"), &Value::Null));
    let path = format!("/v1/admin/revocations/{}", id(&order.json));
    assert_eq!(last["data"], app.api.get(&app.token().await, &path).await.json);
}

async fn an_erased_user_leaves_no_event_but_that_they_were_erased(bank: Bank) {
    let app = bank.spawn().await;
    app.active("ada-who-leaves").await;
    let bob = app.active("bob").await;
    let request = app.api.request(Method::DELETE, "/v1/users/ada-who-leaves");
    let erased = app.api.send(request.bearer_auth(app.token().await)).await;
    assert_eq!((erased.status, &erased.json["status"]), (200, &json!("erased")));
    app.dispatch().await;
    let mut events = after(&app, None).await.0;
    while events.len() < 2 {
        // Another round may be giving them their positions.
        tokio::time::sleep(Duration::from_millis(10)).await;
        events = after(&app, None).await.0;
    }
    assert_eq!(types(&events), ["connection.active", "user.erased"]);
    assert_eq!(events[0]["data"]["id"], bob["id"]);
    let mut data = events[1]["data"].clone();
    let mut receipt = erased.json;
    for answer in [&mut data, &mut receipt] {
        assert!(answer["receipt"].take().is_string(), "signed anew each time");
    }
    assert_eq!(data, receipt);
    let left = "SELECT count(*) FROM (SELECT e::text FROM events e UNION ALL SELECT o::text FROM event_outbox o) t (x)
                WHERE x LIKE '%ada-who-leaves%'";
    assert_eq!(app.database.value(left).await, "0");
}

#[tokio::test]
async fn a_disabled_client_is_told_as_get_shows_it() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    let body = json!({ "name": "payroll", "scopes": ["connections:read"] });
    let made = app.api.post(&token, "/v1/admin/clients", &body).await;
    let path = format!("/v1/admin/clients/{}", made.json["clientID"].as_str().unwrap());
    let mut reader = Reader::of(&app).await;
    let disable = app.api.request(Method::PATCH, &path).bearer_auth(&token);
    for _ in 0..2 {
        let again = disable.try_clone().unwrap().json(&json!({ "disabled": true }));
        assert_eq!(app.api.send(again).await.status, 200);
    }
    let news = reader.news(&app).await;
    assert_eq!(types(&news), ["client.disabled"]);
    assert_eq!(news[0]["data"], app.api.get(&token, &path).await.json);
}

#[tokio::test]
async fn an_event_that_commits_late_comes_behind_the_cursor_that_others_have_passed() {
    let app = TestApp::by_hand().await;
    let late = app.active("ada").await;
    let mut reader = Reader::of(&app).await;
    let mut open = app.database.pool.begin().await.unwrap();
    let attention = "UPDATE connections SET attention_type = 'LATE', attention_since = now()";
    sqlx::query(attention).execute(&mut *open).await.unwrap();
    let early = app.active("bob").await;
    let news = reader.news(&app).await;
    assert_eq!((types(&news), &news[0]["data"]["id"]), (vec!["connection.active"], &early["id"]));
    open.commit().await.unwrap();
    let news = reader.news(&app).await;
    assert_eq!((types(&news), &news[0]["data"]["id"]), (vec!["connection.attention"], &late["id"]));
    assert_eq!(after(&app, None).await.0.len(), 3);
}

#[tokio::test]
async fn what_is_rolled_back_is_not_told() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let mut reader = Reader::of(&app).await;
    let mut open = app.database.pool.begin().await.unwrap();
    let attention = "UPDATE connections SET attention_type = 'NEVER', attention_since = now()";
    sqlx::query(attention).execute(&mut *open).await.unwrap();
    open.rollback().await.unwrap();
    assert_eq!(reader.news(&app).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_waiting_reader_gets_an_event_of_any_replica_within_a_second_and_otherwise_none() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let token = app.token().await;
    app.active("ada").await;
    let first = list(&app, "?wait=30").await;
    assert_eq!(first.json["events"].as_array().unwrap().len(), 1);
    let cursor = first.json["nextCursor"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let none = list(&app, &format!("?after={cursor}&wait=1")).await;
    assert_eq!(none.json, json!({ "events": [], "nextCursor": cursor }));
    assert!(began.elapsed() >= Duration::from_secs(1));
    for api in [&app.api, &other] {
        let path = format!("/v1/events?after={cursor}&wait=30");
        let waiting = api.get(&token, &path);
        let (page, connection) = tokio::join!(waiting, app.active("bob"));
        let found = page.json["events"][0]["data"]["clientUserID"].clone();
        assert_eq!((page.status, found), (200, json!("bob")), "{connection}");
    }
}

#[tokio::test]
async fn requests_that_wait_hold_no_connection_to_the_database_and_end_with_the_service() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    app.active("ada").await;
    let cursor = list(&app, "?wait=30").await.json["nextCursor"].as_str().unwrap().to_owned();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let path = format!("/v1/events?after={cursor}&wait=30");
        let request = app.api.request(Method::GET, &path).bearer_auth(&token);
        waiting.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(app.api.get(&token, "/v1/connections").await.status, 200);
    }
    app.events.feed.close();
    let statuses = waiting.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cursor_of_another_app_or_of_nobody_is_refused_and_one_that_ran_out_is_gone() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.dispatch().await;
    let start = list(&app, "?limit=1").await.json["nextCursor"].as_str().unwrap().to_owned();
    app.active("bob").await;
    let mut reader = Reader::of(&app).await;
    for query in [
        "?after=x",
        "?after=",
        "?limit=0",
        "?limit=101",
        "?wait=31",
        "?wait=-1",
        "?wait=x",
        "?cursor=x",
    ] {
        assert_eq!(list(&app, query).await.problem(), (400, "invalid_request"), "{query}");
    }
    let stranger = app.token_of_another_app().await;
    let own = app.api.get(&stranger, "/v1/events").await;
    assert_eq!(own.json["events"], json!([]), "another app's events are its own");
    let foreign = app.api.get(&stranger, &format!("/v1/events?after={start}")).await;
    assert_eq!(foreign.problem(), (400, "invalid_request"));

    app.turn_clock(Duration::from_secs((30 * 24 - 1) * 3600)).await;
    let eve = app.active("eve").await;
    app.dispatch().await;
    assert_eq!(strongroom::events::sweep(&app.events).await.unwrap(), 0);
    app.turn_clock(Duration::from_secs(2 * 3600)).await;
    assert_eq!(strongroom::events::sweep(&app.events).await.unwrap(), 2);
    let gone = list(&app, &format!("?after={start}")).await;
    assert_eq!(gone.problem(), (410, "cursor_expired"));
    let news = reader.news(&app).await;
    assert_eq!(
        (news.len(), &news[0]["data"]["id"]),
        (1, &eve["id"]),
        "who had read all lost nothing"
    );
    assert_eq!(after(&app, None).await.0, news);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dispatchers_give_each_event_one_position_without_a_gap() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    for _ in 0..40 {
        for sql in [
            "UPDATE connections SET attention_type = 'X', attention_since = now()",
            "UPDATE connections SET attention_type = NULL, attention_since = NULL",
        ] {
            app.database.execute(sql).await;
        }
        tokio::join!(
            strongroom::events::dispatch::round(&app.events),
            strongroom::events::dispatch::round(&app.events)
        )
        .0
        .unwrap();
    }
    app.dispatch().await;
    let sequences: Vec<_> =
        after(&app, None).await.0.iter().map(|e| e["sequence"].clone()).collect();
    assert_eq!(sequences, (1..=81).map(Value::from).collect::<Vec<_>>());
    let positions = "SELECT max(position) - min(position) + 1 = count(*) AND count(DISTINCT id) = 81 FROM events";
    assert_eq!(app.database.value(positions).await, "true");
}
