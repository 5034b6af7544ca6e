//! Calls that give way: the chain hands them to the filter's instance, and holds the message, as if the filter held it,
//! until the call has returned. Then it goes on as it does after any other call.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::WasmParams;

use crate::plugin::chain::hold::{End, Held};
use crate::plugin::chain::http::Trailers;
use crate::plugin::chain::pause::{asks_for, take_resumed};
use crate::plugin::chain::{Call, Chain, Half, Outcome, Slot, Stop};
use crate::plugin::filter::{Returned, VmCell, Which};
use crate::plugin::vm::StreamContext;

/// A call that has been handed over.
pub(super) type Pending = oneshot::Receiver<Returned>;

/// A call that is waited for, and what it is about.
#[derive(Debug)]
pub(super) struct Running {
    returned: Pending,
    step: Step,
    /// What the filter held before.
    before: Option<Held>,
}

/// What a filter is being told of.
#[derive(Debug)]
pub(super) enum Step {
    /// A connection that is new.
    Connection,
    /// The headers.
    Headers,
    /// Data, should the stream go on without the filter; and whether it is the last.
    Data(Bytes, bool),
    /// The trailers, with data that goes on before them.
    Trailers(Bytes),
}

impl Slot {
    /// The VM that the stream is in.
    #[inline]
    pub(super) fn vm(&self) -> &VmCell {
        match (&self.own, &self.lane) {
            (None, None) => &self.filter.vm,
            (Some(own), _) => own,
            (None, Some(lane)) => lane,
        }
    }
}

impl Chain {
    /// Whether a filter is being told of something of a half.
    pub(super) fn runs(&self, half: Half, at: usize) -> bool {
        self.slots.get(at).and_then(|slot| slot.holds(half)).is_some_and(|hold| hold.running.is_some())
    }

    /// Whether a filter holds something of a half, apart from what it is being told of.
    pub(super) fn keeps(&self, half: Half, at: usize) -> bool {
        let hold = self.slots.get(at).and_then(|slot| slot.holds(half));
        hold.is_some_and(|hold| hold.running.as_ref().is_none_or(|running| running.before.is_some()))
    }

    /// As [`Chain::call`], where calls give way.
    pub(super) fn call_apart<P>(
        &mut self,
        (at, half): (usize, Half),
        (generation, id): (u64, u32),
        which: Which<P, u32>,
        prepare: impl FnOnce(u32, &mut StreamContext) -> P + 'static,
    ) -> Result<Call, Stop>
    where
        P: WasmParams + Sync + 'static,
    {
        let Some(slot) = self.slots.get(at) else { return Ok(Call::Done(Outcome::Continue)) };
        if !slot.vm().exports(generation, which) {
            let prepared = slot.vm().with_stream(generation, id, |context| drop(prepare(id, context)));
            if prepared.is_err() {
                let holds = self.held(half, at).is_some();
                self.fail(at, half, holds)?;
            }
            return Ok(Call::Done(Outcome::Continue));
        }
        let (buffer, trailers) = (half.buffer(self.http), half.trailers());
        let prepare = move |context: &mut StreamContext| {
            // A message that was not held was not waiting to be resumed.
            take_resumed(&mut context.intents, half);
            prepare(id, context)
        };
        // Before the chain has it back, other calls may come; what is let go is not for them to see.
        let conclude = move |context: &mut StreamContext, action| {
            if action == 0 || asks_for(&context.intents, half) {
                context.access.revoke_buffer(buffer);
                context.access.revoke_map(trailers);
            }
        };
        let limit = slot.filter.spec.cpu;
        Ok(Call::Later(slot.vm().call_about(generation, (id, limit), which, prepare, conclude)))
    }

    /// Waits for a call: until it has returned the filter holds what it is told of.
    pub(super) fn wait_for(&mut self, half: Half, at: usize, returned: Pending, step: Step) {
        let before = self.held(half, at);
        let (usual, end) = match step {
            Step::Connection | Step::Headers => (Held::Start, None),
            Step::Data(_, end) => (Held::Data, end.then_some(End::Data)),
            Step::Trailers(_) => (Held::Trailers, Some(End::Trailers)),
        };
        let what = if before == Some(Held::Headers) { Held::Headers } else { usual };
        if let Some(hold) = self.set_held(half, at, what) {
            hold.end = end.unwrap_or(hold.end);
            hold.pause = None;
            hold.running = Some(Running { returned, step, before });
        }
    }

    /// The data that a filter is being told of has trailers: it is to be told of them next.
    pub(super) fn trailers_follow(&mut self, half: Half, at: usize) {
        if let Some(Some(hold)) = self.hold(half, at) {
            hold.end = End::Trailers;
        }
    }

