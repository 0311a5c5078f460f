//! Faults on demand: what fails, where, how often, and whether Dapi did its work first.
//!
//! The last question matters most. A 502 or a cut connection looks the same to the caller whether the code was
//! consumed or not; here a test decides which it was.
//!
//! May import: bounded, settings.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::bounded::locked;
use super::settings::LONGEST_DELAY;

/// The most faults that can be set at once.
const MOST_FAULTS: usize = 1_000;

/// When a fault is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// Before the work: no code is consumed, no token delinked, no money moved.
    Before,
    /// After the work; its answer is lost or corrupted.
    After,
}

/// The effect of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Only the delay.
    Answer,
    /// The connection closes without a single byte.
    Drop,
    /// The head and half of the body, then the connection closes.
    HalfAnswer,
    /// 200 with a body that is not JSON.
    Garbage,
    /// No answer until the faults are cleared, for ten minutes at most.
    Hang,
    /// The answer after a flood of padding.
    Huge(Huge),
    /// Another HTTP status.
    Status(Status),
    /// A refusal in the form of the API that is called.
    Refuse(Refuse),
}

/// A large body. It is generated while it is sent and never held in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Huge {
    /// The number of bytes of padding.
    pub bytes: u64,
    /// Whether `Content-Length` announces the size; chunked otherwise.
    #[serde(default)]
    pub content_length: bool,
}

/// An answer that Dapi's API did not create: a gateway's, a rate limiter's, a redirect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// The HTTP status, 200 to 599.
    pub code: u16,
    /// Headers such as `Retry-After` or `Location`. `Connection: close` closes the connection; the server sets the
    /// headers that frame the body.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, sent verbatim.
    #[serde(default)]
    pub body: String,
}

/// A refusal on demand: Dapi's `{"success": false, "status": "failed", "type": …, "msg": …}`, or Plaid's
/// `{"error_type": …, "error_code": …, "error_message": …, "display_message": null, "request_id": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refuse {
    /// Dapi's `type`, or Plaid's `error_code`. `ERROR_TYPE/ERROR_CODE` sets Plaid's `error_type` too; without it
    /// the sandbox takes the one that Plaid documents for the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Dapi's `msg` or Plaid's `error_message`.
    #[serde(default)]
    pub msg: String,
    /// The HTTP status.
    #[serde(default = "bad_request")]
    pub status: u16,
}

const fn bad_request() -> u16 {
    400
}

/// A fault to apply to coming calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The endpoint, such as `auth/ExchangeToken` or `plaid/item/remove`; any if absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The affected login, a `connectionID` of Dapi's or an `item_id` of Plaid's; any if absent.
    #[serde(default, rename = "connectionID")]
    pub connection_id: Option<String>,
    /// How many calls it affects; all until it is cleared if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// Before or after the work. If absent, after for effects that corrupt an answer (`halfAnswer`, `garbage`,
    /// `huge`), and before for all others.
    #[serde(default)]
    pub when: Option<When>,
    /// The delay before the effect, in milliseconds; ends early if the faults are cleared.
    #[serde(default)]
    pub delay_millis: u64,
    /// What fails.
    pub effect: Effect,
}

