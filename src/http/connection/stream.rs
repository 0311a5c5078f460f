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

/// An interim response (RFC 9110 §15.2), which every client of HTTP/1.1 has to ignore. 102 is RFC
/// 2518's.
const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// The size of a piece of a body of unknown length, in bytes.
const PIECE: usize = 1024;
/// The size of one read, in bytes.
const READ_SIZE: usize = 4096;

/// The position of the last byte in a line of a head.
#[derive(Clone, Copy, Debug)]
enum Line {
    Within,
    /// At the line's beginning.
    Begun,
    /// Behind a carriage return at the line's beginning.
    Returned,
}

impl Line {
    /// Returns how many of `bytes`, which follow the last ones, belong to the current head, up to its empty line. The
    /// rest waits, so that the server parses one request at a time.
    fn end_of_head(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some((line, after)) =
            memchr::memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end + 1))
        {
            let empty = match self {
                Self::Within => false,
                Self::Begun => matches!(line, b"\n" | b"\r\n"),
                Self::Returned => line == b"\n",
            };
            if empty {
                *self = Self::Within;
                return bytes.len() - after.len();
            }
            (*self, rest) = (Self::Begun, after);
        }
        *self = match (*self, rest) {
            (line, []) => line,
            (Self::Begun, b"\r") => Self::Returned,
            _ => Self::Within,
        };
        bytes.len()
    }
}

/// A caller's connection, watched by the guard.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one connection")]
pub struct Guarded {
    io: TcpStream,
    slot: Arc<Slot>,
    guard: Guard,
    key: u64,
    /// Received bytes that the server has not read.
    ahead: BytesMut,
    line: Line,
    /// The server has read a head or a piece and parses it before the next one.
    handed_over: bool,
    /// The caller has sent their last byte, or has left.
    ended: bool,
    /// The caller has left.
    gone: bool,
    /// The caller was probed.
    probed: bool,
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
            handed_over: false,
            ended: false,
            gone: false,
            probed: false,
        }
    }

    /// The connection's state, for its requests.
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

    /// Probes a caller who has sent their last byte: the fate of something that is sent shows
    /// whether they are still there.
    fn probe(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let gone = || Error::new(ErrorKind::ConnectionReset, "the caller has gone");
        if !self.ended || !self.slot.is_asking() {
            return Ok(());
        }
        if self.gone || self.io.take_error()?.is_some() {
            return Err(gone());
        }
        if !self.probed
            && self.slot.may_probe()
            && let Poll::Ready(written) = Pin::new(&mut self.io).poll_write(cx, PROCESSING)
        {
            // A socket with an empty buffer accepts so little at once.
            self.probed = written? == PROCESSING.len();
            if !self.probed {
                return Err(gone());
            }
        }
        Ok(())
    }
}

/// A caller who has left counts as one who has sent their last byte: a request that arrived
/// completely is carried out.
impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let Some(readable) = this.slot.readable() else { return this.poll_end(cx) };
        let in_pieces = !matches!(readable, Readable::Bytes(_));
        if in_pieces && std::mem::take(&mut this.handed_over) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.ahead.is_empty() && !ready!(this.receive_bytes(cx))? {
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining().min(this.ahead.len());
        let bytes = match readable {
            Readable::Head => this.line.end_of_head(this.ahead.get(..room).unwrap_or_default()),
            Readable::Piece => room.min(PIECE),
            Readable::Bytes(bytes) => usize::try_from(bytes).map_or(room, |bytes| room.min(bytes)),
        };
        buf.put_slice(&this.ahead.split_to(bytes));
        this.slot.has_read(bytes as u64);
        this.handed_over = in_pieces;
        Poll::Ready(Ok(()))
    }
}

impl Guarded {
    /// Receives bytes. Returns whether there were any before the end.
    fn receive_bytes(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let mut bytes = [0; READ_SIZE];
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
}

impl Guarded {
    /// Reads nothing. Detects the end of the connection while a request waits that must not
    /// continue without its caller.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
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
        this.probe(cx)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes are read until the first head is complete, byte by byte.
    fn first_head(bytes: &[u8]) -> usize {
        let ends = |at: &usize| {
            let head = bytes.get(..*at).unwrap();
            // The first line is never the empty one.
            head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n")
        };
        (1..=bytes.len()).find(ends).unwrap_or(bytes.len())
    }

    proptest! {
        #[test]
        fn a_head_ends_behind_its_empty_line_however_its_bytes_arrive(
            pieces in proptest::collection::vec("[a\r\n]{0,6}", 0..12),
        ) {
            let whole = pieces.concat();
            let (mut line, mut read) = (Line::Within, 0);
            for piece in &pieces {
                let bytes = line.end_of_head(piece.as_bytes());
                read += bytes;
                if bytes < piece.len() || first_head(whole.as_bytes()) == read {
                    break;
                }
            }
            prop_assert_eq!(read, first_head(whole.as_bytes()));
        }
    }
}
