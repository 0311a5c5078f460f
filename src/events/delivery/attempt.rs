//! One attempt: the request as Standard Webhooks has it, and what its answer means.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};

use super::ATTEMPT;
use super::store::Claimed;
use crate::common::spans;
use crate::events::endpoints::{SigningKey, signatures};
use crate::outbound::{self, NoAnswer, OutboundUrl, Reach, read_bounded, retry_after};

/// The most of an answer that is read, in bytes. It is not looked at: reading it lets the connection serve again.
const MAX_ANSWER: usize = 16 * 1024;
/// How long the rest of an answer is waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// A request that is ready to be sent.
pub(super) struct Signed {
    url: OutboundUrl,
    id: String,
    timestamp: i64,
    signature: String,
    body: Vec<u8>,
}

impl Signed {
    /// Signs a delivery. Returns `None` if nothing signs it, or its URL is none.
    pub(super) fn new(claimed: &Claimed, keys: &[SigningKey]) -> Option<Self> {
        if keys.is_empty() {
            return None;
        }
        // It was validated when it was written; the client checks the address.
        let url = OutboundUrl::parse(&claimed.url, Reach::Anywhere).ok()?;
        let body = serde_json::to_vec(&claimed.event).ok()?;
        let id = claimed.event.id.to_string();
        let timestamp = claimed.now.unix_timestamp();
        let signature = signatures(keys, &id, timestamp, &body);
        Some(Self { url, id, timestamp, signature, body })
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// Why it failed; `None` for a success. Holds nothing of the answer's body.
    pub error: Option<String>,
    /// How long the answer asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// A failure without an answer.
    pub(super) fn failed(error: &str) -> Self {
        Self { status: None, error: Some(error.to_owned()), retry_after: None }
    }

    /// Whether the event was taken: any 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.error.is_none()
    }

    /// Whether the endpoint wants no more events (Standard Webhooks: 410).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == Some(StatusCode::GONE.as_u16())
    }

    fn of(status: StatusCode, retry_after: Option<Duration>) -> Self {
        // A redirect is not followed: it would take the event where nobody said that it may go.
        let error = (!status.is_success()).then(|| format!("HTTP {}", status.as_u16()));
        Self { status: Some(status.as_u16()), error, retry_after }
    }
}

/// Sends a delivery and waits for the answer.
pub(super) async fn send(client: &outbound::Client, signed: &Signed) -> Outcome {
    // A literal address is not resolved, so the client's guard does not see it.
    if OutboundUrl::parse(signed.url.as_str(), client.reach()).is_err() {
        return Outcome::failed("its address is not a public one");
    }
    let request = client
        .request(Method::POST, &signed.url, ATTEMPT)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header("webhook-id", &signed.id)
        .header("webhook-timestamp", signed.timestamp)
        .header("webhook-signature", &signed.signature)
        .body(signed.body.clone());
    let sent = spans::call("webhook", &Method::POST, signed.url.url(), request.send());
    match sent.await {
        Ok(response) => {
            let outcome = Outcome::of(response.status(), retry_after(response.headers()));
            let _ = tokio::time::timeout(DRAIN, read_bounded(response, MAX_ANSWER)).await;
            outcome
        }
        Err(error) => Outcome::failed(match NoAnswer::from(&error) {
            NoAnswer::NotAllowed => "its address is not a public one",
            NoAnswer::Timeout => "no answer in time",
            NoAnswer::Unreachable(_) => "no connection, or a broken one",
        }),
    }
}