impl Fault {
    /// Creates a fault that affects every call until it is cleared.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self { path: None, connection_id: None, times: None, when: None, delay_millis: 0, effect }
    }

    /// Creates a gateway's answer: a status with a body that is not Dapi's.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::new(Effect::Status(Status {
            code,
            headers: BTreeMap::new(),
            body: format!("sandbox: status {code} on demand\n"),
        }))
    }

    /// Creates a refusal in Plaid's form.
    #[must_use]
    pub fn plaid_error(status: u16, error_type: &str, error_code: &str) -> Self {
        Self::new(Effect::Refuse(Refuse {
            kind: format!("{error_type}/{error_code}"),
            msg: format!("sandbox: {error_code} on demand"),
            status,
        }))
    }

    /// Creates Plaid's rate limit: 429 in Plaid's form, with `Retry-After` in seconds if given.
    #[must_use]
    pub fn plaid_rate_limit(retry_after: Option<u64>) -> Self {
        let kind = ("Content-Type".to_owned(), "application/json".to_owned());
        let after = retry_after.map(|seconds| ("Retry-After".to_owned(), seconds.to_string()));
        let body = serde_json::json!({
            "error_type": "RATE_LIMIT_EXCEEDED",
            "error_code": "RATE_LIMIT",
            "error_message": "sandbox: rate limit on demand",
            "display_message": null,
            "request_id": "sandboxfault000",
        });
        Self::new(Effect::Status(Status {
            code: 429,
            headers: [kind].into_iter().chain(after).collect(),
            body: body.to_string(),
        }))
    }

    /// Limits the fault to one endpoint.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Limits the fault to one login.
    #[must_use]
    pub fn of_connection(mut self, connection_id: &str) -> Self {
        self.connection_id = Some(connection_id.to_owned());
        self
    }

    /// Limits the fault to a number of calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Applies the fault before the work.
    #[must_use]
    pub fn before(mut self) -> Self {
        self.when = Some(When::Before);
        self
    }

    /// Applies the fault after the work.
    #[must_use]
    pub fn after(mut self) -> Self {
        self.when = Some(When::After);
        self
    }

    /// Delays the effect.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Returns when the fault is applied, by its effect unless set.
    pub(super) fn strikes(&self) -> When {
        self.when.unwrap_or(match self.effect {
            Effect::HalfAnswer | Effect::Garbage | Effect::Huge(_) => When::After,
            _ => When::Before,
        })
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_millis).min(LONGEST_DELAY)
    }

    /// Returns the effect's name for the journal.
    pub(super) fn name(&self) -> &'static str {
        match self.effect {
            Effect::Answer => "answer",
            Effect::Drop => "drop",
            Effect::HalfAnswer => "halfAnswer",
            Effect::Garbage => "garbage",
            Effect::Hang => "hang",
            Effect::Huge(_) => "huge",
            Effect::Status(_) => "status",
            Effect::Refuse(_) => "refuse",
        }
    }

    fn strikes_at(&self, path: &str, connection_id: Option<&str>) -> bool {
        let here = self.path.as_deref().is_none_or(|own| own == path);
        let asked = self.connection_id.as_deref();
        here && (asked.is_none() || asked == connection_id)
    }

    /// Refuses what could never apply or never be sent, and normalises the path.
    fn checked(mut self, spelling: Spelling) -> Result<Self, InvalidFault> {
        if let Some(path) = &self.path {
            let known = spelling(path);
            let known = known.ok_or_else(|| InvalidFault::Path(path.clone()))?;
            self.path = Some(known.to_owned());
        }
        let status = match &self.effect {
            Effect::Status(status) => {
                check_headers(&status.headers)?;
                status.code
            }
            Effect::Refuse(refuse) => refuse.status,
            _ => 200,
        };
        if !(200..600).contains(&status) {
            return Err(InvalidFault::Status(status));
        }
        if self.times == Some(0) {
            return Err(InvalidFault::Never);
        }
        Ok(self)
    }
}

/// Refuses headers that HTTP does not allow or that contradict the server's framing.
fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), InvalidFault> {
    let refused = headers.iter().find(|(name, value)| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let sound = !name.is_empty()
            && name.bytes().all(word)
            && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let allowed = match name.to_ascii_lowercase().as_str() {
            "content-length" | "transfer-encoding" => false,
            "connection" => value.eq_ignore_ascii_case("close"),
            _ => true,
        };
        !(sound && allowed)
    });
    refused.map_or(Ok(()), |(name, _)| Err(InvalidFault::Header(name.clone())))
}

/// Why a fault cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFault {
    /// No endpoint has this path.
    #[error("`path`: the sandbox has no endpoint `{0}`; GET /sandbox lists them")]
    Path(String),
    /// The status does not end a request.
    #[error("an HTTP status lies between 200 and 599; {0} does not")]
    Status(u16),
    /// HTTP does not allow the header's name or value.
    #[error("`headers`: `{0}` is not a header that can be sent")]
    Header(String),
    /// The fault would affect no call.
    #[error("`times`: 0 would affect no call; leave it out for \"until cleared\"")]
    Never,
    /// The limit on faults is reached.
    #[error("{MOST_FAULTS} faults are set already; DELETE /sandbox/faults clears them")]
    TooMany,
}

/// A fault that is set.
#[derive(Clone, Debug, Serialize)]
pub struct SetFault {
    /// The fault's id.
    pub id: u64,
    /// How many calls it has affected.
    pub struck: u64,
    /// The fault; its `times` are those that are left.
    #[serde(flatten)]
    pub fault: Fault,
}

#[derive(Default)]
struct List {
    set: Vec<SetFault>,
    last_id: u64,
    /// Cancelled when the faults are cleared, which releases hanging calls.
    release: CancellationToken,
}

/// Returns the spelling of a known endpoint's path.
pub(super) type Spelling = fn(&str) -> Option<&'static str>;

/// The faults that are set; the first that matches a call is applied.
pub(super) struct Faults {
    list: Mutex<List>,
    spelling: Spelling,
    /// The number of faults, so that a call takes no lock when there are none.
    count: AtomicUsize,
}

