//! What every page is made of: times, numbers, statuses, links, empty states. Markup alone, no I/O.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

/// Returns a time as it is in UTC. The script rewrites it as the reader's locale has it and keeps UTC as the title.
pub fn moment(at: OffsetDateTime) -> Markup {
    let at = at.to_offset(UtcOffset::UTC);
    let written = utc(at);
    html! { time datetime=(rfc3339(at)) title=(written) { (written) } }
}

/// Returns a time that may be absent.
pub fn moment_or(at: Option<OffsetDateTime>, absent: &str) -> Markup {
    at.map_or_else(|| html! { span.soft { (absent) } }, moment)
}

/// Returns how long ago a time is, in one unit. The script keeps it current.
pub fn ago(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    let at = at.to_offset(UtcOffset::UTC);
    let text = match now - at {
        past if past >= Duration::ZERO => format!("{} ago", span(past)),
        future => format!("in {}", span(-future)),
    };
    html! { time datetime=(rfc3339(at)) title=(utc(at)) data-relative { (text) } }
}

/// Returns a countdown to a time. The script counts it down.
pub fn countdown(to: OffsetDateTime, now: OffsetDateTime) -> Markup {
    let to = to.to_offset(UtcOffset::UTC);
    let left = to - now;
    let text = if left.is_negative() { "over".to_owned() } else { format!("{} left", span(left)) };
    html! { time datetime=(rfc3339(to)) title=(utc(to)) data-countdown { (text) } }
}

/// Returns a length of time in its largest unit.
pub fn span(length: Duration) -> String {
    let seconds = length.whole_seconds();
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

/// Returns how long something took, of which a second is much.
pub fn short_span(length: Duration) -> String {
    match length.whole_milliseconds() {
        millis @ 0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", length.as_seconds_f64()),
        _ => span(length),
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn utc(at: OffsetDateTime) -> String {
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Returns a number with its thousands apart. The script rewrites it as the reader's locale has it.
pub fn number(count: impl Into<i64>) -> Markup {
    let count = count.into();
    html! { data value=(count) { (grouped(count)) } }
}

/// Returns a number that was counted up to `most` only.
pub fn at_most(count: i64, most: i64) -> Markup {
    if count > most {
        html! { "more than " (number(most)) }
    } else {
        number(count)
    }
}

fn grouped(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if count < 0 { format!("-{text}") } else { text }
}

/// Returns a status as a pill: its word is what tells, the colour only helps.
pub fn pill(status: &str) -> Markup {
    html! { span class={ "pill pill-" (status) } { (status) } }
}

/// Returns what stands in place of a table without rows.
pub fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// Returns a notice that is read before everything else.
pub fn notice(kind: Notice, title: &str, body: &Markup) -> Markup {
    html! {
        section class={ "notice notice-" (kind.class()) } aria-label=(title) {
            p.notice-title { (title) }
            (body)
        }
    }
}

/// Says that a form only asks, because of four eyes; `until` is what holds before the approval.
pub fn second_person(until: &str) -> Markup {
    notice(
        Notice::Info,
        "A second person has to approve this",
        &html! {
            p { "Until then " (until) ". Send them the address of the next page; it ends after an hour." }
        },
    )
}

/// How urgent a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something to know.
    Info,
    /// Something to look at today.
    Warning,
    /// Something to act on now.
    Danger,
    /// It is well.
    Good,
}

impl Notice {
    const fn class(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Danger => "danger",
            Self::Good => "good",
        }
    }
}

/// Returns an id in full, in the monospaced face, that breaks where it has to.
pub fn id(text: impl std::fmt::Display) -> Markup {
    html! { code.id { (text) } }
}

/// Returns one row of a list of properties.
pub fn row(name: &str, value: &Markup) -> Markup {
    html! { div.row { dt { (name) } dd { (value) } } }
}

/// Returns the hidden field that ties a form to its reader's session.
pub fn form_token(token: &str) -> Markup {
    html! { input type="hidden" name="token" value=(token); }
}

/// Returns a link to the next page of a list.
pub fn more(url: Option<String>) -> Markup {
    html! { @if let Some(url) = url { p.more { a.button href=(url) { "Older" } } } }
}

/// Returns the address of the sign-in that leads to this page.
pub fn sign_in(page: &str) -> String {
    format!("/sign-in?to={}", encoded(page))
}

/// Encodes a value of a query string (WHATWG URL, application/x-www-form-urlencoded).
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_has_its_machine_form_and_utc_as_its_title() {
        let markup = moment(datetime!(2026-11-27 03:04:05.678 +01:00)).into_string();
        assert_eq!(
            markup,
            r#"<time datetime="2026-11-27T02:04:05Z" title="2026-11-27 02:04:05 UTC">2026-11-27 02:04:05 UTC</time>"#
        );
    }

    #[test]
    fn a_length_of_time_has_one_unit() {
        let spans = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(|s| span(Duration::seconds(s)));
        assert_eq!(spans, ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 days"]);
    }

    #[test]
    fn what_took_less_than_a_minute_has_its_fractions() {
        let spans = [7, 999, 1000, 59_940, 60_000].map(|ms| short_span(Duration::milliseconds(ms)));
        assert_eq!(spans, ["7 ms", "999 ms", "1.0 s", "59.9 s", "1 min"]);
    }

    #[test]
    fn thousands_stand_apart() {
        let texts = [0, 999, 1000, 1_234_567, -4321].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "-4,321"]);
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        assert_eq!(
            empty("<script>alert(1)</script>").into_string(),
            r#"<p class="empty">&lt;script&gt;alert(1)&lt;/script&gt;</p>"#
        );
    }

    #[test]
    fn a_query_value_is_encoded_byte_by_byte() {
        assert_eq!(encoded("a b&c=ü/"), "a%20b%26c%3D%C3%BC%2F");
    }
}
