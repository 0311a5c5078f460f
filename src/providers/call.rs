//! Calls on a connection's behalf: what they are made of, and the answer as a stream.

use std::io::Read;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use reqwest::header::{CONTENT_ENCODING, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::describe::describe;
use super::{AccessToken, AppCredentials, UserSecret};
use crate::common::coding::{Codings, Unknown};
use crate::common::trace::TraceContext;

/// The largest encoded body that is decoded, in bytes on the wire: it is buffered whole.
const MAX_ENCODED: usize = 8 * 1024 * 1024;
/// The most that is decoded of a body, in bytes: more than any caller forwards.
const MAX_DECODED: u64 = 65 * 1024 * 1024;
/// The largest answer that is read whole, in bytes: a little more than a page of accounts.
const MAX_WHOLE: usize = 1024 * 1024;
/// The portion in which a body is decoded, in bytes.
const PIECE: usize = 16 * 1024;

/// A field of a JSON object: its name, and its value byte for byte.
pub type Field = (String, Box<RawValue>);

/// A call on a connection's behalf, or on the app's own.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The credentials that are put in.
    pub app: &'a AppCredentials,
    /// The provider's path, relative to its base URL, without a leading slash.
    pub path: &'a str,
    /// The caller's fields, without any that are put in.
    pub fields: &'a [Field],
    /// The token, if the call uses one.
    pub token: Option<&'a AccessToken>,
    /// The user's secret, if the call uses a token and the provider has one.
    pub user_secret: Option<&'a UserSecret>,
    /// Whether Dapi's app key is put in as well.
    pub with_app_key: bool,
    /// What the call is a part of.
    pub trace: &'a TraceContext,
    /// The time limit, to the last byte of the answer.
    pub limit: Duration,
}

/// The body of a call: the caller's fields, and what the provider wants beside them. No `Debug`: it holds secrets as text.
pub(super) struct CallBody<'a, const N: usize> {
    pub(super) fields: &'a [Field],
    /// Names and values, among them secrets.
    pub(super) inserted: [Option<(&'static str, &'a str)>; N],
}

impl<const N: usize> Serialize for CallBody<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.fields {
            map.serialize_entry(name, value)?;
        }
        for (name, value) in self.inserted.iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// An answer whose head has arrived.
pub struct CallAnswer {
    response: Response,
    /// `None` if a coding is unknown.
    codings: Option<Codings>,
    /// The decoded body, and why its encoded form is incomplete.
    decoded: Option<(Box<dyn Read + Send>, Option<CallLost>)>,
    /// Dapi's `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Debug for CallAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallAnswer({})", self.response.status())
    }
}

/// The error of a call whose answer did not arrive, or broke off.
#[derive(Debug)]
pub struct CallLost {
    /// What happened, without secrets.
    pub what: String,
    /// Whether the time limit passed.
    pub timeout: bool,
    /// Whether the request may have reached Dapi.
    pub sent: bool,
}

impl CallAnswer {
    pub(super) fn new(response: Response, retry_after: Option<Duration>) -> Self {
        let codings = codings(&response).ok();
        Self { response, codings, decoded: None, retry_after }
    }

    /// Returns the answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns whether the body has an unknown coding, which the request did not accept.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.codings.is_none()
    }

    /// Returns the body's length on the wire, if the head states it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Returns the next decoded portion of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallLost> {
        match &self.codings {
            Some(codings) if codings.is_identity() => {
                self.response.chunk().await.map_err(|error| CallLost::broken(&error))
            }
            Some(codings) => {
                let codings = codings.clone();
                if self.decoded.is_none() {
                    let (encoded, lost) = self.encoded().await?;
                    let reader = Box::new(encoded.reader());
                    self.decoded = Some((codings.reader(reader, MAX_DECODED), lost));
                }
                self.decoded_piece()
            }
            None => Err(CallLost::because("an answer in an unknown encoding")),
        }
    }

    /// Reads the body to its end, up to a bound.
    ///
    /// # Errors
    /// If it breaks off, is too large or cannot be decoded.
    pub async fn read_whole(&mut self) -> Result<Vec<u8>, CallLost> {
        if self.is_unreadable() {
            return Err(CallLost::because("an answer in an unknown encoding"));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.chunk().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_WHOLE {
                return Err(CallLost::because("an answer of excessive size"));
            }
        }
        Ok(bytes)
    }

    /// Reads the encoded body, and why it is incomplete if it is.
    async fn encoded(&mut self) -> Result<(Bytes, Option<CallLost>), CallLost> {
        let mut encoded = BytesMut::new();
        loop {
            match self.response.chunk().await {
                Ok(Some(piece)) if encoded.len() + piece.len() > MAX_ENCODED => {
                    return Err(CallLost::because("an encoded answer of excessive size"));
                }
                Ok(Some(piece)) => encoded.extend_from_slice(&piece),
                Ok(None) => return Ok((encoded.freeze(), None)),
                Err(error) => return Ok((encoded.freeze(), Some(CallLost::broken(&error)))),
            }
        }
    }

    fn decoded_piece(&mut self) -> Result<Option<Bytes>, CallLost> {
        let Some((reader, lost)) = &mut self.decoded else { return Ok(None) };
        let mut piece = vec![0; PIECE];
        match reader.read(&mut piece) {
            Ok(0) => Ok(None),
            Ok(length) => {
                piece.truncate(length);
                Ok(Some(piece.into()))
            }
            Err(_) => {
                let damaged = || CallLost::because("an answer whose encoding is damaged");
                Err(lost.take().unwrap_or_else(damaged))
            }
        }
    }
}

impl CallLost {
    /// Creates the error of an answer that broke off.
    fn broken(error: &reqwest::Error) -> Self {
        Self { what: describe(error), timeout: error.is_timeout(), sent: true }
    }

    /// Creates the error of an answer that cannot be read.
    fn because(what: &str) -> Self {
        Self { what: what.to_owned(), timeout: false, sent: true }
    }
}

/// Reads the codings of an answer's body.
pub(super) fn codings(response: &Response) -> Result<Codings, Unknown> {
    let values = response.headers().get_all(CONTENT_ENCODING).iter();
    Codings::read(values.map(HeaderValue::as_bytes))
}