/// A fault applied to one call.
pub(super) struct Strike {
    pub(super) fault: Fault,
    /// Cancelled when the hanging call shall end.
    pub(super) release: CancellationToken,
}

impl Faults {
    /// Creates a list without faults; `spelling` knows the endpoints that can fail.
    pub(super) fn new(spelling: Spelling) -> Self {
        Self { list: Mutex::default(), spelling, count: AtomicUsize::new(0) }
    }

    /// Adds a fault after those that are set.
    pub(super) fn set(&self, fault: Fault) -> Result<SetFault, InvalidFault> {
        let fault = fault.checked(self.spelling)?;
        let mut list = locked(&self.list);
        if list.set.len() >= MOST_FAULTS {
            return Err(InvalidFault::TooMany);
        }
        list.last_id += 1;
        let set = SetFault { id: list.last_id, struck: 0, fault };
        list.set.push(set.clone());
        self.count.store(list.set.len(), Ordering::Release);
        Ok(set)
    }

    pub(super) fn all(&self) -> Vec<SetFault> {
        locked(&self.list).set.clone()
    }

    /// Clears all faults and releases hanging calls.
    pub(super) fn clear(&self) {
        let mut list = locked(&self.list);
        list.set.clear();
        std::mem::take(&mut list.release).cancel();
        self.count.store(0, Ordering::Release);
    }

    /// Returns the fault for this call, and counts it.
    pub(super) fn take(&self, path: &str, connection_id: Option<&str>) -> Option<Strike> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut list = locked(&self.list);
        let release = list.release.clone();
        let found = |set: &SetFault| set.fault.strikes_at(path, connection_id);
        let place = list.set.iter().position(found)?;
        let set = list.set.get_mut(place)?;
        set.struck += 1;
        let fault = set.fault.clone();
        if let Some(left) = &mut set.fault.times {
            *left -= 1;
            if *left == 0 {
                list.set.remove(place);
                self.count.store(list.set.len(), Ordering::Release);
            }
        }
        Some(Strike { fault, release })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::endpoint::Endpoint;

    fn no_faults() -> Faults {
        Faults::new(|path| Endpoint::at(path).map(|endpoint| endpoint.path))
    }

    fn struck(faults: &Faults, path: &str) -> Option<&'static str> {
        faults.take(path, Some("c1")).map(|strike| strike.fault.name())
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_was_told() {
        let faults = no_faults();
        faults.set(Fault::new(Effect::Drop).times(2)).unwrap();
        let seen = [(); 3].map(|()| struck(&faults, "auth/ExchangeToken"));
        assert_eq!(seen, [Some("drop"), Some("drop"), None]);
    }

    #[test]
    fn the_first_fault_that_fits_strikes() {
        let faults = no_faults();
        faults.set(Fault::new(Effect::Hang).on("data/cards/get")).unwrap();
        faults.set(Fault::new(Effect::Garbage).of_connection("c2")).unwrap();
        faults.set(Fault::new(Effect::Drop)).unwrap();
        assert_eq!(struck(&faults, "auth/ExchangeToken"), Some("drop"));
        assert_eq!(struck(&faults, "data/cards/get"), Some("hang"));
        let other = faults.take("auth/ExchangeToken", Some("c2")).unwrap();
        assert_eq!(other.fault.name(), "garbage");
    }

    #[test]
    fn what_could_never_strike_is_refused() {
        let faults = no_faults();
        let set = |fault: Fault| faults.set(fault).map(|_| ()).unwrap_err();
        assert_eq!(set(Fault::status(503).on("nowhere")), InvalidFault::Path("nowhere".into()));
        assert_eq!(set(Fault::status(99)), InvalidFault::Status(99));
        assert_eq!(set(Fault::status(503).times(0)), InvalidFault::Never);
        for (name, value) in
            [("A B", "x"), ("A", "\n"), ("Content-Length", "1"), ("Connection", "up")]
        {
            let effect = Effect::Status(Status {
                code: 503,
                headers: [(name.to_owned(), value.to_owned())].into(),
                body: String::new(),
            });
            assert_eq!(set(Fault::new(effect)), InvalidFault::Header(name.into()));
        }
        assert!(faults.all().is_empty());
    }

    #[test]
    fn clearing_lets_go_what_hangs() {
        let faults = no_faults();
        faults.set(Fault::new(Effect::Hang).times(1)).unwrap();
        let strike = faults.take("data/cards/get", None).unwrap();
        assert!(!strike.release.is_cancelled());
        faults.clear();
        assert!(strike.release.is_cancelled());
        assert!(faults.take("data/cards/get", None).is_none());
    }
}
