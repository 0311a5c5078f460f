//! A call whose turn has come: made in a task that no disconnect ends, its answer handed to the caller
//! whole where it is small, piece by piece where it is large, without the secrets that went with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::base::lenient_json;
use crate::base::trace::TraceContext;
use crate::connections;
use crate::connections::ConnectionError;
use crate::connections::token_lease::{CallRequest, Opened, TokenLease};
use crate::dapi::{CallAnswer, CallBody, CallLost, Field, Permit, said};
use crate::relay::paths::DapiPath;
use crate::relay::redact::Redactor;
use crate::relay::verdict::{Skim, Verdict};

/// The largest answer that is handed over whole, in bytes; a larger one is streamed.
const WHOLE: usize = 1024 * 1024;
/// The largest answer that is passed back, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;
/// Pieces of a streamed answer that wait for the caller.
const PIECES: usize = 4;

/// A call that somebody wants to make.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) request: CallRequest,
    pub(super) path: &'static DapiPath,
    pub(super) fields: Vec<Field>,
    pub(super) trace: TraceContext,
}

/// Dapi's answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Body,
}

/// Its body.
#[derive(Debug)]
pub(super) enum Body {
    /// A JSON object.
    Whole(Bytes),
    /// The beginning of one, and what follows; an error where it broke off.
    Streamed(Bytes, mpsc::Receiver<Result<Bytes, std::io::Error>>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum RelayError {
    /// Not within the time limit.
    Timeout,
    /// No connection, or one that broke.
    Unreachable,
    /// An answer that is not Dapi's: garbage, a redirect.
    Unusable,
    /// More than is passed back.
    TooLarge,
    /// The user secret has not come yet.
    NoUserSecret,
    /// Ours.
    Failed(ConnectionError),
}

impl RelayError {
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Unusable => "unusable",
            Self::TooLarge => "too_large",
            Self::NoUserSecret | Self::Failed(_) => "failed",
        }
    }
}

impl From<CallLost> for RelayError {
    fn from(lost: CallLost) -> Self {
        tracing::warn!(what = lost.what, sent = lost.sent, "a call to Dapi went unanswered");
        if lost.timeout { Self::Timeout } else { Self::Unreachable }
    }
}

/// What becomes of a call, for whoever still waits for it.
pub(super) type Outcome = Result<Answered, RelayError>;

/// A call that has begun.
pub(super) struct Running {
    pub(super) context: connections::Context,
    pub(super) request: Arc<Request>,
    pub(super) turn: TokenLease,
    pub(super) permit: Permit,
    /// Before the turn was taken: the call ends before the turn does.
    pub(super) started: Instant,
    pub(super) caller: oneshot::Sender<Outcome>,
}

impl Running {
    /// Makes the call. Its turn ends before the caller hears of it, so that their next call finds it free.
    pub(super) async fn run(self) {
        let opened = match self.turn.open(&self.context.vault) {
            Ok(opened) => opened,
            Err(error) => {
                return self.conclude(Err(RelayError::Failed(error.into())), None, None).await;
            }
        };
        if opened.user_secret.is_none() {
            return self.conclude(Err(RelayError::NoUserSecret), None, None).await;
        }
        let mut answer = match self.send(&opened).await {
            Ok(answer) => answer,
            Err(trouble) => return self.conclude(Err(trouble), None, None).await,
        };
        let status = answer.status().as_u16();
        let mut redactor = redactor(&opened);
        match gather(&mut answer).await {
            Ok(Gathered::Whole(bytes)) => {
                let whole = whole(bytes, &mut redactor);
                let attention = match &whole {
                    Ok(whole) => self.learn_from(&whole.verdict).await,
                    Err(_) => None,
                };
                let answered = whole.map(|whole| Answered {
                    status,
                    retry_after: answer.retry_after,
                    body: Body::Whole(whole.body),
                });
                self.conclude(answered, Some(status), attention).await;
            }
            Ok(Gathered::More(bytes)) => Box::pin(self.stream(answer, redactor, &bytes)).await,
            Err(trouble) => self.conclude(Err(trouble), Some(status), None).await,
        }
    }

