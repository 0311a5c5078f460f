//! Logs, metrics and traces.
//!
//! Logs are structured events on standard output, those of `dev` in a file; every event of a
//! request carries its id and its trace. No secret reaches them: secrets cannot be printed, and no body,
//! header, path or query is ever logged. A separate thread writes them, so a slow reader stalls no request.
//!
//! May import: config, database.

mod lines;
mod traces;

pub use lines::flush;

use std::fs::File;
use std::io::{IsTerminal as _, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry as Metrics;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{LogConfig, LogFormat, Traces};
use crate::database::Pools;

/// A layer of this process's one subscriber.
type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging to standard output, and exporting traces; logs panics instead of printing them. A second call has no
/// effect.
pub fn init(config: &LogConfig, traces: &Traces) {
    let log = layer(config, std::io::stdout(), std::io::stdout().is_terminal());
    start_with(vec![log.with_filter(filter(config)).boxed()], traces);
}

/// Starts logging to standard error, for a command whose standard output is its result.
pub fn init_on_stderr(config: &LogConfig) {
    let log = layer(config, std::io::stderr(), std::io::stderr().is_terminal());
    start(vec![log.with_filter(filter(config)).boxed()]);
}

/// Starts logging to `file`, and to standard error as well: warnings and errors, or everything. Exports traces.
pub fn init_to_file(config: &LogConfig, traces: &Traces, file: File, everything: bool) {
    let on_screen = if everything { LevelFilter::TRACE } else { LevelFilter::WARN };
    let screen = layer(config, std::io::stderr(), std::io::stderr().is_terminal());
    let screen = screen.with_filter(filter(config).and(on_screen)).boxed();
    let file = layer(config, file, false).with_filter(filter(config)).boxed();
    start_with(vec![file, screen], traces);
}

fn start_with(mut layers: Vec<BoxedLayer>, traces: &Traces) {
    let mut exporting = traces::layer(traces);
    layers.extend(exporting.as_mut().ok().and_then(Option::take));
    start(layers);
    if let Err(mistakes) = exporting {
        tracing::warn!(mistakes, "traces are not exported");
    }
}

/// Exports the spans and writes the lines that wait, for up to two seconds and one. To be called when the process ends.
pub fn finish() {
    traces::flush();
    flush();
}

/// Registers what is counted of logs and traces.
pub fn register(registry: &mut Metrics) {
    lines::register(registry);
    traces::register(registry);
}

fn filter(config: &LogConfig) -> impl Filter<Registry> + Send + Sync + use<> {
    // Valid: checked when the configuration was read.
    let filter: Targets = config.filter.parse().unwrap_or_else(|_| Targets::new());
    // With the hint, what the other filter leaves out everywhere stays free of cost.
    filter.and(filter_fn(is_without_bodies).with_max_level_hint(LevelFilter::TRACE))
}

fn layer(config: &LogConfig, out: impl Write + Send + 'static, colours: bool) -> BoxedLayer {
    let layer = fmt::layer().with_writer(lines::Lines::to(out));
    match config.format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => layer.compact().with_target(false).with_ansi(colours).boxed(),
    }
}

fn start(layers: Vec<BoxedLayer>) {
    let first = tracing_subscriber::registry().with(layers).try_init().is_ok();
    if first {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    }
}

/// Returns whether events of this kind never show a request's or an answer's body. AWS's library writes both below `info`,
/// and in those to KMS are data keys.
fn is_without_bodies(event: &tracing::Metadata<'_>) -> bool {
    !event.target().starts_with("aws_") || *event.level() <= tracing::Level::INFO
}

/// The gauges of this process's pools.
#[derive(Debug)]
struct PoolGauges(Arc<Pools>);

/// Registers the gauges `database_connections_open` and `…_idle`, read at each scrape.
pub fn register_pools(registry: &mut Metrics, pools: &Arc<Pools>) {
    registry.register_collector(Box::new(PoolGauges(Arc::clone(pools))));
}

impl Collector for PoolGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (open, idle) = self.0.size();
        let [open, idle] = [open, idle].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let gauges = [
            ("database_connections_open", "Connections to PostgreSQL", open),
            ("database_connections_idle", "Connections to PostgreSQL that are not in use", idle),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
