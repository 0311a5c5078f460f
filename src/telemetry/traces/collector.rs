//! The collector, as OTLP over HTTP has it (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>): one POST for a batch of
//! spans, in protobuf.

use std::io::Write as _;

use bytes::Bytes;
use opentelemetry::{Key, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Response, StatusCode, redirect};
use url::{Host, Url};

use super::dress::dress;
use crate::config::TracesConfig;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a batch was not taken.
pub(super) struct Refused {
    /// What happened, without a URL or a header.
    pub(super) what: String,
    /// Whether it may be taken later, as it is (OTLP/HTTP, "Failures").
    pub(super) passes: bool,
}

/// The collector.
pub(super) struct Collector {
    http: reqwest::Client,
    endpoint: Url,
    gzip: bool,
    resource: ResourceAttributesWithSchema,
}

impl Collector {
    /// Prepares requests to the collector. None is made.
    ///
    /// # Errors
    /// Returns what is wrong with the certificates, or with TLS.
    pub(super) fn new(config: &TracesConfig) -> Result<Self, String> {
        #[expect(clippy::disallowed_methods, reason = "this is the module that exports traces")]
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .default_headers(config.headers.clone())
            .timeout(config.timeout)
            .http1_only();
        if is_on_this_machine(&config.endpoint) {
            http = http.no_proxy();
        }
        if let Some(pem) = &config.certificates {
            let roots = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if roots.is_empty() {
                return Err(
                    "OTEL_EXPORTER_OTLP_CERTIFICATE: holds no certificates in PEM".to_owned()
                );
            }
            http = http.tls_certs_only(roots);
        }
        let http = http.build().map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let (endpoint, gzip) = (config.endpoint.clone(), config.gzip);
        Ok(Self { http, endpoint, gzip, resource: resource(&config.resource) })
    }

    /// Encodes a batch as the body of a request.
    pub(super) fn encode(&self, spans: Vec<SpanData>) -> Bytes {
        let spans = spans.into_iter().map(dress).collect();
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let message = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        if self.gzip { gzip(&message).into() } else { message.into() }
    }

    /// Sends a batch. Returns how many of its spans the collector refused.
    pub(super) async fn send(&self, body: Bytes) -> Result<u64, Refused> {
        let mut request = self.http.post(self.endpoint.clone()).body(body);
        request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if self.gzip {
            request = request.header(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let response = request.send().await.map_err(|error| unanswered(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(refused_spans(response).await);
        }
        let passes = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        Err(Refused { what: format!("HTTP {}", status.as_u16()), passes })
    }
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn resource(attributes: &[(String, String)]) -> ResourceAttributesWithSchema {
    let attribute =
        |(name, value): &(String, String)| KeyValue::new(Key::from(name.clone()), value.clone());
    let resource = Resource::builder_empty().with_attributes(attributes.iter().map(attribute));
    (&resource.build()).into()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to a vector never fails.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}

/// Reads how many spans a collector that took the others refused. An answer that cannot be read refuses none.
async fn refused_spans(mut response: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER {
            return 0;
        }
        body.extend_from_slice(&chunk);
    }
    let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| partial.rejected_spans.try_into().unwrap_or(0))
}

/// Describes an error by its innermost cause, which names neither URL nor header.
fn unanswered(error: &reqwest::Error) -> Refused {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if std::ptr::addr_eq(cause, error) {
        "no usable answer".to_owned()
    } else {
        cause.to_string()
    };
    // After a timeout the batch may have been taken; OTLP has no way of saying the same twice.
    Refused { what, passes: error.is_connect() && !error.is_timeout() }
}
