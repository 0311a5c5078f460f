//! A call under an acquired token lease: made in a task that survives the caller's disconnect. A small answer is
//! returned whole and a large one is streamed, both without the secrets that were sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::common::lenient_json;
use crate::common::trace::TraceContext;
use crate::connections;
use crate::connections::ConnectionError;
use crate::connections::token_lease::{CallRequest, Opened, TokenLease};
use crate::providers::{
    AccessToken, Call, CallAnswer, CallLost, Field, Permit, Provider, Said, said,
};
use crate::relay::paths::RelayPath;
use crate::relay::redact::Redactor;
use crate::relay::verdict::VerdictReader;

/// The largest answer that is returned whole, in bytes. A larger one is streamed.
const MAX_WHOLE: usize = 1024 * 1024;
/// The largest answer that is returned at all, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Capacity of the channel between Dapi's answer and the caller, in pieces.
const CHANNEL_PIECES: usize = 4;

/// A call to make: the lease request and what is sent to Dapi.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) call: CallRequest,
    pub(super) path: &'static RelayPath,
    pub(super) fields: Vec<Field>,
    pub(super) trace: TraceContext,
}

/// Dapi's answer, of any status.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// A JSON object.
    Whole(Bytes),
    /// The beginning of a JSON object, and the pieces that follow. An error marks an answer that broke off.
    Streamed(Bytes, mpsc::Receiver<Result<Bytes, std::io::Error>>),
}

/// Why there is no answer to return.
#[derive(Debug)]
pub(super) enum RelayError {
    Timeout,
    /// Dapi could not be reached, or the connection broke.
    Unreachable,
    /// The answer is not one of Dapi's: no JSON object, or a redirect.
    Unusable,
    /// The answer is larger than [`MAX_ANSWER`].
    TooLarge,
    /// The connection has no user secret yet.
    NoUserSecret,
    Failed(ConnectionError),
}

impl RelayError {
    /// Returns the outcome in metrics and in the audit trail.
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
        tracing::warn!(
            what = lost.what,
            sent = lost.sent,
            "a call to the provider went unanswered"
        );
        if lost.timeout { Self::Timeout } else { Self::Unreachable }
    }
}

/// The outcome of a call, for a caller that still waits for it.
pub(super) type Outcome = Result<Answered, RelayError>;

/// A call that is on record as begun.
pub(super) struct Running {
    pub(super) context: connections::Context,
    pub(super) request: Arc<Request>,
    pub(super) lease: TokenLease,
    pub(super) permit: Permit,
    /// Read before the lease was acquired, so that the call's time limit ends before the lease.
    pub(super) started: Instant,
    pub(super) caller: oneshot::Sender<Outcome>,
}

impl Running {
    /// Makes the call. Releases the lease before the outcome is sent, so that the caller's next call finds it free.
    pub(super) async fn run(self) {
        let opened = match self.lease.open(&self.context.vault).await {
            Ok(opened) => opened,
            Err(error) => {
                return self.finish(Err(RelayError::Failed(error.into())), None, None).await;
            }
        };
        let provider = self.request.call.provider;
        if provider.has_user_secret() && opened.user_secret.is_none() {
            return self.finish(Err(RelayError::NoUserSecret), None, None).await;
        }
        let mut answer = match self.send(&opened).await {
            Ok(answer) => answer,
            Err(error) => return self.finish(Err(error), None, None).await,
        };
        let status = answer.status().as_u16();
        let mut redactor = redactor(&opened);
        match gather(&mut answer).await {
            Ok(Gathered::Whole(bytes)) => {
                let whole = whole(provider, status, bytes, &mut redactor);
                let attention = match &whole {
                    Ok(whole) => self.learn_from(status, &whole.said, &opened.access_token).await,
                    Err(_) => None,
                };
                let answered = whole.map(|whole| Answered {
                    status,
                    retry_after: answer.retry_after,
                    body: Body::Whole(whole.body),
                });
                self.finish(answered, Some(status), attention).await;
            }
            Ok(Gathered::More(bytes)) => {
                let token = opened.access_token;
                Box::pin(self.stream(answer, redactor, &bytes, token)).await;
            }
            Err(error) => self.finish(Err(error), Some(status), None).await,
        }
    }

