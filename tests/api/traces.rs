//! Traces, as a collector receives them from the real binary.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{
    Answer, Collector, Elsewhere, Process, Receiver, Span, Stage, Takes, TestApp, for_user, id,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const USER: &str = "canary@example.com";

/// A process whose spans go to this collector, and are sent soon after they ended.
async fn serve(stage: &Stage, collector: &Collector, more: &[(&str, &str)]) -> Process {
    let usual = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    Process::serve(stage, &[&usual, more].concat()).await
}

/// Exchanges a code within a trace.
async fn exchange(process: &Process, stage: &Stage, traceparent: &str) -> Answer {
    let request = process.api.request(Method::POST, "/v1/connections");
    let request = request.bearer_auth(process.token().await).header("traceparent", traceparent);
    process.api.send(request.json(&for_user(&stage.connect(), USER))).await
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn url_of_metrics(process: &Process) -> String {
    let serving = process.log();
    let lines = serving.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let serving = lines.into_iter().find(|line| line["message"] == "serving").unwrap();
    format!("http://{}/metrics", serving["metrics"].as_str().unwrap())
}

async fn count(process: &Process, name: &str) -> u64 {
    let text = reqwest::get(url_of_metrics(process)).await.unwrap().text().await.unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("strongroom_{name}_total ")));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn one_exchange_is_one_trace_of_request_statements_and_call() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    let answer = exchange(&process, &stage, &parent("01")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);

    let request = collector.span(TRACE, "POST /v1/connections").await;
    assert_eq!((request.kind, request.parent.as_str()), (SpanKind::Server, CALLER));
    assert_eq!(request.attribute("http.request.method"), "POST");
    assert_eq!(request.attribute("http.route"), "/v1/connections");
    assert_eq!(request.attribute("http.response.status_code"), "201");
    assert_eq!(request.attribute("strongroom.request_id"), answer.header("x-request-id"));

    let exchange = collector.span(TRACE, "exchange").await;
    let call = collector.span(TRACE, "dapi exchange").await;
    assert_eq!((call.kind, &call.parent), (SpanKind::Client, &exchange.id));
    assert_eq!(call.attribute("server.address"), "127.0.0.1");
    assert!(stage.sandbox_url.ends_with(&format!(":{}", call.attribute("server.port"))));
    assert_eq!(call.attribute("http.response.status_code"), "200");

    for name in ["look_up_submission", "insert_intent", "activate_under_lease"] {
        let statement = collector.span(TRACE, name).await;
        assert_eq!(statement.attribute("db.system.name"), "postgresql");
        assert_eq!(statement.attribute("db.query.summary"), name);
        let mut ancestor = statement.clone();
        while ancestor.id != request.id {
            let spans = collector.spans();
            let above = spans.iter().find(|span| span.id == ancestor.parent);
            ancestor = above.unwrap_or_else(|| panic!("{name} is not of the request")).clone();
        }
    }
}

#[tokio::test]
async fn a_provider_sees_the_requests_position_in_the_trace() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    let request = collector.span(TRACE, "POST /v1/connections").await;
    let calls = serde_json::to_value(stage.sandbox.calls(10)).unwrap();
    assert_eq!(calls["calls"][0]["traceparent"], format!("00-{TRACE}-{}-01", request.id));
}

#[tokio::test]
async fn a_batch_is_linked_with_each_request_whose_work_it_carried_and_they_with_it() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    let (api, token) = (&process.api, process.token().await);
    let active = api.hand_in(&token, USER, &stage.connect()).await.json;
    let is_batch = |span: &&Span| {
        !span.attribute("db.operation.batch.size").is_empty() && span.parent.is_empty()
    };
    // What arrives while a statement is in flight shares the next one.
    let batch = loop {
        let reveals = (0..30).map(|_| api.reveal(&token, id(&active)));
        for revealed in futures_util::future::join_all(reveals).await {
            assert_eq!(revealed.status, 200, "{}", revealed.text);
        }
        if let Some(batch) = collector.spans().iter().find(is_batch) {
            break batch.clone();
        }
    };
    let size: usize = batch.attribute("db.operation.batch.size").parse().unwrap();
    assert!(size > 1 && batch.links.len() == size, "{batch:?}");
    let traces: BTreeSet<_> = batch.links.iter().map(|(trace, _)| trace).collect();
    assert_eq!(traces.len(), size, "each request has a trace of its own");
    for (trace, span) in &batch.links {
        let of_request = |spans: &[Span]| spans.iter().find(|one| one.id == *span).cloned();
        let statement = collector.until("a statement's span", of_request).await;
        assert_eq!(statement.trace, *trace);
        assert!(statement.is_linked_with(&batch), "the statement says which batch: {statement:?}");
        collector.span(trace, "POST /v1/connections/{id}/token").await;
    }
    let below = |spans: &[Span]| spans.iter().find(|span| span.parent == batch.id).cloned();
    let statement = collector.until("the batch's statement", below).await;
    assert_eq!(statement.attribute("db.query.summary"), batch.attribute("db.query.summary"));
}

