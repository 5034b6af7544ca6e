//! Moves a body from one side of an exchange to the other, through the filters, with back-pressure.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use crate::http::body::Frame;
use crate::http::h1::{BodyError, Length};
use crate::http::peer::{Sink, SinkError, Source};
use crate::net::turn::Turn;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Half, Stop};
use crate::proxy::exchange::Exchange;
use crate::proxy::pump::bulk::Spliced;

mod bulk;

/// A piece of so many bytes is a sign of bulk.
const BULK: usize = 16 * 1024;

/// Why a body was not moved to its end.
#[derive(Debug)]
pub enum Broken {
    /// It cannot be read.
    Source(BodyError),
    /// It cannot be sent.
    Sink(SinkError),
    /// A filter ended the exchange.
    Stop(Stop),
}

/// One body on its way.
pub struct Pump<'a, 'e> {
    /// The exchange that it belongs to.
    pub exchange: &'a Exchange<'e>,
    /// Which body.
    pub half: Half,
    /// Where it comes from.
    pub source: Source<'a>,
    /// Where it goes.
    pub sink: Sink<'a>,
    /// How long it is.
    pub length: Length,
}

impl Pump<'_, '_> {
    /// Moves the body. `start` sends the head, with the length that the body will have.
    ///
    /// Where a filter may change the length that the head announces, the head waits for the first piece to pass: a
    /// body that is then complete is announced with its new length, and one that was changed without end in sight
    /// is sent without. Everything else leaves at once.
    pub async fn run(self, start: impl FnOnce(Length)) -> Result<(), Broken> {
        let intake = self.exchange.intake(self.half, self.source);
        let filtered = intake.filtered;
        let waits = filtered && matches!(self.length, Length::Known(_));
        let mut start = Some(start);
        let (mut turn, mut bulk) = (Turn::default(), !filtered);
        if !waits && let Some(start) = start.take() {
            start(self.length);
        }
        loop {
            let started = start.is_none();
            let passed = poll_fn(|cx| self.poll_passed(&intake, started, cx)).await?;
            let (data, end, trailers) = match passed {
                Passed::Held => {
                    turn.moved(0).await;
                    continue;
                }
                Passed::Data(data, end) => (data, end, None),
                Passed::End(data, trailers) => (data, true, Some(trailers)),
            };
            if let Some(start) = start.take() {
                start(self.final_length(&data, end && trailers.is_none()));
            }
            poll_fn(|cx| self.taken(self.sink.poll_ready(cx), cx)).await?;
            let len = data.len();
            self.count(filtered, len);
            self.sink.data(data).map_err(Broken::Sink)?;
            if end {
                return self.end(trailers).await;
            }
            turn.moved(len).await;
            if bulk && len >= BULK && self.has_bulk() {
                // In a box, so that other bodies do not take its memory.
                match Box::pin(self.splice(&intake, &mut turn)).await? {
                    Spliced::All => return self.end(None).await,
                    Spliced::Part => bulk = false,
                    Spliced::Nothing => {}
                }
            }
        }
    }

    /// Ends the body, and waits until it is on its way.
    async fn end(&self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.sink.end(trailers).map_err(Broken::Sink)?;
        // A request is on its way when it is handed over: its deadline begins then, whatever window the endpoint opens.
        let last = |cx: &mut Context<'_>| match self.half {
            Half::Received => self.sink.poll_flush(cx),
            Half::Answered => self.sink.poll_gone(cx),
        };
        poll_fn(|cx| self.taken(last(cx), cx)).await
    }

    /// What came of giving something to the other side, which, when it is the client, is not waited for for ever.
    fn taken<T>(&self, gave: Poll<Result<T, SinkError>>, cx: &Context<'_>) -> Poll<Result<T, Broken>> {
        if self.half == Half::Answered {
            let rate = &self.exchange.download;
            if gave.is_pending() { rate.wait(cx) } else { rate.go_on() }
        }
        gave.map_err(Broken::Sink)
    }

    /// Counts what goes on to the other side.
    fn count(&self, filtered: bool, bytes: usize) {
        if self.half == Half::Answered {
            self.exchange.download.moved(bytes);
        }
        if filtered {
            self.exchange.place.release(bytes);
        }
    }

    /// The length to announce, now that the first piece has passed.
    fn final_length(&self, data: &Bytes, complete: bool) -> Length {
        if complete {
            return if data.is_empty() { Length::None } else { Length::Known(data.len() as u64) };
        }
        if self.exchange.chain.borrow().changed(self.half) { Length::Unknown } else { self.length }
    }

    /// The next piece that has passed all filters.
    fn poll_passed(
        &self,
        intake: &Intake<'_, '_>,
        started: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Passed, Broken>> {
        if let Poll::Ready(passed) = intake.poll(cx) {
            return Poll::Ready(passed);
        }
        // While nothing comes, what is there is sent on its way.
        if started && !intake.ended().get() {
            ready!(self.taken(self.sink.poll_flush(cx), cx))?;
        }
        Poll::Pending
    }
}

