//! `Retry-After` of other services' answers (RFC 9110 §10.2.3).

use std::time::{Duration, SystemTime};

use super::clock::Clock;

/// Returns for how long an answer asks callers to wait, from its headers `Retry-After` and `Date`.
///
/// Seconds count as they are. A date (RFC 9110 §5.6.7, all three forms) is relative to the answer's own
/// `Date`, because clocks of two machines differ, and to this machine's clock if there is none; a past date
/// means zero. Anything else is ignored.
#[must_use]
pub fn read(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    read_at(retry_after, date, Clock::system().now().into())
}

fn read_at(retry_after: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let text = retry_after.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // All digits, so parsing fails only for too large a number.
        return Some(Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let said_at = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    Some(until.duration_since(said_at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(retry_after: &str, date: Option<&str>) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        read_at(retry_after, date, now).map(|pause| pause.as_secs())
    }

    #[test]
    fn seconds_count_as_they_are() {
        assert_eq!(seconds("120", None), Some(120));
        assert_eq!(seconds(" 0 ", None), Some(0));
        assert_eq!(seconds(&"9".repeat(40), None), Some(u32::MAX.into()));
    }

    #[test]
    fn a_date_counts_in_all_three_forms_from_the_answers_own_date() {
        for date in [
            "Sun, 06 Nov 1994 08:49:57 GMT",
            "Sunday, 06-Nov-94 08:49:57 GMT",
            "Sun Nov  6 08:49:57 1994",
        ] {
            assert_eq!(seconds(date, None), Some(20), "{date}");
            assert_eq!(seconds(date, Some("Sun, 06 Nov 1994 08:48:57 GMT")), Some(60), "{date}");
            assert_eq!(seconds(date, Some("yesterday")), Some(20), "{date}");
            assert_eq!(seconds(date, Some("Sun, 06 Nov 1994 09:49:57 GMT")), Some(0), "{date}");
        }
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT", None), Some(0), "it has passed");
    }

    #[test]
    fn anything_else_is_ignored() {
        for text in ["", "-1", "+1", "1.5", "soon", "1 minute", "Sun, 06 Nov 1994", "0x10"] {
            assert_eq!(seconds(text, None), None, "{text}");
        }
    }
}
