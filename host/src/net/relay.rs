//! Relays bytes between two connections until both halves have ended.
//!
//! Bytes go through a buffer that all relays of a worker share, so that an idle connection holds none. When a
//! direction carries bulk and both ends are plain sockets, the kernel moves its bytes by itself.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Timer;
use crate::net::skew::SKEW;
use crate::net::splice::{Pipe, Pipes};
use crate::net::stream::Stream;
use crate::net::turn::give_way;

/// The buffer that the relays of a worker share.
#[derive(Debug, Clone)]
pub struct Scratch(Rc<RefCell<Box<[u8]>>>);

/// The size of the shared buffer. A read that fills it is a sign of bulk.
const SCRATCH: usize = 64 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SKEW + SCRATCH].into())))
    }
}

impl Scratch {
    /// Reads once through the shared buffer; no bytes are the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<Bytes>> {
        let mut scratch = self.0.borrow_mut();
        let mut buffer = room(&mut scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }
}

/// Where the shared buffer is read to.
fn room(scratch: &mut [u8]) -> ReadBuf<'_> {
    ReadBuf::new(scratch.get_mut(SKEW..).unwrap_or_default())
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
    /// The worker's pipes.
    pub pipes: &'a Pipes,
    /// Ends the relay when nothing comes for `idle`.
    pub timer: &'a Timer,
    /// How long nothing may come.
    pub idle: Duration,
}

impl Relay<'_> {
    /// Relays until both halves have ended, or one side fails, or nothing comes any more. `relayed` counts
    /// along, so that it is right even when the relay is dropped.
    pub async fn run(self, relayed: &mut Relayed) -> End {
        let Self { downstream, upstream, first, scratch, pipes, timer, idle } = self;
        let means = (scratch, pipes);
        let mut up = Direction::new(first);
        let mut down = Direction::new(Bytes::new());
        timer.set_limit(idle);
        poll_fn(|cx| {
            let before = (relayed.received, relayed.sent, up.waiting(), down.waiting());
            let sent_up = up.poll(cx, downstream, upstream, means, &mut relayed.received);
            down.last = sent_up.is_ready();
            let sent_down = down.poll(cx, upstream, downstream, means, &mut relayed.sent);
            up.last = sent_down.is_ready();
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
            // What is large may be taken bit by bit.
            if before != (relayed.received, relayed.sent, up.waiting(), down.waiting()) {
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
    /// Whether the other direction is over.
    last: bool,
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
        Self { pending, unflushed: false, bulk: None, last: false, state: State::Open }
    }

    /// What was read, and waits to be written.
    fn waiting(&self) -> usize {
        self.pending.len() + self.bulk.as_ref().map_or(0, Pipe::filled)
    }

    /// Moves as much as can be moved now. Ready once the end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        means: Means<'_>,
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
                // To close a socket says the same, and that comes next.
                (State::Ended, _) if self.last && to.as_tcp().is_some() => self.state = State::Done,
                (State::Ended, _) => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Fault::Write)?;
                    self.state = State::Done;
                }
                (State::Open, Some(_)) => return self.poll_splice(cx, from, to, moved),
                (State::Open, None) => match self.poll_copy(cx, from, to, means, moved) {
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
        (scratch, pipes): Means<'_>,
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        let mut scratch = scratch.0.borrow_mut();
        let mut buffer = room(&mut scratch);
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
        if written == SCRATCH && from.as_tcp().is_some() && to.as_tcp().is_some() {
            // Without a pipe copying goes on.
            self.bulk = pipes.open();
        }
        Poll::Ready(Ok(()))
    }

    /// Has the kernel move a piece; others have their turn after each.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        let (Some(pipe), Some(from), Some(to)) = (&mut self.bulk, from.as_tcp(), to.as_tcp()) else {
            self.bulk = None;
            return give_way(cx);
        };
        if pipe.filled() == 0 {
            let read = ready!(pipe.poll_fill(cx, from, u64::MAX)).map_err(Fault::Read)?;
            *moved += read as u64;
            if read == 0 {
                (self.state, self.bulk) = (State::Ended, None);
                return give_way(cx);
            }
        }
        while pipe.filled() > 0 {
            ready!(pipe.poll_drain(cx, to)).map_err(Fault::Write)?;
        }
        if pipe.is_slow() {
            self.bulk = None;
        }
        give_way(cx)
    }
}

/// What relays of a worker share.
type Means<'a> = (&'a Scratch, &'a Pipes);

/// How often a direction may move bytes before the others have their turn.
const ROUNDS: usize = 2;