/// A body as it comes, and passes the filters.
pub struct Intake<'a, 'e> {
    /// The exchange that it belongs to.
    pub exchange: &'a Exchange<'e>,
    /// Which body.
    pub half: Half,
    /// Where it comes from.
    pub source: Source<'a>,
    /// Whether filters look at it.
    pub filtered: bool,
}

impl Intake<'_, '_> {
    /// Ready with what has passed the filters, or with [`Passed::Held`] when something has come.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Passed, Broken>> {
        if self.filtered {
            let resumed = self.exchange.chain.borrow_mut().poll_resumed(self.half, cx);
            if let Poll::Ready(passed) = resumed {
                return Poll::Ready(passed.map_err(Broken::Stop));
            }
            if self.exchange.chain.borrow().is_full(self.half) {
                return Poll::Pending;
            }
        }
        if self.ended().get() {
            return Poll::Pending;
        }
        let frame = self.source.poll_frame(cx);
        let frame = ready!(self.come(frame, cx));
        match frame.map_err(Broken::Source)? {
            Some(Frame::Data(data)) => {
                self.count(data.len());
                let end = self.source.at_end();
                self.ended().set(end);
                Poll::Ready(self.data(data, end))
            }
            Some(Frame::Trailers(trailers)) => {
                self.ended().set(true);
                if !self.filtered {
                    return Poll::Ready(Ok(Passed::End(Bytes::new(), trailers)));
                }
                let limit = self.exchange.buffer_limit;
                let passed = self.exchange.chain.borrow_mut().on_trailers(self.half, trailers, limit);
                Poll::Ready(passed.map_err(Broken::Stop))
            }
            None => {
                self.ended().set(true);
                Poll::Ready(self.data(Bytes::new(), true))
            }
        }
    }

    /// What has come of reading; a client that it has to come from is not waited for for ever.
    fn come<T>(&self, read: Poll<T>, cx: &Context<'_>) -> Poll<T> {
        if self.half == Half::Received {
            let rate = &self.exchange.upload;
            if read.is_pending() { rate.wait(cx) } else { rate.go_on() }
        }
        if read.is_ready() {
            self.exchange.moved.set(true);
        }
        read
    }

    /// Whether all of it has come.
    fn ended(&self) -> &Cell<bool> {
        match self.half {
            Half::Received => &self.exchange.received,
            Half::Answered => &self.exchange.answer_received,
        }
    }

    fn data(&self, data: Bytes, end: bool) -> Result<Passed, Broken> {
        if !self.filtered {
            return Ok(Passed::Data(data, end));
        }
        let limit = self.exchange.buffer_limit;
        self.exchange.place.hold(data.len());
        self.exchange.chain.borrow_mut().on_data(self.half, data, end, limit).map_err(Broken::Stop)
    }

    fn count(&self, bytes: usize) {
        let info = &mut self.exchange.stream.borrow_mut().info;
        match self.half {
            Half::Received => {
                info.received_bytes += bytes as u64;
                self.exchange.upload.moved(bytes);
            }
            Half::Answered => info.answered_bytes += bytes as u64,
        }
    }
}
