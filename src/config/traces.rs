//! The settings about traces: the standard `OTEL_` variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>), as far as they apply to spans that
//! are exported as OTLP over HTTP.
//!
//! Platforms set these variables for all that they run. A value that cannot be used therefore leaves traces off, with a
//! warning, and never stops a start.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;
use zeroize::Zeroizing;

use super::{ConfigError, Environment, Reader};
use crate::common::RELEASE;
use crate::common::secret::SecretText;

// Settings of the exporter: for traces alone, and for all signals.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// Whether traces are exported.
#[derive(Debug)]
pub enum Traces {
    /// No endpoint is set, or they are turned off.
    Off,
    /// They are exported.
    On(Box<TracesConfig>),
    /// They would be exported, but for these mistakes.
    Unusable(ConfigError),
}

/// Where traces go, and which.
#[derive(Debug)]
pub struct TracesConfig {
    /// The URL of the request, path included.
    pub endpoint: Url,
    /// Headers of the request, marked as sensitive: they hold the collector's credentials.
    pub headers: HeaderMap,
    /// The certificates, in PEM, of which the collector's has to be signed by one; the system's without.
    pub certificates: Option<Vec<u8>>,
    /// The time limit of one request.
    pub timeout: Duration,
    /// Whether requests are compressed by gzip.
    pub gzip: bool,
    /// What the spans are about: attributes of the resource, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// Which traces are exported.
    pub sampler: TraceSampler,
    /// How many spans wait for their export at most.
    pub queue: usize,
    /// How many spans one request has at most.
    pub batch: usize,
    /// How long a span waits for others to be sent with.
    pub delay: Duration,
}

/// Which traces are exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceSampler {
    /// The share of the traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Whether the caller's decision holds for a trace that began elsewhere.
    pub parent_based: bool,
}

impl Traces {
    /// Reads the settings about traces. The secret ones are read by `reader`, like all secrets.
    pub(super) fn read(environment: &Environment, reader: &mut Reader<'_>) -> Self {
        let [headers, general] = HEADERS.map(|name| reader.secret(name));
        let headers = headers.or(general);
        let mut own = Reader::new(environment);
        if is_off(&mut own) {
            return own.finish(Some(())).map_or_else(Self::Unusable, |()| Self::Off);
        }
        let config = TracesConfig::read(&mut own, headers.as_ref());
        match own.finish(config) {
            Ok(config) => Self::On(Box::new(config)),
            Err(mistakes) => Self::Unusable(mistakes),
        }
    }
}

/// Returns whether there is no endpoint, or traces are turned off.
fn is_off(reader: &mut Reader<'_>) -> bool {
    let same = |text: &str| Ok::<_, &str>(text.to_owned());
    // The specification of booleans: everything else than `true` is false.
    let disabled = reader.or("OTEL_SDK_DISABLED", String::new(), same);
    let exporter = reader.or("OTEL_TRACES_EXPORTER", true, |text| match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err("must be otlp or none"),
    });
    let has_endpoint = ENDPOINT.iter().any(|name| reader.is_set(name));
    disabled.eq_ignore_ascii_case("true") || !exporter || !has_endpoint
}

impl TracesConfig {
    fn read(reader: &mut Reader<'_>, headers: Option<&SecretText>) -> Option<Self> {
        reader.optional(chosen(reader, PROTOCOL), |text| match text {
            "http/protobuf" => Ok(()),
            _ => Err("must be http/protobuf, which collectors take on port 4318"),
        });
        let endpoint = read_endpoint(reader);
        let gzip = reader.or(chosen(reader, COMPRESSION), false, |text| match text {
            "gzip" => Ok(true),
            "none" => Ok(false),
            _ => Err("must be gzip or none"),
        });
        let certificates = reader.optional(chosen(reader, CERTIFICATE), |path| {
            std::fs::read(path)
                .map_err(|error| format!("names a file that cannot be read: {error}"))
        });
        let headers = headers.map_or_else(|| Some(HeaderMap::new()), parse_headers);
        if headers.is_none() {
            let what = "must be name=value,name=value with percent-encoded values";
            reader.mistake(chosen(reader, HEADERS), what);
        }
        let queue = reader.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=1_000_000);
        let batch = reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512.min(queue), 1..=queue);
        Some(Self {
            endpoint: endpoint?,
            headers: headers?,
            certificates,
            timeout: milliseconds(reader, chosen(reader, TIMEOUT), 10_000),
            gzip,
            resource: read_resource(reader),
            sampler: TraceSampler::read(reader),
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            batch: usize::try_from(batch).unwrap_or(usize::MAX),
            delay: milliseconds(reader, "OTEL_BSP_SCHEDULE_DELAY", 5000),
        })
    }
}

