//! Bytes that the kernel moves from socket to socket, through a pipe (`splice(2)`): they never enter the process.
//!
//! That pays for bulk, and where much is moved at a time: a copy of 64 KiB after the other takes three times as long. So
//! each piece is twice as large as the one before, up to what fits a turn, when the other side has taken that whole, and
//! half as large when it has not: what waits for a slow side is little.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::clock::coarse_millis;

/// The pipes of a worker: there are not more than [`MOST_PIPES`] at a time.
#[derive(Debug, Clone, Default)]
pub struct Pipes(Rc<Cell<usize>>);

/// With as many full ones, the kernel holds 64 MiB: what it lets a user have in all by default
/// (`/proc/sys/fs/pipe-user-pages-soft`).
const MOST_PIPES: usize = 128;

/// The most bytes of a piece, and what a pipe has room for: some 0.15 ms of work.
const MOST_MOVED: usize = 512 * 1024;

/// The first piece.
const FIRST_MOVED: usize = 128 * 1024;

/// The least.
const LEAST_MOVED: usize = 64 * 1024;

/// Whoever takes longer for a piece, in milliseconds, is slow.
const SLOW: u64 = 1000;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Pipes {
    /// A pipe; `None` when there are enough of them, or descriptors are scarce. Then bytes are copied.
    pub fn open(&self) -> Option<Pipe> {
        if self.0.get() >= MOST_PIPES {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // With less room, less is moved at a time.
        let _ = fcntl_setpipe_size(&read, MOST_MOVED);
        self.0.set(self.0.get() + 1);
        let (filled, piece, since, slow) = (0, FIRST_MOVED, 0, false);
        Some(Pipe { read, write, filled, piece, since, slow, pipes: self.clone() })
    }
}

/// A pipe between two sockets.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
    /// How much is moved next.
    piece: usize,
    /// When it was filled, in coarse milliseconds.
    since: u64,
    slow: bool,
    pipes: Pipes,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.0.set(self.pipes.0.get().saturating_sub(1));
    }
}

impl Pipe {
    /// Bytes that are in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Whether the other side is so slow that the pipe is better given to somebody else.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Takes up to `most` bytes from a socket; how many, 0 at its end. The pipe must be empty.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let piece = usize::try_from(most).map_or(self.piece, |most| most.min(self.piece));
        let fill = || Ok(splice(from, None, &self.write, None, piece, FLAGS)?);
        let read = loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, fill) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        self.filled += read;
        self.since = coarse_millis();
        Poll::Ready(Ok(read))
    }

    /// Gives what is in it to a socket, as much as that takes; how many bytes.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let empty = || Ok(splice(&self.read, None, to, None, self.filled, FLAGS)?);
        let written = loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, empty) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.filled -= written.min(self.filled);
        if self.filled == 0 {
            self.piece = (self.piece * 2).min(MOST_MOVED);
            self.slow = coarse_millis().saturating_sub(self.since) > SLOW;
        } else {
            self.piece = (self.piece / 2).max(LEAST_MOVED);
        }
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("a connection"), other.expect("a connection").0)
    }

    #[tokio::test]
    async fn what_goes_through_a_pipe_comes_out_unchanged_in_pieces_that_grow() {
        let ((mut source, from), (to, mut taker)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        let written = sent.clone();
        tokio::spawn(async move { source.write_all(&written).await.expect("it is read") });
        let taken = tokio::spawn(async move {
            let mut taken = Vec::new();
            taker.read_to_end(&mut taken).await.expect("it ends in order");
            taken
        });
        let mut pipe = Pipes::default().open().expect("a pipe");
        let mut left = sent.len() as u64;
        let mut largest = 0;
        while left > 0 {
            let len = poll_fn(|cx| pipe.poll_fill(cx, &from, left)).await.expect("bytes");
            assert!(len > 0 && len <= MOST_MOVED, "{len}");
            assert_eq!(pipe.filled(), len);
            largest = largest.max(len);
            while pipe.filled() > 0 {
                poll_fn(|cx| pipe.poll_drain(cx, &to)).await.expect("they are taken");
            }
            left -= len as u64;
        }
        drop(to);
        assert!(taken.await.expect("it does not panic") == sent, "the bytes differ");
        assert!(largest > LEAST_MOVED, "{largest}");
        let end = poll_fn(|cx| pipe.poll_fill(cx, &from, 1)).await.expect("its end");
        assert_eq!(end, 0, "the source has ended");
    }

    #[tokio::test]
    async fn who_takes_only_a_part_gets_less_at_a_time() {
        let ((mut source, from), (to, _taker)) = (pair().await, pair().await);
        tokio::spawn(async move { while source.write_all(&[b'x'; 1 << 16]).await.is_ok() {} });
        let mut pipe = Pipes::default().open().expect("a pipe");
        // Nobody takes anything: in the end there is no room.
        loop {
            poll_fn(|cx| pipe.poll_fill(cx, &from, u64::MAX)).await.expect("bytes");
            let before = (pipe.filled(), pipe.piece);
            while pipe.filled() > 0 {
                if poll_fn(|cx| Poll::Ready(pipe.poll_drain(cx, &to))).await.is_pending() {
                    let kept = pipe.filled() == before.0;
                    let less = pipe.piece < before.1 || pipe.piece == LEAST_MOVED;
                    assert!(kept || less, "{before:?} {pipe:?}");
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn there_are_only_so_many_pipes_and_one_that_is_gone_makes_room() {
        let pipes = Pipes::default();
        let mut open: Vec<Pipe> = (0..MOST_PIPES).map(|_| pipes.open().expect("a pipe")).collect();
        assert!(pipes.open().is_none());
        open.pop();
        assert!(pipes.open().is_some());
    }
}
