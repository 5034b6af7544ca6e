//! Bulk: the rest of a long body, which the kernel moves by itself.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use crate::http::h1;
use crate::http::peer::{Sink, SinkError, Source};
use crate::net::splice::Pipe;
use crate::net::turn::Turn;
use crate::proxy::pump::{Broken, Intake, Pump};

/// With less to come, a pipe does not pay.
const LEAST: u64 = 128 * 1024;

/// What the kernel has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spliced {
    /// It cannot move this body, or not now.
    Nothing,
    /// A part: whoever takes it has become slow.
    Part,
    /// All the rest.
    All,
}

impl Pump<'_, '_> {
    /// Whether so much is to come that a pipe pays.
    pub(super) fn has_bulk(&self) -> bool {
        matches!((self.source, self.sink), (Source::H1(source), Sink::H1(_)) if source.bulk_left() >= LEAST)
    }

    /// Has the kernel move the rest of a body that no filter looks at, where its length is known and both sides are plain
    /// HTTP/1 connections.
    pub(super) async fn splice(&self, intake: &Intake<'_, '_>, turn: &mut Turn) -> Result<Spliced, Broken> {
        let (Source::H1(source), Sink::H1(sink)) = (self.source, self.sink) else {
            return Ok(Spliced::Nothing);
        };
        poll_fn(|cx| self.taken(self.sink.poll_flush(cx), cx)).await?;
        if !sink.takes_bulk() {
            return Ok(Spliced::Nothing);
        }
        let Some(mut pipe) = self.exchange.worker.pipes.open() else { return Ok(Spliced::Nothing) };
        while !pipe.is_slow() {
            let len = poll_fn(|cx| intake.poll_fill(source, &mut pipe, cx)).await?;
            sink.send_bulk(len).map_err(|wrong| Broken::Sink(wrong.into()))?;
            while pipe.filled() > 0 {
                let drained =
                    poll_fn(|cx| self.taken(sink.poll_drain(cx, &mut pipe).map_err(SinkError::Io), cx));
                self.count(false, drained.await?);
                // A piece is large: while it is taken, the exchange is not idle.
                self.exchange.moved.set(true);
            }
            if intake.ended().get() {
                return Ok(Spliced::All);
            }
            turn.moved(len).await;
        }
        Ok(Spliced::Part)
    }
}

impl Intake<'_, '_> {
    /// Ready when a piece is in the pipe; how many bytes.
    fn poll_fill(
        &self,
        source: &h1::Connection,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        let filled = source.poll_fill(cx, pipe);
        let len = ready!(self.come(filled, cx)).map_err(Broken::Source)?;
        self.count(len);
        self.ended().set(source.at_end());
        Poll::Ready(Ok(len))
    }
}
