//! What leaves the process of a span: attributes by a closed list, no events, no free text.
//!
//! A field that somebody adds to a span for the log is not exported until it has a row here.

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents};

/// The name of a request's span, as `http::layers` makes it.
const REQUEST: &str = "request";
const METHOD: &str = "http.request.method";
const ROUTE: &str = "http.route";

/// The fields that are exported, and the attributes that they are exported as.
const EXPORTED: &[(&str, &str)] = &[
    // Of requests; for the log, these names are shorter.
    ("method", METHOD),
    ("route", ROUTE),
    ("request_id", "strongroom.request_id"),
    ("http.response.status_code", "http.response.status_code"),
    // Of calls.
    (METHOD, METHOD),
    ("server.address", "server.address"),
    ("server.port", "server.port"),
    // Of statements.
    ("db.system.name", "db.system.name"),
    ("db.query.summary", "db.query.summary"),
    ("db.operation.batch.size", "db.operation.batch.size"),
    ("db.response.status_code", "db.response.status_code"),
    // Of all.
    ("error.type", "error.type"),
    // Of tasks: our own ids and counts.
    ("connection", "strongroom.connection"),
    ("epoch", "strongroom.epoch"),
    ("endpoint", "strongroom.webhook"),
    ("attempt", "strongroom.attempt"),
];

/// Returns the span as it is exported.
pub(super) fn dress(mut span: SpanData) -> SpanData {
    span.events = SpanEvents::default();
    span.attributes = span.attributes.into_iter().filter_map(exported).collect();
    if span.name == REQUEST {
        span.span_kind = SpanKind::Server;
        // `{method} {route}`, as the conventions have it.
        let method = text(&span.attributes, METHOD).filter(|method| method != "_OTHER");
        let method = method.unwrap_or_else(|| "HTTP".to_owned());
        let route = text(&span.attributes, ROUTE);
        span.name =
            [Some(method), route].into_iter().flatten().collect::<Vec<_>>().join(" ").into();
    }
    let failed = span.attributes.iter().any(|one| one.key.as_str() == "error.type");
    span.status = if failed { Status::error("") } else { Status::Unset };
    span
}

fn exported(attribute: KeyValue) -> Option<KeyValue> {
    let (_, name) = EXPORTED.iter().find(|(field, _)| *field == attribute.key.as_str())?;
    let value = match (*name, &*attribute.value.as_str()) {
        (ROUTE, "unmatched") => return None,
        (METHOD, "OTHER") => "_OTHER".into(),
        _ => attribute.value,
    };
    Some(KeyValue::new(Key::from_static_str(name), value))
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = &attributes.iter().find(|one| one.key.as_str() == name)?.value;
    match value {
        Value::String(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{Event, SpanContext, SpanId};
    use opentelemetry_sdk::trace::SpanLinks;

    use super::*;

    fn span(name: &'static str, attributes: &[(&'static str, &'static str)]) -> SpanData {
        let mut events = SpanEvents::default();
        events.events.push(Event::with_name("canary"));
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: UNIX_EPOCH,
            end_time: UNIX_EPOCH,
            attributes: attributes.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect(),
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: Status::error("canary"),
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[test]
    fn what_is_not_on_the_list_stays() {
        let fields = [("db.system.name", "postgresql"), ("token", "canary"), ("trace_id", "0")];
        let dressed = dress(span("query", &fields));
        assert_eq!(dressed.attributes, [KeyValue::new("db.system.name", "postgresql")]);
        assert!(dressed.events.events.is_empty());
        assert_eq!(dressed.status, Status::Unset);
    }

    #[test]
    fn a_request_is_named_by_its_method_and_its_route() {
        let fields = [("method", "GET"), ("route", "/v1/connections/{id}"), ("error.type", "500")];
        let dressed = dress(span("request", &fields));
        assert_eq!(dressed.name, "GET /v1/connections/{id}");
        assert_eq!(dressed.span_kind, SpanKind::Server);
        assert_eq!(dressed.status, Status::error(""));
        let lost = dress(span("request", &[("method", "GET"), ("route", "unmatched")]));
        assert_eq!(lost.name, "GET");
        assert_eq!(lost.attributes, [KeyValue::new("http.request.method", "GET")]);
        let odd = dress(span("request", &[("method", "OTHER"), ("route", "/v1/connections")]));
        assert_eq!(odd.name, "HTTP /v1/connections");
        assert_eq!(odd.attributes[0], KeyValue::new("http.request.method", "_OTHER"));
    }
}
