//! The stream between the server and a caller.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Guard, Slot};

/// An interim answer (RFC 9110 §15.2), which every client of HTTP/1.1 has to pass over. 102 is RFC 2518's.
const STILL_AT_IT: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A caller's connection under guard.
#[derive(Debug)]
pub struct Guarded {
    io: TcpStream,
    slot: Arc<Slot>,
    guard: Guard,
    key: u64,
    /// The caller has sent their last byte, or has gone.
    ended: bool,
    /// The caller has gone.
    gone: bool,
    /// The caller was sent something to find that out.
    asked: bool,
}

impl Guarded {
    pub(super) fn new(io: TcpStream, slot: Arc<Slot>, guard: Guard, key: u64) -> Self {
        Self { io, slot, guard, key, ended: false, gone: false, asked: false }
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
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => this.slot.has_read(),
            Poll::Ready(Ok(())) => this.ended = true,
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Err(_)) => (this.ended, this.gone) = (true, true),
            Poll::Pending if this.slot.ends() => this.ended = true,
            Poll::Pending => return Poll::Pending,
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