#[tokio::test]
async fn a_trace_that_begins_here_is_exported_under_the_id_that_the_log_shows() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    let answer = process.api.get(&process.token().await, "/v1/connections").await;
    let request_id = answer.header("x-request-id");
    let line = loop {
        let log = process.log();
        let of_request =
            log.lines().find(|line| line.contains(request_id) && line.contains("answered"));
        if let Some(line) = of_request {
            break serde_json::from_str::<Value>(line).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let span = &line["span"];
    let request = collector.span(span["trace_id"].as_str().unwrap(), "GET /v1/connections").await;
    assert_eq!(request.attribute("strongroom.request_id"), request_id);
    assert_eq!(request.parent, "");
    // The log is the same as without a collector: a request's line has the request's span, and no statement's.
    assert_eq!((&span["name"], &span["route"]), (&json!("request"), &json!("/v1/connections")));
    assert!(!process.log().contains("db.query.summary"));
}

#[tokio::test]
async fn nothing_that_a_caller_chose_is_exported() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    let (api, token) = (&process.api, process.token().await);
    let active = api.hand_in(&token, USER, &stage.connect()).await.json;
    let paths = [
        "/v1/connections?clientUserID=canary%40example.com".to_owned(),
        format!("/v1/connections/{}?canary=1", id(&active)),
        "/canary/path".to_owned(),
        "/v1/upstreams/canary/proxy/canary?canary".to_owned(),
    ];
    for path in paths {
        let request = api.request(Method::GET, &path).bearer_auth(&token);
        let request = request.header("tracestate", "canary=1").header("traceparent", parent("01"));
        api.send(request.header("user-agent", "canary").header("baggage", "canary=1")).await;
    }
    let relayed = format!("/v1/connections/{}/dapi/data/canary/get", id(&active));
    api.post(&token, &relayed, &json!({ "canary": 1 })).await;
    let erase = api.request(Method::DELETE, "/v1/users/canary%40example.com").bearer_auth(&token);
    api.send(erase).await;
    let erasure = |spans: &[Span]| {
        spans.iter().find(|span| span.name == "DELETE /v1/users/{clientUserID}").map(drop)
    };
    collector.until("the erasure", erasure).await;
    collector.span(TRACE, "GET").await;
    for export in collector.exports() {
        let text = String::from_utf8_lossy(&export.body).to_lowercase();
        assert!(!text.contains("canary"), "{:#?}", collector.spans());
    }
}

#[tokio::test]
async fn a_request_is_over_when_it_is_answered_though_its_work_goes_on() {
    let stage = TestApp::builder().set("STRONGROOM_ANSWER_WITHIN", "0").stage().await;
    let collector = Collector::spawn();
    stage.sandbox.set_fault(Fault::new(Effect::Answer).delayed(Duration::from_secs(300))).unwrap();
    let process = serve(&stage, &collector, &[]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 202);
    let request = collector.span(TRACE, "POST /v1/connections").await;
    assert_eq!(request.attribute("http.response.status_code"), "202");
    assert!(!collector.spans().iter().any(|span| span.name == "dapi exchange"));
    stage.sandbox.clear_faults();
    let call = collector.span(TRACE, "dapi exchange").await;
    assert!(call.ended > request.ended, "{call:?} {request:?}");
}

#[tokio::test]
async fn a_call_without_an_answer_failed() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    stage.sandbox.set_fault(Fault::new(Effect::Drop)).unwrap();
    let process = serve(&stage, &collector, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 202);
    let call = collector.span(TRACE, "dapi exchange").await;
    assert!(call.failed && call.attribute("error.type") == "_OTHER", "{call:?}");
}

#[tokio::test]
async fn a_delivery_to_a_webhook_is_traced() {
    let builder = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let (stage, collector, receiver) =
        (builder.stage().await, Collector::spawn(), Receiver::spawn());
    let process = serve(&stage, &collector, &[]).await;
    let token = process.token().await;
    let webhook = json!({ "url": receiver.url });
    let made = process.api.post(&token, "/v1/admin/webhooks", &webhook).await;
    assert_eq!(made.status, 201, "{}", made.text);
    process.api.hand_in(&token, USER, &stage.connect()).await;
    receiver.arrived(1).await;
    let sent = |spans: &[Span]| spans.iter().find(|span| span.name == "webhook").cloned();
    let call = collector.until("the call to the webhook", sent).await;
    assert_eq!(call.attribute("http.response.status_code"), "204");
    let delivery = collector.span(&call.trace, "delivery").await;
    assert_eq!(call.parent, delivery.id);
    let webhook = made.json["id"].as_str().unwrap();
    let said = delivery.attribute("strongroom.webhook");
    assert!(!said.is_empty() && webhook.ends_with(said), "{delivery:?}");
}

