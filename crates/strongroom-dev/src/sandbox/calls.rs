//! The journal of calls: what was called, when and with which outcome, so that a test can assert "exactly one
//! exchange". It holds no secret: codes and tokens are identified by their `tokenID`.
//!
//! It keeps the last ten thousand calls, and counters for as many codes as the sandbox remembers.
//!
//! May import: bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Notify;
use uuid::Uuid;

use super::bounded::{Bounded, locked};

/// How many calls are kept.
const MOST_CALLS: usize = 10_000;

/// One call to an API of the sandbox.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// The call's number, counted from 1.
    pub number: u64,
    /// The endpoint in its API's spelling; `(unknown)` if there is none.
    pub path: &'static str,
    /// When the call arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The affected login, if it is known.
    #[serde(rename = "connectionID")]
    pub connection_id: Option<String>,
    /// The id of the code or the token, if it is known.
    #[serde(rename = "tokenID")]
    pub token_id: Option<Uuid>,
    /// The caller's `traceparent` header.
    pub traceparent: Option<String>,
    /// The body of a call to Plaid, secrets excluded; longer ones are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// Whether it was sent to the root path, as SDKs in apps do.
    pub pass_through: bool,
    /// The effect of the fault that was applied.
    pub fault: Option<&'static str>,
    /// The outcome: `done`, `user_input_required` or a refusal's `type`; `null` until the work is done, and for good
    /// if a fault came first.
    pub outcome: Option<Cow<'static, str>>,
    /// Whether the caller was answered, or cut off.
    pub ended: bool,
}

/// How often a code was presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CodeCount {
    /// The number of exchanges requested with this code.
    pub calls: u64,
    /// The number of exchanges that returned a token.
    pub exchanged: u64,
}

/// The journal, as the control API returns it.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// The number of calls since the start or since the journal was cleared.
    pub total: u64,
    /// The number of calls by path.
    pub paths: BTreeMap<&'static str, u64>,
    /// The codes of the calls listed below, by their `tokenID`.
    pub codes: BTreeMap<Uuid, CodeCount>,
    /// The newest calls, newest first.
    pub calls: Vec<CallRecord>,
}

struct Journal {
    calls: VecDeque<CallRecord>,
    last_number: u64,
    total: u64,
    paths: BTreeMap<&'static str, u64>,
    codes: Bounded<Uuid, CodeCount>,
}

pub(super) struct Calls {
    journal: Arc<Mutex<Journal>>,
    arrived: Notify,
}

/// A call in flight. If it is dropped without an outcome, the call was cut off.
pub(super) struct Entry {
    journal: Arc<Mutex<Journal>>,
    number: u64,
}

/// What is known of a call when it arrives.
pub(super) struct Arrival {
    pub(super) path: &'static str,
    pub(super) at: OffsetDateTime,
    pub(super) connection_id: Option<String>,
    pub(super) token_id: Option<Uuid>,
    pub(super) traceparent: Option<String>,
    pub(super) pass_through: bool,
    pub(super) fault: Option<&'static str>,
    /// Whether it is an exchange of a known code.
    pub(super) exchange: bool,
    pub(super) body: Option<serde_json::Value>,
}

impl Calls {
    pub(super) fn new(capacity: usize) -> Self {
        let journal = Journal {
            calls: VecDeque::new(),
            last_number: 0,
            total: 0,
            paths: BTreeMap::new(),
            codes: Bounded::new(capacity),
        };
        Self { journal: Arc::new(Mutex::new(journal)), arrived: Notify::new() }
    }

    /// Records a call that arrived.
    pub(super) fn note(&self, arrival: Arrival) -> Entry {
        let number = locked(&self.journal).note(arrival);
        self.arrived.notify_waiters();
        Entry { journal: Arc::clone(&self.journal), number }
    }

    pub(super) fn count(&self, path: &str) -> u64 {
        locked(&self.journal).paths.get(path).copied().unwrap_or(0)
    }

    pub(super) fn code(&self, token_id: Uuid) -> CodeCount {
        let journal = locked(&self.journal);
        journal.codes.get(&token_id).copied().unwrap_or_default()
    }

    /// Waits until `count` calls were made to `path`.
    pub(super) async fn reached(&self, path: &str, count: u64) {
        loop {
            let arrival = self.arrived.notified();
            if self.count(path) >= count {
                return;
            }
            arrival.await;
        }
    }

    /// Returns the journal with the newest calls that satisfy `fits`.
    pub(super) fn report(&self, limit: usize, fits: impl Fn(&CallRecord) -> bool) -> CallReport {
        let journal = locked(&self.journal);
        let newest = journal.calls.iter().rev().filter(|call| fits(call));
        let calls: Vec<_> = newest.take(limit).cloned().collect();
        let ids = calls.iter().filter_map(|call| call.token_id);
        CallReport {
            total: journal.total,
            paths: journal.paths.clone(),
            codes: ids.filter_map(|id| Some((id, *journal.codes.get(&id)?))).collect(),
            calls,
        }
    }

    pub(super) fn forget(&self) {
        let mut journal = locked(&self.journal);
        journal.calls.clear();
        journal.paths.clear();
        journal.codes.clear();
        journal.total = 0;
    }
}

impl Journal {
    fn note(&mut self, arrival: Arrival) -> u64 {
        self.last_number += 1;
        self.total += 1;
        *self.paths.entry(arrival.path).or_default() += 1;
        if let Some(id) = arrival.token_id.filter(|_| arrival.exchange) {
            self.code(id, |count| count.calls += 1);
        }
        if self.calls.len() >= MOST_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(CallRecord {
            number: self.last_number,
            path: arrival.path,
            at: arrival.at,
            connection_id: arrival.connection_id,
            token_id: arrival.token_id,
            traceparent: arrival.traceparent,
            body: arrival.body,
            pass_through: arrival.pass_through,
            fault: arrival.fault,
            outcome: None,
            ended: false,
        });
        self.last_number
    }

    fn code(&mut self, id: Uuid, change: impl FnOnce(&mut CodeCount)) {
        if let Some(count) = self.codes.get_mut(&id) {
            change(count);
        } else {
            let mut count = CodeCount::default();
            change(&mut count);
            self.codes.insert(id, count);
        }
    }

    /// Returns the call of this number, unless it was evicted.
    fn call(&mut self, number: u64) -> Option<&mut CallRecord> {
        let first = self.calls.front()?.number;
        let place = usize::try_from(number.checked_sub(first)?).ok()?;
        self.calls.get_mut(place)
    }
}

impl Entry {
    pub(super) fn outcome(&self, outcome: Cow<'static, str>) {
        if let Some(call) = locked(&self.journal).call(self.number) {
            call.outcome = Some(outcome);
        }
    }

    pub(super) fn exchanged(&self, token_id: Uuid) {
        locked(&self.journal).code(token_id, |count| count.exchanged += 1);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(call) = locked(&self.journal).call(self.number) {
            call.ended = true;
        }
    }
}