    /// What goes on though the filter holds the trailers behind it.
    pub(super) fn take_onward(&mut self, half: Half, at: usize) -> Option<Bytes> {
        let hold = self.hold(half, at)?.as_mut()?;
        Some(hold.onward.take()).filter(|data| !data.is_empty())
    }

    /// Ready when no call is waited for any more: true when the filter lets go what it was told of, false when it holds
    /// that.
    pub(super) fn poll_returned(
        &mut self,
        half: Half,
        at: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<bool, Stop>> {
        let mut lets_go = false;
        // Data may have trailers behind it, of which the filter is told next.
        while let Some(Some(hold)) = self.hold(half, at)
            && let Some(running) = &mut hold.running
        {
            let mut cx = Context::from_waker(cx.waker());
            let Poll::Ready(returned) = Pin::new(&mut running.returned).poll(&mut cx) else {
                // To wait for a turn is to be held, and may not take for ever either.
                return self.poll_pause_timeout(half, at, &cx).map(|ended| ended.map(|()| false));
            };
            hold.pause = None;
            let Some(Running { step, before, .. }) = hold.running.take() else { break };
            let outcome = match returned {
                Ok(Returned { action, intents, spent }) => self.take_in(at, half, action, intents, spent),
                Err(_) => self.fail(at, half, before.is_some()).map(|()| Outcome::Continue),
            };
            let carried = outcome.and_then(|outcome| self.carry_on(half, at, step, before, outcome));
            lets_go = match carried {
                Ok(lets_go) => lets_go,
                Err(stop) => return Poll::Ready(Err(stop)),
            };
        }
        Poll::Ready(Ok(lets_go || self.held(half, at) == Some(Held::Nothing)))
    }

    /// Goes on as the steps do after calls that have returned at once.
    fn carry_on(
        &mut self,
        half: Half,
        at: usize,
        step: Step,
        before: Option<Held>,
        outcome: Outcome,
    ) -> Result<bool, Stop> {
        match (step, outcome) {
            (Step::Connection, outcome) => Ok(matches!(outcome, Outcome::Continue)),
            (Step::Headers, outcome) => Ok(self.headers_returned(half, at, outcome)),
            (Step::Data(spare, end), outcome) => self.data_returned(half, at, (spare, end), before, outcome),
            (Step::Trailers(data), Outcome::Continue) => {
                if let Some(Some(hold)) = self.hold(half, at) {
                    hold.aside.push(data);
                }
                Ok(true)
            }
            (Step::Trailers(data), Outcome::Pause(_)) => {
                if let Some(Some(hold)) = self.hold(half, at) {
                    hold.onward.push(data);
                }
                Ok(false)
            }
        }
    }

    fn data_returned(
        &mut self,
        half: Half,
        at: usize,
        (spare, end): (Bytes, bool),
        before: Option<Held>,
        outcome: Outcome,
    ) -> Result<bool, Stop> {
        let gone = self.slots.get(at).is_none_or(|slot| slot.context.is_none());
        let trailers = self.slots.get(at).and_then(|slot| slot.holds(half)).map(|hold| hold.end);
        let trailers = trailers == Some(End::Trailers);
        if end && !self.http && half == Half::Answered {
            self.upstream_closed(at);
        }
        let data = match outcome {
            Outcome::Pause(action) => {
                self.keep(half, at, action, end)?;
                if !trailers {
                    return Ok(false);
                }
                Bytes::new()
            }
            Outcome::Continue => {
                if let Some(Some(hold)) = self.hold(half, at).filter(|_| gone) {
                    hold.aside.push(spare);
                }
                if !trailers && before != Some(Held::Headers) {
                    return Ok(true);
                }
                let data = self.let_go(at, half).unwrap_or_default();
                if before == Some(Held::Headers) {
                    // Those behind it are shown the headers first.
                    self.set_held(half, at, Held::Nothing);
                    self.park(half, Some(at), data, if end { End::Data } else { End::Open });
                    if !trailers {
                        return Ok(true);
                    }
                    Bytes::new()
                } else {
                    data
                }
            }
        };
        match self.trailers_step(half, at, data)? {
            Trailers::On(data) => {
                if let Some(hold) = self.set_held(half, at, Held::Trailers) {
                    hold.aside.push(data);
                    hold.end = End::Trailers;
                }
                Ok(true)
            }
            Trailers::Held => Ok(false),
            Trailers::Without(data) => {
                if let Some(Some(hold)) = self.hold(half, at) {
                    hold.onward.push(data);
                }
                Ok(false)
            }
        }
    }
}
