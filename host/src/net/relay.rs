//! Relays bytes between two connections until both halves have ended.
//!
//! Bytes go through a buffer that all relays of a worker share, so that an idle connection holds none. When a
//! direction carries bulk and both ends are plain sockets, it changes over to `splice(2)`: then the bytes never
//! enter the process.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::clock::Timer;
use crate::net::stream::Stream;
use crate::net::turn::give_way;

/// The buffer that the relays of a worker share.
#[derive(Debug, Clone)]
pub struct Scratch(Rc<RefCell<Box<[u8]>>>);

/// The size of the shared buffer. A read that fills it is a sign of bulk.
const SCRATCH: usize = 64 * 1024;

/// Bytes that one call of `splice(2)` may move: what a pipe holds by default.
const SPLICE: usize = 64 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SCRATCH].into())))
    }
}

impl Scratch {
    /// Reads once through the shared buffer; no bytes are the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<Bytes>> {
        let mut scratch = self.0.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }
}

/// What a relay did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Relayed {
    /// Bytes from downstream to upstream.
    pub received: u64,
    /// Bytes from upstream to downstream.
    pub sent: u64,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both halves ended.
    Closed,
    /// Nothing came for too long.
    Idle,
    /// The downstream failed.
    Downstream(io::Error),
    /// The upstream failed.
    Upstream(io::Error),
}

/// A relay that is set up.
#[derive(Debug)]
pub struct Relay<'a> {
    /// The downstream connection.
    pub downstream: &'a mut Stream,
    /// The upstream connection.
    pub upstream: &'a mut Stream,
    /// Bytes that were read from the downstream before, and that go first.
    pub first: Bytes,
    /// The shared buffer.
    pub scratch: &'a Scratch,
    /// Ends the relay when nothing comes for `idle`.
    pub timer: &'a Timer,
    /// How long nothing may come.
    pub idle: Duration,
}

impl Relay<'_> {
    /// Relays until both halves have ended, or one side fails, or nothing comes any more. `relayed` counts
    /// along, so that it is right even when the relay is dropped.
    pub async fn run(self, relayed: &mut Relayed) -> End {
        let Self { downstream, upstream, first, scratch, timer, idle } = self;
        let mut up = Direction::new(first);
        let mut down = Direction::new(Bytes::new());
        timer.set_limit(idle);
        poll_fn(|cx| {
            let before = (relayed.received, relayed.sent);
            let sent_up = up.poll(cx, downstream, upstream, scratch, &mut relayed.received);
            let sent_down = down.poll(cx, upstream, downstream, scratch, &mut relayed.sent);
            match (sent_up, sent_down) {
                (Poll::Ready(Err(Fault::Read(error))), _) | (_, Poll::Ready(Err(Fault::Write(error)))) => {
                    return Poll::Ready(End::Downstream(error));
                }
                (Poll::Ready(Err(Fault::Write(error))), _) | (_, Poll::Ready(Err(Fault::Read(error)))) => {
                    return Poll::Ready(End::Upstream(error));
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
                (Poll::Ready(Ok(())) | Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => {}
            }
            if before != (relayed.received, relayed.sent) {
                timer.set_limit(idle);
            }
            timer.poll_expired(cx).map(|()| End::Idle)
        })
        .await
    }
}

/// One direction of a relay.
struct Direction {
    /// Read, and not yet written.
    pending: Bytes,
    /// Written, and perhaps still in a buffer of TLS.
    unflushed: bool,
    bulk: Option<Pipe>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The end was read; what is left is to be written, then the end passed on.
    Ended,
    Done,
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl Direction {
    fn new(pending: Bytes) -> Self {
        Self { pending, unflushed: false, bulk: None, state: State::Open }
    }

    /// Moves as much as can be moved now. Ready once the end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &Scratch,
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        // A direction that always has more would keep the others waiting.
        for _ in 0..ROUNDS {
            while !self.pending.is_empty() {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.pending)).map_err(Fault::Write)?;
                self.pending.advance(written);
                self.unflushed = true;
            }
            match (self.state, &mut self.bulk) {
                (State::Done, _) => return Poll::Ready(Ok(())),
                (State::Ended, _) => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Fault::Write)?;
                    self.state = State::Done;
                }
                (State::Open, Some(pipe)) => {
                    if ready!(pipe.poll(cx, from, to, moved))? == 0 {
                        self.state = State::Ended
                    }
                }
                (State::Open, None) => match self.poll_copy(cx, from, to, scratch, moved) {
                    Poll::Ready(copied) => copied?,
                    Poll::Pending if self.unflushed => {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Fault::Write)?;
                        self.unflushed = false;
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        give_way(cx)
    }

    /// Reads once into the shared buffer and writes what can be written at once; only the rest is kept.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &Scratch,
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        let mut scratch = scratch.0.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(Fault::Read)?;
        let read = buffer.filled();
        *moved += read.len() as u64;
        if read.is_empty() {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(&mut *to).poll_write(cx, read) {
            Poll::Ready(written) => written.map_err(Fault::Write)?,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.pending = Bytes::copy_from_slice(read.get(written..).unwrap_or(&[]));
        if read.len() == SCRATCH && from.as_tcp().is_some() && to.as_tcp().is_some() {
            // Without a pipe (descriptors may be scarce) copying goes on.
            self.bulk = Pipe::new().ok();
        }
        Poll::Ready(Ok(()))
    }
}

/// How often a direction may move bytes before the others have their turn.
const ROUNDS: usize = 2;

/// A pipe through which the kernel moves bytes from socket to socket.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        Ok(Self { read, write, filled: 0 })
    }

    /// Moves bytes once; the number that was read from the socket or written to the other, 0 at the end.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        moved: &mut u64,
    ) -> Poll<Result<usize, Fault>> {
        let not_tcp = || io::Error::from(io::ErrorKind::Unsupported);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        if self.filled == 0 {
            let socket = from.as_tcp().ok_or_else(|| Fault::Read(not_tcp()))?;
            let read = loop {
                ready!(socket.poll_read_ready(cx)).map_err(Fault::Read)?;
                let fill = || Ok(splice(socket, None, &self.write, None, SPLICE, flags)?);
                match socket.try_io(Interest::READABLE, fill) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => break result.map_err(Fault::Read)?,
                }
            };
            *moved += read as u64;
            self.filled = read;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let socket = to.as_tcp().ok_or_else(|| Fault::Write(not_tcp()))?;
        loop {
            ready!(socket.poll_write_ready(cx)).map_err(Fault::Write)?;
            let empty = || Ok(splice(&self.read, None, socket, None, self.filled, flags)?);
            match socket.try_io(Interest::WRITABLE, empty) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    let written = result.map_err(Fault::Write)?;
                    self.filled -= written.min(self.filled);
                    return Poll::Ready(Ok(written.max(1)));
                }
            }
        }
    }
}
