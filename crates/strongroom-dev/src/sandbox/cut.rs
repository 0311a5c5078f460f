//! Bodies that no well-behaved server sends: cut off in the middle or before the first byte, and floods of
//! padding.
//!
//! How a connection is cut: actix-http writes an answer's head into a buffer and polls the body for its first
//! chunk before it flushes. A body that fails at once ends the connection with the buffer unsent, so the caller
//! sees it close without a single byte. A body that yields a chunk and is then pending once has that chunk
//! flushed before it fails. The tests compare this with what a plain socket sees. To actix both are errors, and
//! it logs them.
//!
//! May import: actix.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// A body that yields one chunk, or none, and then closes the connection.
pub(super) struct Cut {
    piece: Option<Bytes>,
    announced: u64,
    flushing: bool,
}

impl Cut {
    /// Closes the connection before anything is sent.
    pub(super) fn at_once() -> Self {
        Self { piece: None, announced: 1, flushing: false }
    }

    /// Announces the whole body and sends half of it.
    pub(super) fn half_of(mut body: Bytes) -> Self {
        let announced = body.len() as u64;
        body.truncate(body.len() / 2);
        Self { piece: Some(body), announced, flushing: true }
    }
}

impl MessageBody for Cut {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.announced)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, io::Error>>> {
        let this = self.get_mut();
        if let Some(piece) = this.piece.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if std::mem::take(&mut this.flushing) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "cut off on demand");
        Poll::Ready(Some(Err(cut)))
    }
}

static PADDING: [u8; 64 * 1024] = [b'A'; 64 * 1024];

/// An answer after a flood: `{"padding":"AAAA…","success":…}`. It is valid JSON, so that a caller without a limit
/// would accept it.
pub(super) struct Flood {
    head: Option<Bytes>,
    padding: u64,
    tail: Option<Bytes>,
    announced: Option<u64>,
}

impl Flood {
    /// Puts `padding` bytes before `answer`, which is a JSON object.
    pub(super) fn before(answer: &[u8], padding: u64, announce: bool) -> Self {
        let head = Bytes::from_static(b"{\"padding\":\"");
        let fields = answer.strip_prefix(b"{").unwrap_or(b"}");
        let tail = Bytes::from([b"\",", fields].concat());
        let length = (head.len() + tail.len()) as u64;
        Self {
            head: Some(head),
            padding,
            tail: Some(tail),
            announced: announce.then(|| length.saturating_add(padding)),
        }
    }

    fn pad(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.padding).unwrap_or(usize::MAX);
        let piece = PADDING.get(..length.min(PADDING.len()))?;
        self.padding -= piece.len() as u64;
        (!piece.is_empty()).then(|| Bytes::from_static(piece))
    }
}

impl MessageBody for Flood {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.announced.map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let head = this.head.take();
        let piece = head.or_else(|| this.pad()).or_else(|| this.tail.take());
        Poll::Ready(piece.map(Ok))
    }
}
