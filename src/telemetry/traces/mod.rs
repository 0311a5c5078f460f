//! Traces: the spans of this service, exported as OTLP to a collector of the operator's
//! ([ADR 26](../../../docs/adr/0026-traces-by-a-closed-list.md)).
//!
//! Spans come from `tracing`. They have a filter of their own, so that what the log leaves out, such as the spans of
//! statements, is exported; and a closed list of attributes ([`dress`]), so that nothing is exported that was not meant to be.

mod collector;
mod dress;
mod queue;
mod sampler;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus_client::collector::Collector as Metrics;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry as MetricsRegistry;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;

use self::queue::Queue;
use self::sampler::Sampler;
use super::BoxedLayer;
use crate::config::{Traces, TracesConfig};

pub(super) use self::queue::flush;

/// Returns the layer that exports spans, if they are to be exported.
///
/// # Errors
/// Returns why they cannot be.
pub(super) fn layer(traces: &Traces) -> Result<Option<BoxedLayer>, String> {
    match traces {
        Traces::Off => Ok(None),
        Traces::On(config) => exporting(config).map(Some),
        Traces::Unusable(mistakes) => Err(mistakes.mistakes().join("; ")),
    }
}

fn exporting(config: &TracesConfig) -> Result<BoxedLayer, String> {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue::start(config)?)
        .with_sampler(Sampler::new(config.sampler))
        // The collector module has the resource; the default one would read the environment.
        .with_resource(Resource::builder_empty().build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("strongroom"))
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    // Asked each time: of two filters whose answers are both kept, a span would get the answer to what was asked before
    // it in its thread, such as whether sqlx should log a statement.
    let ours = dynamic_filter_fn(|metadata, _| is_own_span(metadata))
        .with_callsite_filter(|metadata| {
            if is_own_span(metadata) { Interest::sometimes() } else { Interest::never() }
        })
        .with_max_level_hint(LevelFilter::TRACE);
    Ok(layer.with_filter(ours).boxed())
}

/// Returns whether this is a span of this service. Events stay in the log, which has the trace's id on its lines.
fn is_own_span(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with(env!("CARGO_PKG_NAME"))
}

/// Registers `trace_spans_exported` and `trace_spans_dropped`.
pub(super) fn register(registry: &mut MetricsRegistry) {
    registry.register_collector(Box::new(Counts));
}

#[derive(Debug)]
struct Counts;

impl Metrics for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (exported, dropped) = queue::counts();
        let counters = [
            ("trace_spans_exported", "Spans that the collector of traces took", exported),
            (
                "trace_spans_dropped",
                "Spans that were not exported, because the queue was full or the collector did not take them",
                dropped,
            ),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
