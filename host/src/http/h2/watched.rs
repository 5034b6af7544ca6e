//! A connection as hyper is given it: with bytes that were read from it before, and watched frame by frame.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::http::h2::PREFACE;
use crate::http::h2::frames::{Scanner, goaway};
use crate::http::h2::ledger::Ledger;
use crate::net::stream::Stream;

/// A client's connection. Once the client has sent too much of something, reading from it fails.
pub struct Watched {
    first: Bytes,
    stream: Stream,
    ledger: Rc<Ledger>,
    received: Scanner,
    sent: Scanner,
    over: Rc<Cell<bool>>,
}

impl Watched {
    /// Watches a connection. `first`: what was read from it before.
    pub fn new(stream: Stream, first: Bytes, ledger: Rc<Ledger>) -> Self {
        let (received, sent) = (Scanner::behind(PREFACE.len()), Scanner::behind(0));
        Self { first, stream, ledger, received, sent, over: Rc::default() }
    }

    /// Becomes true when nothing more comes, or Weir has closed its side: only then a connection is over.
    pub fn over(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.over)
    }

    /// Tells the client why the connection ends, unless a frame was cut off: what comes behind that is none.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn say_goodbye(&mut self, code: u32, text: &str) -> io::Result<()> {
        if !self.sent.is_within() {
            self.stream.write_all(&goaway(self.ledger.last_stream(), code, text)).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Closes the writing half, then reads and throws away what the client still sends, up to `limit` bytes: closing
    /// at once could reset the connection before the client has read why.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn linger(&mut self, limit: usize) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut thrown = 0;
        let mut piece = [0; 4096];
        while thrown < limit {
            match self.stream.read(&mut piece).await? {
                0 => break,
                read => thrown += read,
            }
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if io.ledger.turn_is_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let known = buf.filled().len();
        if io.first.is_empty() {
            let read = std::task::ready!(Pin::new(&mut io.stream).poll_read(cx, buf));
            read.inspect_err(|_| io.over.set(true))?;
        } else {
            let part = io.first.split_to(io.first.len().min(buf.remaining()));
            buf.put_slice(&part);
        }
        let new = buf.filled().get(known..).unwrap_or_default();
        if new.is_empty() && buf.capacity() > known {
            io.over.set(true);
        }
        if io.ledger.received(&mut io.received, new) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other("too much that gets nothing done")))
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let written = std::task::ready!(Pin::new(&mut io.stream).poll_write_vectored(cx, bufs));
        let written = written.inspect_err(|_| io.over.set(true))?;
        let mut left = written;
        for buf in bufs {
            let sent = buf.get(..buf.len().min(left)).unwrap_or_default();
            io.ledger.sent(&mut io.sent, sent);
            left -= sent.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        io.over.set(true);
        Pin::new(&mut io.stream).poll_shutdown(cx)
    }
}
