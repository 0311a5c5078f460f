//! The live part of a page: sent anew when it changes, with a sign of life in between (WHATWG HTML, server-sent events).

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream;
use maud::Markup;
use tokio_util::task::TaskTracker;

/// How often the page is read again.
const EVERY: Duration = Duration::from_secs(2);
/// After how many readings the browser connects anew, through the guard: a session that has ended sees nothing more.
const READINGS: u32 = 30;
const EVENT_STREAM: &str = "text/event-stream";

/// Streams what `read` returns, until the process drains or the browser is to connect anew. A reader that does not ask for a
/// stream of events gets it once.
pub fn stream<F, R>(req: &HttpRequest, tasks: TaskTracker, read: F) -> HttpResponse
where
    F: Fn() -> R + 'static,
    R: Future<Output = Markup> + 'static,
{
    let accept = req.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let follows = accept.is_some_and(|accept| accept.contains(EVENT_STREAM));
    let most = if follows { READINGS } else { 1 };
    let start = (0, 0, EVERY, read);
    let body = stream::unfold(start, move |(readings, last, pause, read)| {
        let draining = tasks.is_closed();
        async move {
            if readings == most || draining {
                return None;
            }
            if readings > 0 {
                tokio::time::sleep(pause).await;
            }
            let begun = Instant::now();
            let page = read().await.into_string();
            // What takes long to count is counted for half of the time at most.
            let pause = EVERY.max(begun.elapsed());
            let now = hash_of(&page);
            let event =
                if now == last { "event: alive\ndata:\n\n".to_owned() } else { event(&page) };
            let next = (readings + 1, now, pause, read);
            Some((Ok::<_, actix_web::Error>(Bytes::from(event)), next))
        }
    });
    HttpResponse::Ok()
        .content_type(EVENT_STREAM)
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(Box::pin(body))
}

/// Returns the event with a page: every line of it is a line of data.
fn event(page: &str) -> String {
    let lines: Vec<_> = page.lines().map(|line| format!("data: {line}\n")).collect();
    format!("event: page\n{}\n", lines.concat())
}

/// Returns a hash of the page without the words of its times, which the browser keeps current by itself.
fn hash_of(page: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in page.split("<time ") {
        let (attributes, rest) = part.split_once("</time>").unwrap_or(("", part));
        attributes.split_once('>').map_or("", |(attributes, _)| attributes).hash(&mut hasher);
        rest.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_whose_times_alone_are_worded_anew_has_not_changed() {
        let page = |words: &str| format!("<p><time datetime=\"a\">{words}</time> x</p>");
        assert_eq!(hash_of(&page("1 s ago")), hash_of(&page("3 s ago")));
        assert_ne!(hash_of(&page("1 s ago")), hash_of(&page("1 s ago").replace('x', "y")));
        assert_ne!(hash_of(&page("1 s ago")), hash_of(&page("1 s ago").replace("\"a\"", "\"b\"")));
    }

    #[test]
    fn every_line_of_a_page_is_a_line_of_data() {
        assert_eq!(event("a\nb"), "event: page\ndata: a\ndata: b\n\n");
    }
}