    /// What an answer tells about the token and the login. Returns the `type` by which the connection needs
    /// attention, which is committed with the turn's end. What else could not be kept is told again by the
    /// next call.
    async fn learn_from(&self, verdict: &Verdict) -> Option<String> {
        if verdict.succeeded {
            let _ = self.turn.prove_user_secret(&self.context).await;
            if let Err(error) = self.turn.prove_token(&self.context).await {
                tracing::warn!(cause = %error, "that a token works could not be recorded");
            }
            return None;
        }
        let kind = verdict.kind.as_ref()?;
        if self.turn.has_proven_user_secret() {
            Box::pin(self.learn_of_death(kind)).await;
        }
        // Whatever the user secret is worth: going on could lock the account.
        let stop = !verdict.asks && connections::calls_for_attention(&self.context, kind);
        stop.then(|| kind.clone())
    }

    async fn learn_of_death(&self, kind: &str) {
        let (app, id) = (self.request.request.app, self.request.request.id);
        match connections::dapi_reports_dead_token(&self.context, app, id, kind).await {
            Ok(true) => tracing::warn!(connection = %id, kind, "Dapi says that a token is dead"),
            Ok(false) => {}
            Err(error) => tracing::warn!(cause = %error, "a dead token could not be recorded"),
        }
    }

    async fn send(&self, opened: &Opened) -> Result<CallAnswer, RelayError> {
        let Request { path, fields, trace, .. } = &*self.request;
        let body = CallBody {
            fields,
            app: &opened.credentials,
            user_secret: opened.user_secret.as_ref(),
            with_app_key: path.with_app_key,
        };
        let (dapi, token) = (&self.context.dapi, Some(&opened.access_token));
        let sent = dapi.call(&self.permit, path.path, token, &body, trace, self.left()).await;
        usable(sent?)
    }

    fn left(&self) -> Duration {
        (self.started + self.request.request.limit).saturating_duration_since(Instant::now())
    }

    async fn conclude(self, outcome: Outcome, status: Option<u16>, attention: Option<String>) {
        self.end(word(&outcome), status, attention).await;
        // Whoever has gone meanwhile does not want to know.
        let _ = self.caller.send(outcome);
    }

    async fn end(&self, word: &'static str, status: Option<u16>, attention: Option<String>) {
        self.context.dapi.count_call(word, self.started.elapsed());
        if let Err(error) = self.turn.end(&self.context, word, status, attention).await {
            tracing::warn!(cause = %error, "the end of a call could not be recorded, trying again");
        }
    }

    /// Hands a large answer over as it comes. The turn ends with it, or with the call's time limit: a
    /// caller that reads slowly cannot hold the token for longer.
    async fn stream(mut self, mut answer: CallAnswer, mut redactor: Redactor, first: &[u8]) {
        let (pieces, rest) = mpsc::channel(PIECES);
        let status = answer.status().as_u16();
        let body = Body::Streamed(redactor.push(first), rest);
        let head = Answered { status, retry_after: answer.retry_after, body };
        let (nobody, _) = oneshot::channel();
        let caller = std::mem::replace(&mut self.caller, nobody);
        // A caller that has gone is no reason not to hear what Dapi says.
        let _ = caller.send(Ok(head));
        let mut skim = Skim::default();
        skim.push(first);
        let pumping = pump(&mut answer, &mut redactor, &mut skim, &pieces, first.len() as u64);
        let pumped = tokio::time::timeout(self.left(), pumping).await;
        let word = match &pumped {
            Ok(Ok(())) => "answered",
            Ok(Err(trouble)) => trouble.outcome(),
            Err(_) => "timeout",
        };
        let attention = match skim.verdict() {
            Some(verdict) => self.learn_from(verdict).await,
            None => None,
        };
        self.end(word, Some(status), attention).await;
        if !matches!(pumped, Ok(Ok(()))) {
            break_off(&pieces, word);
        }
    }
}

/// Tells a reader that this was not all. One that has not made room for it sees the end of the stream in
/// the middle of an object.
fn break_off(pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>, word: &'static str) {
    let _ = pieces.try_send(Err(std::io::Error::other(word)));
}

