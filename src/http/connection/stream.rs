//! The stream between the server and a caller.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::slot::Readable;
use super::{Guard, Slot};

/// An interim answer (RFC 9110 §15.2), which every client of HTTP/1.1 has to pass over. 102 is RFC 2518's.
const STILL_AT_IT: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// What is read at once of a body that does not say how long it is, in bytes.
const PIECE: usize = 1024;
/// What is taken in at once, in bytes.
const MOST: usize = 4096;

/// Where in a line of a head the last byte was.
#[derive(Clone, Copy, Debug)]
enum Line {
    Within,
    /// Before its first byte.
    Begun,
    /// Behind a carriage return at its beginning.
    Returned,
}

/// A caller's connection under guard.
#[derive(Debug)]
pub struct Guarded {
    io: TcpStream,
    slot: Arc<Slot>,
    guard: Guard,
    key: u64,
    /// What has come and was not read.
    ahead: BytesMut,
    line: Line,
    /// A head or a piece was read, and is looked at before the next one.
    looked_at: bool,
    /// The caller has sent their last byte, or has gone.
    ended: bool,
    /// The caller has gone.
    gone: bool,
    /// The caller was sent something to find that out.
    asked: bool,
}

impl Guarded {
    pub(super) fn new(io: TcpStream, slot: Arc<Slot>, guard: Guard, key: u64) -> Self {
        Self {
            io,
            slot,
            guard,
            key,
            ahead: BytesMut::new(),
            line: Line::Within,
            looked_at: false,
            ended: false,
            gone: false,
            asked: false,
        }
    }

    /// What is known of the connection, for its requests.
    #[must_use]
    pub fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }

    fn check(&self, cx: &Context<'_>) -> Result<(), Error> {
        self.slot.watched_by(cx.waker());
        if self.slot.breaks() {
            return Err(Error::new(ErrorKind::TimedOut, "the caller stood still for too long"));
        }
        Ok(())
    }

    /// Whether a caller who has sent their last byte is still there: told by what becomes of something that
    /// is sent.
    fn ask(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let gone = || Error::new(ErrorKind::ConnectionReset, "the caller has gone");
        if !self.ended || !self.slot.is_asking() {
            return Ok(());
        }
        if self.gone || self.io.take_error()?.is_some() {
            return Err(gone());
        }
        if !self.asked
            && self.slot.may_send()
            && let Poll::Ready(written) = Pin::new(&mut self.io).poll_write(cx, STILL_AT_IT)
        {
            // A socket with nothing else to send takes so little whole.
            self.asked = written? == STILL_AT_IT.len();
            if !self.asked {
                return Err(gone());
            }
        }
        Ok(())
    }
}

/// A caller who has gone counts as one who has sent their last byte: what they asked for whole is done.
impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let Some(readable) = this.slot.readable() else { return this.look_for_the_end(cx) };
        let in_pieces = !matches!(readable, Readable::Bytes(_));
        if in_pieces && std::mem::take(&mut this.looked_at) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.ahead.is_empty() && !ready!(this.take_in(cx))? {
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining().min(this.ahead.len());
        let bytes = match readable {
            Readable::Head => this.end_of_head(room),
            Readable::Piece => room.min(PIECE),
            Readable::Bytes(bytes) => usize::try_from(bytes).map_or(room, |bytes| room.min(bytes)),
        };
        buf.put_slice(&this.ahead.split_to(bytes));
        this.slot.has_read(bytes as u64);
        this.looked_at = in_pieces;
        Poll::Ready(Ok(()))
    }
}

impl Guarded {
    /// Takes in what has come; whether that is anything but the end.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let mut bytes = [0; MOST];
        let mut part = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.io).poll_read(cx, &mut part) {
            Poll::Ready(Ok(())) if !part.filled().is_empty() => {
                self.ahead.extend_from_slice(part.filled());
                return Poll::Ready(Ok(true));
            }
            Poll::Ready(Ok(())) => self.ended = true,
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Err(_)) => (self.ended, self.gone) = (true, true),
            Poll::Pending if self.slot.ends() => self.ended = true,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(false))
    }

    /// How many of the first `room` bytes belong to the head that is being read: up to its empty line. What
    /// comes behind waits, so that the server takes in one request at a time.
    fn end_of_head(&mut self, room: usize) -> usize {
        for (at, byte) in self.ahead.iter().take(room).enumerate() {
            self.line = match (self.line, byte) {
                (Line::Begun | Line::Returned, b'\n') => {
                    self.line = Line::Within;
                    return at + 1;
                }
                (Line::Begun, b'\r') => Line::Returned,
                (_, b'\n') => Line::Begun,
                _ => Line::Within,
            };
        }
        room
    }
}

impl Guarded {
    /// Reads nothing; tells the end where a request waits that wants to know.
    fn look_for_the_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.slot.is_asking() {
            return Poll::Pending;
        }
        match ready!(self.io.poll_peek(cx, &mut ReadBuf::new(&mut [0; 1]))) {
            Ok(0) => self.ended = true,
            Ok(_) => return Poll::Pending,
            Err(_) => (self.ended, self.gone) = (true, true),
        }
        Poll::Ready(Ok(()))
    }
}

impl Guarded {
    fn note(&self, written: &Poll<std::io::Result<usize>>, whole: usize) {
        match written {
            Poll::Ready(Ok(bytes)) => self.slot.has_written(*bytes, *bytes == whole),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.slot.is_stuck(),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note(&written, buf.len());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.ask(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.leave(self.key);
    }
}