    /// Records what an answer implies about the token and the user secret. Returns the kind of refusal for which the
    /// connection needs attention; it is committed with the release of the lease. Failures to record the rest are only logged: the
    /// next call implies it again.
    async fn learn_from(&self, status: u16, said: &Said, token: &AccessToken) -> Option<String> {
        if said.succeeded {
            let _ = self.lease.prove_user_secret(&self.context).await;
            self.lease.record_success(&self.context, self.request.path.repairs).await;
            if let Err(error) = self.lease.prove_token(&self.context).await {
                tracing::warn!(cause = %error, "a token could not be recorded as proven");
            }
            return None;
        }
        let kind = said.kind.as_ref()?;
        let (provider, providers) = (self.request.call.provider, &self.context.providers);
        if !provider.may_refuse(status) {
            // A server in trouble may say anything: the token stays, and another call will say it again.
        } else if providers.reports_dead_token(provider, kind, token, self.lease.is_proven()) {
            Box::pin(self.record_dead_token(kind)).await;
        } else if providers.doubts_token(provider, kind, self.lease.is_proven()) {
            Box::pin(self.record_doubtful_token(kind)).await;
        }
        // Even if the user secret is not proven: further calls could lock the account.
        let stop = !said.asks && providers.needs_attention(provider, kind);
        stop.then(|| kind.clone())
    }

    async fn record_dead_token(&self, kind: &str) {
        let CallRequest { app, id, provider, .. } = self.request.call;
        let token = Some(self.lease.token());
        match connections::end_dead_token(&self.context, app, id, provider, kind, token).await {
            Ok(true) => tracing::warn!(connection = %id, kind, "the provider reports a dead token"),
            Ok(false) => {}
            Err(error) => tracing::warn!(cause = %error, "a dead token could not be recorded"),
        }
    }

    async fn record_doubtful_token(&self, kind: &str) {
        let CallRequest { app, id, provider, .. } = self.request.call;
        let restored = connections::restore_predecessor(&self.context, app, id, provider, kind);
        if let Err(error) = restored.await {
            tracing::warn!(cause = %error, "a superseded token could not be restored");
        }
    }

    async fn send(&self, opened: &Opened) -> Result<CallAnswer, RelayError> {
        let Request { path, fields, trace, .. } = &*self.request;
        let call = Call {
            app: &opened.credentials,
            path: path.path,
            fields,
            token: Some(&opened.access_token),
            user_secret: opened.user_secret.as_ref(),
            with_app_key: path.with_app_key,
            trace,
            limit: self.left(),
        };
        usable(self.context.providers.call(&self.permit, &call).await?)
    }

    /// Returns the time that is left of the call's limit.
    fn left(&self) -> Duration {
        (self.started + self.request.call.limit).saturating_duration_since(Instant::now())
    }

    async fn finish(self, outcome: Outcome, status: Option<u16>, attention: Option<String>) {
        self.end(label(&outcome), status, attention).await;
        // Fails if the caller has disconnected.
        let _ = self.caller.send(outcome);
    }

    async fn end(&self, label: &'static str, status: Option<u16>, attention: Option<String>) {
        self.context.providers.count_call(
            self.request.call.provider,
            label,
            self.started.elapsed(),
        );
        if let Err(error) = self.lease.end(&self.context, label, status, attention).await {
            tracing::warn!(cause = %error, "the end of a call could not be recorded, the background retries");
        }
    }

    /// Streams a large answer to the caller. The lease ends with the answer or with the call's time limit, so that a
    /// caller that reads slowly cannot hold the token for longer.
    async fn stream(
        mut self,
        mut answer: CallAnswer,
        mut redactor: Redactor,
        first: &[u8],
        token: AccessToken,
    ) {
        let (pieces, rest) = mpsc::channel(CHANNEL_PIECES);
        let status = answer.status().as_u16();
        let body = Body::Streamed(redactor.push(first), rest);
        let head = Answered { status, retry_after: answer.retry_after, body };
        let (closed, _) = oneshot::channel();
        let caller = std::mem::replace(&mut self.caller, closed);
        // Goes on if the caller has disconnected: the answer may still say that the token is dead.
        let _ = caller.send(Ok(head));
        let mut reader = VerdictReader::new(self.request.call.provider, status);
        reader.push(first);
        let pumping = pump(&mut answer, &mut redactor, &mut reader, &pieces, first.len() as u64);
        let pumped = tokio::time::timeout(self.left(), pumping).await;
        let label = match &pumped {
            Ok(Ok(())) => "answered",
            Ok(Err(error)) => error.outcome(),
            Err(_) => "timeout",
        };
        let attention = match reader.verdict() {
            Some(said) => self.learn_from(status, said, &token).await,
            None => None,
        };
        self.end(label, Some(status), attention).await;
        if !matches!(pumped, Ok(Ok(()))) {
            break_off(&pieces, label);
        }
    }
}

