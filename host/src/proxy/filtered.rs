//! A relay whose bytes pass network filters.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::clock::Timer;
use crate::net::relay::{End, Relayed, Scratch};
use crate::net::stream::Stream;
use crate::net::turn::Turn;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Chain, Half, Stop};

/// What filters may hold of a connection's data.
const MAX_HELD: usize = 1 << 20;

/// A relay whose bytes pass the filters: what its two directions share.
pub struct Filtered<'a> {
    /// The filters.
    pub chain: RefCell<&'a mut Chain>,
    /// Towards the client.
    pub downstream: RefCell<&'a mut Stream>,
    /// Towards the service.
    pub upstream: RefCell<&'a mut Stream>,
    /// What was moved.
    pub relayed: RefCell<&'a mut Relayed>,
    /// The worker's buffer for reading.
    pub scratch: &'a Scratch,
    /// Tells when nothing has come for too long.
    pub timer: &'a Timer,
    /// How long that is.
    pub idle: Duration,
    /// Whether everything is over once the upstream has ended.
    pub one_way: bool,
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
    Stop(Stop),
}

impl Broken {
    fn end(self, half: Half) -> Result<End, Stop> {
        match (self, half) {
            (Self::Stop(stop), _) => Err(stop),
            (Self::Read(error), Half::Received) | (Self::Write(error), Half::Answered) => {
                Ok(End::Downstream(error))
            }
            (Self::Write(error), Half::Received) | (Self::Read(error), Half::Answered) => {
                Ok(End::Upstream(error))
            }
        }
    }
}

impl Filtered<'_> {
    /// Relays until both directions have ended.
    ///
    /// # Errors
    /// How a filter ends the connection.
    pub async fn run(&self, first: Bytes) -> Result<End, Stop> {
        self.timer.set_limit(self.idle);
        let mut up = pin!(self.pump(Half::Received, first));
        let mut down = pin!(self.pump(Half::Answered, Bytes::new()));
        let (mut up_done, mut down_done) = (false, false);
        poll_fn(|cx| {
            if let Poll::Ready(stop) = self.chain.borrow_mut().poll_interrupt(cx) {
                return Poll::Ready(Err(stop));
            }
            if !up_done {
                match up.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => up_done = true,
                    Poll::Ready(Err(broken)) => return Poll::Ready(broken.end(Half::Received)),
                    Poll::Pending => {}
                }
            }
            if !down_done {
                match down.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => down_done = true,
                    Poll::Ready(Err(broken)) => return Poll::Ready(broken.end(Half::Answered)),
                    Poll::Pending => {}
                }
            }
            if down_done && (up_done || self.one_way) {
                return Poll::Ready(Ok(End::Closed));
            }
            self.timer.poll_expired(cx).map(|()| Ok(End::Idle))
        })
        .await
    }

    /// Moves one direction through the filters until its end has been passed on.
    async fn pump(&self, half: Half, first: Bytes) -> Result<(), Broken> {
        let (mut ended, mut turn) = (false, Turn::default());
        if !first.is_empty() {
            let passed =
                self.chain.borrow_mut().on_data(half, first, false, MAX_HELD).map_err(Broken::Stop)?;
            self.write(half, passed).await?;
        }
        loop {
            let passed = poll_fn(|cx| {
                if let Poll::Ready(resumed) = self.chain.borrow_mut().poll_resumed(half, cx) {
                    return Poll::Ready(resumed.map_err(Broken::Stop));
                }
                if ended || self.chain.borrow().is_full(half) {
                    return Poll::Pending;
                }
                let Poll::Ready(data) = self.poll_read(half, cx) else { return Poll::Pending };
                let data = data.map_err(Broken::Read)?;
                ended = data.is_empty();
                Poll::Ready(
                    self.chain.borrow_mut().on_data(half, data, ended, MAX_HELD).map_err(Broken::Stop),
                )
            })
            .await?;
            let len = match &passed {
                Passed::Held => 0,
                Passed::Data(data, _) | Passed::End(data, _) => data.len(),
            };
            if self.write(half, passed).await? {
                return Ok(());
            }
            turn.moved(len).await;
        }
    }

    fn poll_read(&self, half: Half, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut stream = match half {
            Half::Received => self.downstream.borrow_mut(),
            Half::Answered => self.upstream.borrow_mut(),
        };
        let bytes = ready!(self.scratch.poll_read(cx, &mut stream))?;
        self.timer.set_limit(self.idle);
        let mut relayed = self.relayed.borrow_mut();
        match half {
            Half::Received => relayed.received += bytes.len() as u64,
            Half::Answered => relayed.sent += bytes.len() as u64,
        }
        Poll::Ready(Ok(bytes))
    }

    /// Writes what has passed the filters; true when it was the end.
    async fn write(&self, half: Half, passed: Passed) -> Result<bool, Broken> {
        let (mut data, end) = match passed {
            Passed::Held => return Ok(false),
            Passed::Data(data, end) => (data, end),
            Passed::End(data, _) => (data, true),
        };
        let stream = match half {
            Half::Received => &self.upstream,
            Half::Answered => &self.downstream,
        };
        poll_fn(|cx| {
            let mut stream = stream.borrow_mut();
            while !data.is_empty() {
                match Pin::new(&mut **stream).poll_write(cx, &data) {
                    Poll::Ready(Ok(written)) => data.advance(written),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if end {
                Pin::new(&mut **stream).poll_shutdown(cx)
            } else {
                Pin::new(&mut **stream).poll_flush(cx)
            }
        })
        .await
        .map_err(Broken::Write)?;
        Ok(end)
    }
}