#[tokio::test]
async fn a_call_to_a_master_key_elsewhere_is_linked_with_the_request_that_needed_it() {
    let engine = Elsewhere::Transit.start().await;
    let builder = engine.on(TestApp::builder(), &engine.entry("t1")).await;
    let (stage, collector) = (builder.stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    let is_linked =
        |span: &&Span| span.name == "transit" && span.links.iter().any(|(trace, _)| trace == TRACE);
    let work = collector.until("the key's", |spans| spans.iter().find(is_linked).cloned()).await;
    let call = collector.span(&work.trace, "transit call").await;
    assert_eq!((call.parent, call.kind), (work.id, SpanKind::Client));
}

#[tokio::test]
async fn a_caller_decides_whether_its_trace_is_exported_and_the_sampler_for_the_others() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let sampler = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let process = serve(&stage, &collector, &sampler).await;
    let unsampled = "00-11111111111111111111111111111111-00f067aa0ba902b7-00";
    assert_eq!(exchange(&process, &stage, unsampled).await.status, 201);
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    collector.span(TRACE, "POST /v1/connections").await;
    process.terminate();
    assert!(process.ended().await.success());
    let spans = collector.spans();
    let (own, shared): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.trace == TRACE);
    assert!(own.len() > 5, "{own:#?}");
    // The rest is what the exported trace is linked with: its batches and their statements.
    let linked: BTreeSet<_> =
        own.iter().flat_map(|span| &span.links).map(|(trace, _)| trace).collect();
    for span in shared {
        assert!(linked.contains(&span.trace), "{span:#?}");
    }
}

#[tokio::test]
async fn what_serves_no_request_is_not_exported() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[]).await;
    // Ready: the background work and the directory have asked the database.
    while process.api.send(process.api.request(Method::GET, "/readyz")).await.status != 200 {}
    process.terminate();
    assert!(process.ended().await.success());
    for span in collector.spans() {
        let is_alone = span.parent.is_empty() && span.links.is_empty();
        assert!(!is_alone || span.attribute("db.system.name").is_empty(), "{span:?}");
    }
}

#[tokio::test]
async fn a_shutdown_exports_what_is_waiting() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    assert!(collector.exports().is_empty());
    process.terminate();
    assert!(process.ended().await.success());
    let is_it = |span: &Span| span.trace == TRACE && span.name == "POST /v1/connections";
    assert!(collector.spans().iter().any(is_it));
}

#[tokio::test]
async fn the_collector_gets_the_headers_and_the_resource_as_the_standard_has_them() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20canary-of-the-collector"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test%20ing"),
        ("OTEL_SERVICE_NAME", "vault-of-tokens"),
        ("STRONGROOM_LOG", "trace"),
    ];
    let process = serve(&stage, &collector, &variables).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    collector.span(TRACE, "POST /v1/connections").await;
    let export = &collector.exports()[0];
    assert_eq!(export.path, "/v1/traces");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");
    assert_eq!(export.headers["content-encoding"], "gzip");
    assert_eq!(export.headers["authorization"], "Bearer canary-of-the-collector");
    let resource = &collector.resources()[0];
    assert_eq!(resource["service.name"], "vault-of-tokens");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["deployment.environment.name"], "test ing");
    assert!(!process.log().contains("canary-of-the-collector"));
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_nothing_and_its_losses_are_counted() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    collector.takes(Takes::Hang);
    let small = [("OTEL_BSP_MAX_QUEUE_SIZE", "8"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")];
    let process = serve(&stage, &collector, &small).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    let token = process.token().await;
    while count(&process, "trace_spans_dropped").await == 0 {
        assert_eq!(process.api.get(&token, "/v1/connections").await.status, 200);
    }
    assert_eq!(count(&process, "trace_spans_exported").await, 0);
    let started = Instant::now();
    process.terminate();
    assert!(process.ended().await.success());
    // Less than the ten seconds that the export in flight may take.
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_one_warning() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    collector.takes(Takes::Nothing(401));
    let process = serve(&stage, &collector, &[]).await;
    let warnings = || process.log().matches("spans were dropped").count();
    let token = process.token().await;
    while count(&process, "trace_spans_dropped").await < 50 {
        assert_eq!(process.api.get(&token, "/v1/connections").await.status, 200);
    }
    while warnings() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(warnings(), 1, "{}", process.log());
    assert!(process.log().contains("HTTP 401"));
    // It is back: what comes from now on arrives.
    collector.takes(Takes::Everything);
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    collector.span(TRACE, "POST /v1/connections").await;
}

#[tokio::test]
async fn a_batch_that_a_collector_refuses_for_a_moment_is_sent_again() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    collector.refuses(1);
    let process = serve(&stage, &collector, &[]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    collector.span(TRACE, "POST /v1/connections").await;
    assert_eq!(collector.refusals(), 0);
    assert_eq!(count(&process, "trace_spans_dropped").await, 0);
}

#[tokio::test]
async fn settings_of_a_platform_that_cannot_be_used_leave_traces_off_and_stop_no_start() {
    let (stage, collector) = (TestApp::builder().stage().await, Collector::spawn());
    let process = serve(&stage, &collector, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).await;
    assert_eq!(exchange(&process, &stage, &parent("01")).await.status, 201);
    let log = process.log();
    let warning = log.lines().find(|line| line.contains("traces are not exported")).unwrap();
    assert!(warning.contains("OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf"), "{warning}");
    process.terminate();
    assert!(process.ended().await.success());
    assert!(collector.exports().is_empty());
}