/// Returns the name of a setting of the exporter: the one for traces alone, if it is set, or else the one for all signals.
fn chosen(reader: &Reader<'_>, [own, general]: [&'static str; 2]) -> &'static str {
    if reader.is_set(own) { own } else { general }
}

fn milliseconds(reader: &mut Reader<'_>, name: &str, default: u32) -> Duration {
    Duration::from_millis(reader.number(name, default, 1..=600_000).into())
}

/// Reads the endpoint: that for traces as it is, that for all signals with `v1/traces` behind its path (OTLP/HTTP).
fn read_endpoint(reader: &mut Reader<'_>) -> Option<Url> {
    let [own, general] = ENDPOINT;
    if reader.is_set(own) {
        return reader.optional(own, parse_endpoint);
    }
    let mut url = reader.optional(general, parse_endpoint)?;
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

fn parse_endpoint(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    url.ok_or("must be http(s)://host:port, without a user; OTEL_EXPORTER_OTLP_HEADERS is for credentials")
}

/// Parses `name=value,name=value`, in which values are percent-encoded.
fn parse_headers(text: &SecretText) -> Option<HeaderMap> {
    let items = text.expose().split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) = item.split_once('=')?;
            let decoded = Zeroizing::new(percent_decode_str(value.trim()).collect::<Vec<u8>>());
            let mut value = HeaderValue::from_bytes(&decoded).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        })
        .collect()
}

/// Reads the attributes of the resource. `OTEL_SERVICE_NAME` wins over a `service.name` among them.
fn read_resource(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    const SERVICE_NAME: &str = "service.name";
    let mut attributes = reader.list("OTEL_RESOURCE_ATTRIBUTES", |item| {
        let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from);
        let parsed = item.split_once('=').and_then(|(name, value)| {
            Some((decoded(name).ok()?, decoded(value).ok()?)).filter(|(name, _)| !name.is_empty())
        });
        parsed.ok_or("must be name=value with a percent-encoded value")
    });
    let name = reader.optional("OTEL_SERVICE_NAME", |text| Ok::<_, &str>(text.to_owned()));
    if let Some(name) = name {
        attributes.retain(|(key, _)| key != SERVICE_NAME);
        attributes.push((SERVICE_NAME.to_owned(), name));
    }
    let mut default = |key: &str, value: &str| {
        if !attributes.iter().any(|(known, _)| known == key) {
            attributes.push((key.to_owned(), value.to_owned()));
        }
    };
    default(SERVICE_NAME, "strongroom");
    default("service.version", RELEASE);
    attributes
}

