//! What the page shows. No I/O.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::audit::Standing;
use crate::common::ids::{BulkRevocationId, ConnectionId, WebhookId};
use crate::console::keys::Due;

/// A connection that is revoked here and whose end the provider has not confirmed.
#[derive(Clone, Debug)]
pub struct Lived {
    pub id: ConnectionId,
    /// When it was revoked.
    pub since: OffsetDateTime,
    /// How many delinkings the provider was sent.
    pub attempts: i32,
    pub last_error: Option<String>,
    /// Whether a call is under way.
    pub under_way: bool,
    /// When the next call is due; `None` if its order holds it.
    pub due_at: Option<OffsetDateTime>,
    pub lacks_user_secret: bool,
    pub order: Option<BulkRevocationId>,
    /// `running`, `paused` or `cancelled`.
    pub order_state: Option<String>,
}

impl Lived {
    /// Says in one sentence why it still lives.
    #[must_use]
    pub fn why(&self) -> String {
        if self.due_at.is_none() {
            return if self.order_state.as_deref() == Some("paused") {
                "Its incident is paused: nothing is sent until it is resumed.".to_owned()
            } else {
                "It waits for its incident's rate.".to_owned()
            };
        }
        if self.lacks_user_secret {
            return "Its user secret has not arrived; the next call of the SDK brings it."
                .to_owned();
        }
        match &self.last_error {
            Some(error) => format!("The bank link did not confirm: {error}"),
            None if self.under_way => "A delinking is under way.".to_owned(),
            None if self.attempts == 0 => "Its first delinking is due.".to_owned(),
            None => "No answer has come yet.".to_owned(),
        }
    }
}

/// A code whose exchange has not ended.
#[derive(Clone, Debug)]
pub struct Code {
    pub id: ConnectionId,
    pub expires_at: OffsetDateTime,
    pub attempts: i32,
    /// Whether an attempt went unanswered, so that the code may be used up.
    pub unanswered: bool,
    pub due_at: Option<OffsetDateTime>,
    pub under_way: bool,
}

/// A bulk revocation that has not ended.
#[derive(Clone, Debug)]
pub struct Orders {
    pub id: BulkRevocationId,
    pub reason: String,
    pub state: String,
    pub created_at: OffsetDateTime,
    pub being_counted: bool,
}

/// An upstream whose last token request failed.
#[derive(Clone, Debug)]
pub struct TroubledUpstream {
    pub name: String,
    pub detail: String,
    pub failures: i32,
    pub retry_at: OffsetDateTime,
    /// Until when the cached token can be used.
    pub token_expires_at: Option<OffsetDateTime>,
}

/// A webhook that fails or was switched off because it did.
#[derive(Clone, Debug)]
pub struct TroubledWebhook {
    pub id: WebhookId,
    pub url: String,
    pub failing_since: Option<OffsetDateTime>,
    pub disabled_reason: Option<String>,
    pub last_error: Option<String>,
}

/// How many connections are in a status, and since when the oldest of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub total: i64,
    pub oldest: Option<OffsetDateTime>,
}

/// What this process alone knows.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Answers of the bank link that are in memory because the database did not take them.
    pub answers_waiting: i64,
    /// Answers that were given up since the start.
    pub answers_lost: u64,
    /// Master keys that cannot be used: name, cause, seconds.
    pub key_outages: Vec<(String, String, u64)>,
}

impl Process {
    /// Whether a restart would lose something.
    #[must_use]
    pub const fn must_not_restart(&self) -> bool {
        self.answers_waiting > 0
    }
}

/// What the database says.
#[derive(Clone, Debug)]
pub struct Database {
    /// When it was read, by the database's clock.
    pub at: OffsetDateTime,
    pub active: Count,
    pub revoking: Count,
    pub pending: Count,
    pub orphaned: Count,
    /// The longest waiting revocations.
    pub unconfirmed: Vec<Lived>,
    pub codes: Vec<Code>,
    /// Up to one more than is counted.
    pub attention: i64,
    /// Requests that wait for a second person, with those of the deployment.
    pub approvals: i64,
    pub orders: Vec<Orders>,
    pub upstreams: Vec<TroubledUpstream>,
    pub webhooks: Vec<TroubledWebhook>,
    pub chain: Standing,
    /// What is to be done about keys.
    pub keys: Due,
}

impl Database {
    /// Counts the reasons of the longest waiting revocations, the most frequent first.
    #[must_use]
    pub fn reasons(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for lived in &self.unconfirmed {
            *counts.entry(lived.why()).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// The whole page. Without the database it still says what this process knows.
#[derive(Clone, Debug)]
pub struct Now {
    pub process: Process,
    pub database: Option<Database>,
}
