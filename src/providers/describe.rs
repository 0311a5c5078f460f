//! What went wrong between here and a provider, described without a URL.

/// The beginning of the message about a time limit.
pub(super) const TIME_RAN_OUT: &str = "time ran out";

/// Returns reqwest's error and its causes, without the URL.
pub(super) fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        let phase = if error.is_connect() { "connecting" } else { "waiting for the answer" };
        return format!("{TIME_RAN_OUT} while {phase}");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    crate::common::text::tame(&cause.to_string(), 200)
}
