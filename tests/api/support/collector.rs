//! A collector of traces: takes OTLP over HTTP as a stranger would write it, and decodes it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message as _;

/// A span as it was exported; ids are hexadecimal.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty if it has none.
    pub parent: String,
    pub name: String,
    pub kind: otlp::span::SpanKind,
    pub attributes: BTreeMap<String, String>,
    /// The trace and the span of each link.
    pub links: Vec<(String, String)>,
    pub failed: bool,
    /// When it ended, in nanoseconds since 1970.
    pub ended: u64,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Export {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// As it was encoded before its compression.
    pub body: Vec<u8>,
}

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Everything,
    /// With this status, and nothing taken.
    Nothing(u16),
    /// Never.
    Hang,
}

struct State {
    refusals: usize,
    exports: Vec<Export>,
    takes: Takes,
}

/// The collector. It takes everything unless told otherwise.
#[derive(Clone)]
pub struct Collector {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Collector {
    pub fn spawn() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { refusals: 0, exports: Vec::new(), takes: Takes::Everything };
        let state = Arc::new(Mutex::new(state));
        let data = web::Data::from(Arc::clone(&state));
        let limit = web::PayloadConfig::new(64 * 1024 * 1024);
        let app = move || {
            let app = App::new().app_data(data.clone()).app_data(limit.clone());
            app.default_service(web::to(take))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { url, state }
    }

    pub fn takes(&self, takes: Takes) {
        self.state.lock().unwrap().takes = takes;
    }

    /// Answers so many requests by 503, and takes nothing of them.
    pub fn refuses(&self, requests: usize) {
        self.state.lock().unwrap().refusals = requests;
    }

    /// How many of those requests are still to come.
    pub fn refusals(&self) -> usize {
        self.state.lock().unwrap().refusals
    }

    pub fn exports(&self) -> Vec<Export> {
        self.state.lock().unwrap().exports.clone()
    }

    /// Everything that was exported.
    pub fn spans(&self) -> Vec<Span> {
        self.exports().iter().flat_map(|export| spans(&export.body)).collect()
    }

    /// The attributes of the resource, of all exports.
    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        let exports = self.exports();
        let messages = exports.iter().map(|export| message(&export.body));
        let resources = messages.flat_map(|message| message.resource_spans);
        resources.map(|spans| attributes(spans.resource.unwrap().attributes)).collect()
    }

    /// Waits until what was exported satisfies `condition`, and returns what that finds.
    pub async fn until<T>(&self, what: &str, mut condition: impl FnMut(&[Span]) -> Option<T>) -> T {
        for _ in 0..3000 {
            if let Some(found) = condition(&self.spans()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} is not exported: {:#?}", self.spans());
    }

    /// Waits for the span of this name in this trace.
    pub async fn span(&self, trace: &str, name: &str) -> Span {
        let is_it = |span: &&Span| span.trace == trace && span.name == name;
        self.until(name, |spans| spans.iter().find(is_it).cloned()).await
    }
}

async fn take(req: HttpRequest, body: web::Bytes, state: web::Data<Mutex<State>>) -> HttpResponse {
    let headers = req.headers().iter();
    let headers: BTreeMap<_, _> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    // actix-web is built without decompression.
    let body = match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => gunzip(&body),
        _ => body.to_vec(),
    };
    let takes = {
        let mut state = state.lock().unwrap();
        if state.refusals > 0 {
            state.refusals -= 1;
            return HttpResponse::ServiceUnavailable().finish();
        }
        if state.takes == Takes::Everything {
            state.exports.push(Export { path: req.path().to_owned(), headers, body });
        }
        state.takes
    };
    match takes {
        Takes::Everything => HttpResponse::Ok().content_type("application/x-protobuf").finish(),
        Takes::Nothing(status) => {
            HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap()).finish()
        }
        Takes::Hang => std::future::pending().await,
    }
}

fn gunzip(body: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    plain
}

fn message(body: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(body).unwrap()
}

fn spans(body: &[u8]) -> Vec<Span> {
    let scopes = message(body).resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(Span::from).collect()
}

impl From<otlp::Span> for Span {
    fn from(span: otlp::Span) -> Self {
        assert!(span.events.is_empty(), "events are the log's: {:?}", span.events);
        let (kind, status) = (span.kind(), span.status.unwrap_or_default());
        assert_eq!(status.message, "", "free text");
        Self {
            kind,
            trace: hexadecimal(&span.trace_id),
            id: hexadecimal(&span.span_id),
            parent: hexadecimal(&span.parent_span_id),
            name: span.name,
            attributes: attributes(span.attributes),
            links: span
                .links
                .iter()
                .map(|link| (hexadecimal(&link.trace_id), hexadecimal(&link.span_id)))
                .collect(),
            failed: status.code() == otlp::status::StatusCode::Error,
            ended: span.end_time_unix_nano,
        }
    }
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether it is linked with that span.
    pub fn is_linked_with(&self, other: &Span) -> bool {
        self.links.iter().any(|(trace, id)| *trace == other.trace && *id == other.id)
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    all.into_iter().map(|one| (one.key, text(one.value))).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