impl TraceSampler {
    fn read(reader: &mut Reader<'_>) -> Self {
        let ratio = reader.or("OTEL_TRACES_SAMPLER_ARG", 1.0, |text| {
            let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or("must be a number from 0 to 1")
        });
        let sampler = |ratio, parent_based| Ok(Self { ratio, parent_based });
        let default = Self { ratio: 1.0, parent_based: true };
        reader.or("OTEL_TRACES_SAMPLER", default, |text| match text {
            "always_on" => sampler(1.0, false),
            "always_off" => sampler(0.0, false),
            "traceidratio" => sampler(ratio, false),
            "parentbased_always_on" => sampler(1.0, true),
            "parentbased_always_off" => sampler(0.0, true),
            "parentbased_traceidratio" => sampler(ratio, true),
            _ => Err(
                "must be always_on, always_off, traceidratio, or one of them after parentbased_",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Traces {
        let environment: Environment = variables.iter().copied().collect();
        let mut reader = Reader::new(&environment);
        let traces = Traces::read(&environment, &mut reader);
        reader.finish(Some(traces)).unwrap()
    }

    fn on(more: &[(&str, &str)]) -> TracesConfig {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        match read(&[&[endpoint], more].concat()) {
            Traces::On(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn traces_are_off_without_an_endpoint_and_as_the_standard_says() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for variables in [
            &[][..],
            &[("OTEL_TRACES_EXPORTER", "otlp")],
            &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        ] {
            assert!(matches!(read(variables), Traces::Off), "{variables:?}");
        }
        assert!(matches!(read(&[endpoint, ("OTEL_SDK_DISABLED", "1")]), Traces::On(_)));
    }

    #[test]
    fn the_general_endpoint_gets_the_path_of_traces_and_their_own_is_taken_as_it_is() {
        assert_eq!(on(&[]).endpoint.as_str(), "http://collector:4318/v1/traces");
        let below = on(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example.com/x/")]);
        assert_eq!(below.endpoint.as_str(), "https://otlp.example.com/x/v1/traces");
        let own = on(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other/take")]);
        assert_eq!(own.endpoint.as_str(), "http://other/take");
    }

    #[test]
    fn headers_are_decoded_and_do_not_show() {
        let text = "Authorization=Basic%20Y2FuYXJ5, x-tenant = a=b";
        let config = on(&[("OTEL_EXPORTER_OTLP_HEADERS", text)]);
        assert_eq!(config.headers["authorization"], "Basic Y2FuYXJ5");
        assert_eq!(config.headers["x-tenant"], "a=b");
        assert!(!format!("{config:?}").contains("Y2FuYXJ5"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-own=1");
        assert!(!on(&[("OTEL_EXPORTER_OTLP_HEADERS", text), own]).headers.contains_key("x-tenant"));
    }

    #[test]
    fn the_resource_has_a_name_and_the_standards_order_of_precedence() {
        let resource = |more: &[(&str, &str)]| on(more).resource;
        let named = |name: &str| ("service.name".to_owned(), name.to_owned());
        assert!(resource(&[]).contains(&named("strongroom")));
        let attributes =
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=x%20y");
        let all = resource(&[attributes]);
        assert!(all.contains(&named("a")));
        assert!(all.contains(&("deployment.environment.name".to_owned(), "x y".to_owned())));
        let all = resource(&[attributes, ("OTEL_SERVICE_NAME", "b")]);
        assert!(all.contains(&named("b")) && !all.contains(&named("a")));
    }

    #[test]
    fn the_sampler_takes_its_ratio_only_if_it_is_one_of_ratios() {
        let sampler = |name, ratio| {
            on(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", ratio)]).sampler
        };
        let expected = |ratio, parent_based| TraceSampler { ratio, parent_based };
        assert_eq!(on(&[]).sampler, expected(1.0, true));
        assert_eq!(sampler("parentbased_traceidratio", "0.25"), expected(0.25, true));
        assert_eq!(sampler("traceidratio", "0.25"), expected(0.25, false));
        assert_eq!(sampler("always_off", "0.25"), expected(0.0, false));
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_value_and_stops_no_start() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:canary@collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "na me=canary"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/at-all"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ] {
            let Traces::Unusable(mistakes) = read(&[endpoint, (name, value)]) else {
                panic!("{name}={value} can be used");
            };
            let [mistake] = mistakes.mistakes() else { panic!("{mistakes}") };
            assert!(mistake.starts_with(&format!("{name}: ")), "{mistake}");
            assert!(!mistake.contains("canary"), "{mistake}");
        }
    }
}
