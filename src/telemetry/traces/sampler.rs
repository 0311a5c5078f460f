//! Which spans are exported: as configured, with two rules for what belongs to no request.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    Sampler as Configured, SamplingDecision, SamplingResult, ShouldSample,
};

use crate::config::TraceSampler;

/// The sampler of all spans.
#[derive(Clone, Debug)]
pub(super) struct Sampler(Configured);

impl Sampler {
    pub(super) fn new(settings: TraceSampler) -> Self {
        let own = if settings.ratio >= 1.0 {
            Configured::AlwaysOn
        } else if settings.ratio <= 0.0 {
            Configured::AlwaysOff
        } else {
            Configured::TraceIdRatioBased(settings.ratio)
        };
        Self(if settings.parent_based { Configured::ParentBased(Box::new(own)) } else { own })
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|cx| cx.span().span_context().is_valid());
        let is_exported = if has_parent {
            None
        } else if !links.is_empty() {
            // What is shared is exported exactly if one of the callers that it is linked with is.
            Some(links.iter().any(|link| link.span_context.is_sampled()))
        } else {
            // A statement of no request and no task, such as the directory's refresh every second, or a key's probe.
            let is_work = |one: &KeyValue| ["db.system.name", "shared"].contains(&one.key.as_str());
            attributes.iter().any(is_work).then_some(false)
        };
        let decision = match is_exported {
            Some(true) => SamplingDecision::RecordAndSample,
            Some(false) => SamplingDecision::Drop,
            None => {
                return self.0.should_sample(parent, trace_id, name, kind, attributes, links);
            }
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: <_>::default() }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn context(flags: TraceFlags) -> SpanContext {
        let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([1; 8]));
        SpanContext::new(trace, span, flags, false, TraceState::NONE)
    }

    fn samples(
        ratio: f64,
        parent: Option<TraceFlags>,
        attributes: &[KeyValue],
        links: &[TraceFlags],
    ) -> bool {
        let sampler = Sampler::new(TraceSampler { ratio, parent_based: true });
        let parent = parent.map(|flags| Context::new().with_remote_span_context(context(flags)));
        let links: Vec<_> = links.iter().map(|flags| Link::with_context(context(*flags))).collect();
        let id = TraceId::from_bytes([7; 16]);
        let result = sampler.should_sample(
            parent.as_ref(),
            id,
            "x",
            &SpanKind::Internal,
            attributes,
            &links,
        );
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn what_is_shared_is_exported_if_one_of_its_callers_is() {
        let (sampled, not) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
        assert!(samples(0.0, None, &[], &[not, sampled]));
        assert!(!samples(1.0, None, &[], &[not]));
        let statement = [KeyValue::new("db.system.name", "postgresql")];
        assert!(samples(0.0, None, &statement, &[sampled]));
    }

    #[test]
    fn shared_work_of_no_caller_is_not_exported() {
        assert!(!samples(1.0, None, &[KeyValue::new("shared", true)], &[]));
    }

    #[test]
    fn a_lone_statement_is_not_exported_and_one_of_a_request_is() {
        let statement = [KeyValue::new("db.system.name", "postgresql")];
        assert!(!samples(1.0, None, &statement, &[]));
        assert!(samples(0.0, Some(TraceFlags::SAMPLED), &statement, &[]));
        assert!(!samples(1.0, Some(TraceFlags::NOT_SAMPLED), &statement, &[]));
        assert!(samples(1.0, None, &[], &[]));
    }
}
