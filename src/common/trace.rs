//! W3C Trace Context (Level 1, §3): accepted from callers, passed on to the providers and upstreams.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The largest `tracestate` that is passed on, in bytes (§3.3.1.5 requires at least 512).
const MAX_STATE: usize = 512;

/// A position in a distributed trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<String>,
    /// The caller's position, of which this one is a child.
    parent: Option<[u8; 8]>,
}

impl TraceContext {
    /// Starts a new trace.
    #[must_use]
    pub fn fresh() -> Self {
        Self { trace_id: random(), span_id: random(), flags: 0, state: None, parent: None }
    }

    /// Continues the caller's trace, or starts a new one if the caller's headers are missing or invalid (§2.3: an
    /// unreadable `traceparent` is ignored).
    #[must_use]
    pub fn continued_from(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some((trace_id, parent, flags)) = traceparent.and_then(parse_parent) else {
            return Self::fresh();
        };
        let sound = |state: &&str| {
            state.len() <= MAX_STATE
                && state.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
        };
        let state = tracestate.filter(sound).map(str::to_owned);
        Self { trace_id, span_id: random(), flags, state, parent: Some(parent) }
    }

    /// Makes `span` the position in the trace, below the caller's, if spans are exported: its ids are those of the result.
    #[must_use]
    pub fn held_by(self, span: &Span) -> Self {
        if let Some(parent) = self.parent {
            let (trace_id, parent) =
                (TraceId::from_bytes(self.trace_id), SpanId::from_bytes(parent));
            // Without the caller's `tracestate`, which is free text.
            let caller = SpanContext::new(
                trace_id,
                parent,
                TraceFlags::new(self.flags),
                true,
                TraceState::NONE,
            );
            // Refused if spans are not exported.
            let _ = span.set_parent(Context::new().with_remote_span_context(caller));
        }
        let context = span.context();
        let position = context.span().span_context().clone();
        if !position.is_valid() {
            return self;
        }
        Self {
            trace_id: position.trace_id().to_bytes(),
            span_id: position.span_id().to_bytes(),
            flags: position.trace_flags().to_u8() & 1,
            ..self
        }
    }

    /// Returns the trace id as 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace_id)
    }

    /// Returns the `traceparent` for a call that is part of this trace.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            hex::encode(self.trace_id),
            hex::encode(self.span_id),
            self.flags
        )
    }

    /// Returns the `tracestate` for such a call.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness the trace is less useful; nothing else depends on it.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes.fill(1);
    }
    bytes
}

/// Parses a header by §3.2.2: four fields of lower-case hex; a higher version may append more, `ff` is invalid.
fn parse_parent(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let mut fields = text.split('-');
    let [version] = unhex::<1>(fields.next()?)?;
    let trace_id = unhex::<16>(fields.next()?)?;
    let span_id = unhex::<8>(fields.next()?)?;
    let [flags] = unhex::<1>(fields.next()?)?;
    let complete = version != 0 || fields.next().is_none();
    let sound = version != 0xff && trace_id != [0; 16] && span_id != [0; 8] && complete;
    sound.then_some((trace_id, span_id, flags & 1))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    // The crate takes upper case as well.
    (!text.bytes().any(|byte| byte.is_ascii_uppercase())).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_trace_goes_on_under_a_new_position() {
        let context = TraceContext::continued_from(Some(PARENT), Some("vendor=1"));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.traceparent().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(context.traceparent().ends_with("-01"));
        assert!(!context.traceparent().contains("00f067aa0ba902b7"));
        assert_eq!(context.tracestate(), Some("vendor=1"));
    }

    #[test]
    fn headers_that_are_not_sound_begin_a_new_trace() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for parent in [
            "",
            "x",
            zero,
            zero_span,
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &format!("{PARENT}-1"),
        ] {
            let context = TraceContext::continued_from(Some(parent), Some("vendor=1"));
            assert_ne!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{parent}");
            assert_eq!(context.tracestate(), None);
        }
    }

    #[test]
    fn a_later_version_may_bring_more_fields() {
        let later = format!("{}-more", PARENT.replacen("00", "01", 1));
        let context = TraceContext::continued_from(Some(&later), None);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_state_with_line_breaks_or_of_excessive_length_is_left_behind() {
        for state in ["a=1\r\nx: y", &"a".repeat(513)] {
            assert_eq!(TraceContext::continued_from(Some(PARENT), Some(state)).tracestate(), None);
        }
    }
}