/// Sends an error, so that the caller's stream does not end as if it were complete. If the channel is full, the stream
/// ends in the middle of the JSON object instead.
fn break_off(pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>, label: &'static str) {
    let _ = pieces.try_send(Err(std::io::Error::other(label)));
}

/// Returns the outcome in metrics and in the audit trail.
pub(super) fn label(outcome: &Outcome) -> &'static str {
    outcome.as_ref().map_or_else(RelayError::outcome, |_| "answered")
}

/// Reads a small answer whole and redacts these secrets.
pub(super) async fn read_whole(
    provider: Provider,
    answer: CallAnswer,
    secrets: &[&str],
) -> Outcome {
    let mut answer = usable(answer)?;
    let Gathered::Whole(bytes) = gather(&mut answer).await? else {
        return Err(RelayError::TooLarge);
    };
    let status = answer.status().as_u16();
    let Whole { body, .. } = whole(provider, status, bytes, &mut Redactor::new(secrets))?;
    Ok(Answered { status, retry_after: answer.retry_after, body: Body::Whole(body) })
}

/// Checks by status and headers that an answer is one of Dapi's and not too large.
fn usable(answer: CallAnswer) -> Result<CallAnswer, RelayError> {
    let status = answer.status();
    let usable = status.is_success() || status.is_client_error() || status.is_server_error();
    if !usable || answer.is_unreadable() {
        return Err(RelayError::Unusable);
    }
    if answer.length().is_some_and(|length| length > MAX_ANSWER) {
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
    Whole(Bytes),
    /// The first [`MAX_WHOLE`] bytes and a little more; the rest is still to be read.
    More(Bytes),
}

/// Reads an answer to its end, or until it is too large to be returned whole.
async fn gather(answer: &mut CallAnswer) -> Result<Gathered, RelayError> {
    let mut bytes = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => return Ok(Gathered::Whole(bytes.freeze())),
            // Complete, if it broke off behind the closing brace of the object.
            Err(_) if lenient_json::is_object(&bytes) => {
                return Ok(Gathered::Whole(bytes.freeze()));
            }
            Err(lost) => return Err(lost.into()),
        }
        if bytes.len() > MAX_WHOLE {
            let bytes = without_mark(bytes.freeze());
            return if is_utf8_object(&bytes) {
                Ok(Gathered::More(bytes))
            } else {
                Err(RelayError::Unusable)
            };
        }
    }
}

/// Strips a byte order mark, which is no part of JSON (RFC 8259 §8.1).
fn without_mark(bytes: Bytes) -> Bytes {
    if bytes.starts_with(b"\xef\xbb\xbf") { bytes.slice(3..) } else { bytes }
}

/// Returns whether these bytes begin a JSON object in UTF-8; in UTF-16, the second byte is zero.
fn is_utf8_object(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start(), [b'{', second, ..] if *second != 0)
}

/// Returns the bytes in UTF-8, so that the redactor finds secrets in them. Unchanged if they begin like UTF-8, even if
/// they are not valid.
fn in_utf8(bytes: Bytes) -> Bytes {
    let bytes = without_mark(bytes);
    if is_utf8_object(&bytes) {
        return bytes;
    }
    Bytes::copy_from_slice(lenient_json::text(&bytes).as_bytes())
}

/// An answer that was read whole.
struct Whole {
    /// Redacted.
    body: Bytes,
    said: Said,
}

fn whole(
    provider: Provider,
    status: u16,
    bytes: Bytes,
    redactor: &mut Redactor,
) -> Result<Whole, RelayError> {
    let said = said(provider, status, &bytes).ok_or(RelayError::Unusable)?;
    let mut clean = BytesMut::from(redactor.push(&in_utf8(bytes)));
    clean.extend_from_slice(&redactor.finish());
    Ok(Whole { body: clean.freeze(), said })
}

/// Streams an answer, redacted, piece by piece. Reads it to its end even if the caller has disconnected, because the
/// verdict may stand there.
async fn pump(
    answer: &mut CallAnswer,
    redactor: &mut Redactor,
    reader: &mut VerdictReader,
    pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    mut length: u64,
) -> Result<(), RelayError> {
    while let Some(piece) = answer.chunk().await? {
        length += piece.len() as u64;
        if length > MAX_ANSWER {
            return Err(RelayError::TooLarge);
        }
        reader.push(&piece);
        let clean = redactor.push(&piece);
        if !clean.is_empty() {
            let _ = pieces.send(Ok(clean)).await;
        }
    }
    let _ = pieces.send(Ok(redactor.finish())).await;
    Ok(())
}