/// How an outcome is called in metrics and in the audit trail.
pub(super) fn word(outcome: &Outcome) -> &'static str {
    outcome.as_ref().map_or_else(RelayError::outcome, |_| "answered")
}

/// An answer that is small, read whole, without these secrets.
pub(super) async fn read_whole(answer: CallAnswer, secrets: &[&str]) -> Outcome {
    let mut answer = usable(answer)?;
    let Gathered::Whole(bytes) = gather(&mut answer).await? else {
        return Err(RelayError::TooLarge);
    };
    let Whole { body, .. } = whole(bytes, &mut Redactor::new(secrets))?;
    let (status, retry_after) = (answer.status().as_u16(), answer.retry_after);
    Ok(Answered { status, retry_after, body: Body::Whole(body) })
}

/// The answer's head tells whether it is one of Dapi's.
fn usable(answer: CallAnswer) -> Result<CallAnswer, RelayError> {
    let status = answer.status();
    let usable = status.is_success() || status.is_client_error() || status.is_server_error();
    if !usable || answer.is_unreadable() {
        return Err(RelayError::Unusable);
    }
    if answer.length().is_some_and(|length| length > LARGEST) {
        return Err(RelayError::TooLarge);
    }
    Ok(answer)
}

fn redactor(opened: &Opened) -> Redactor {
    let user_secret = opened.user_secret.as_ref().map_or("", |secret| secret.expose());
    Redactor::new(&[
        opened.access_token.expose(),
        user_secret,
        opened.credentials.app_secret.expose(),
    ])
}

enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// The beginning.
    More(Bytes),
}

async fn gather(answer: &mut CallAnswer) -> Result<Gathered, RelayError> {
    let mut bytes = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => return Ok(Gathered::Whole(bytes.freeze())),
            // What broke off behind the object's closing brace lacks nothing.
            Err(_) if said(&bytes).is_some() => return Ok(Gathered::Whole(bytes.freeze())),
            Err(lost) => return Err(lost.into()),
        }
        if bytes.len() > WHOLE {
            let bytes = without_mark(bytes.freeze());
            return if is_utf8_object(&bytes) {
                Ok(Gathered::More(bytes))
            } else {
                Err(RelayError::Unusable)
            };
        }
    }
}

/// A byte order mark is no part of JSON (RFC 8259 §8.1).
fn without_mark(bytes: Bytes) -> Bytes {
    if bytes.starts_with(b"\xef\xbb\xbf") { bytes.slice(3..) } else { bytes }
}

/// An object's head; that of UTF-16 holds a zero.
fn is_utf8_object(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start(), [b'{', second, ..] if *second != 0)
}

/// The bytes in UTF-8, in which secrets are looked for; as they came where they are that already, or mean
/// to be.
fn in_utf8(bytes: Bytes) -> Bytes {
    let bytes = without_mark(bytes);
    if is_utf8_object(&bytes) {
        return bytes;
    }
    Bytes::copy_from_slice(lenient_json::text(&bytes).as_bytes())
}

/// An answer that was read whole.
struct Whole {
    /// Without secrets.
    body: Bytes,
    /// What it says.
    verdict: Verdict,
}

fn whole(bytes: Bytes, redactor: &mut Redactor) -> Result<Whole, RelayError> {
    let verdict = said(&bytes).ok_or(RelayError::Unusable)?.into();
    let mut clean = BytesMut::from(redactor.push(&in_utf8(bytes)));
    clean.extend_from_slice(&redactor.finish());
    Ok(Whole { body: clean.freeze(), verdict })
}

/// Passes an answer on, piece by piece. When the caller has gone, it is read to its end all the same: the
/// call runs to its end too.
async fn pump(
    answer: &mut CallAnswer,
    redactor: &mut Redactor,
    skim: &mut Skim,
    pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    mut length: u64,
) -> Result<(), RelayError> {
    while let Some(piece) = answer.chunk().await? {
        length += piece.len() as u64;
        if length > LARGEST {
            return Err(RelayError::TooLarge);
        }
        skim.push(&piece);
        let clean = redactor.push(&piece);
        if !clean.is_empty() {
            let _ = pieces.send(Ok(clean)).await;
        }
    }
    let _ = pieces.send(Ok(redactor.finish())).await;
    Ok(())
}
