//! Waiting: a message that a filter holds goes on, runs out of time, or its stream is ended out of turn.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;

use crate::plugin::chain::{Chain, Half, Slot, Stop};
use crate::plugin::filter::Unavailable;
use crate::plugin::stream::LocalReply;
use crate::plugin::vm::Intents;

impl Chain {
    /// Ready when a filter that holds something of a half lets it go, or when its time is up.
    pub(super) fn poll_release(&mut self, half: Half, at: usize, cx: &Context<'_>) -> Poll<Result<(), Stop>> {
        if self.runs(half, at) && ready!(self.poll_returned(half, at, cx))? {
            return Poll::Ready(Ok(()));
        }
        let Some(slot) = self.slots.get(at) else { return Poll::Ready(Ok(())) };
        if slot.context.is_none() {
            return Poll::Ready(self.fail(at, half, true));
        }
        let asked = slot.look(cx, |intents| (take_resumed(intents, half), take_stop(intents)));
        match asked {
            Err(Unavailable) | Ok(None) => Poll::Ready(self.fail(at, half, true)),
            Ok(Some((asked, stop))) => match self.obey(at, stop) {
                Err(stop) => Poll::Ready(Err(stop)),
                Ok(()) if asked => Poll::Ready(Ok(())),
                Ok(()) => self.poll_pause_timeout(half, at, cx),
            },
        }
    }

    pub(super) fn poll_pause_timeout(
        &mut self,
        half: Half,
        at: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        let Self { slots, timers, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return Poll::Pending };
        let hold = match half {
            Half::Received => &mut slot.received,
            Half::Answered => &mut slot.answered,
        };
        let Some(hold) = hold else { return Poll::Pending };
        let timer = hold.pause.get_or_insert_with(|| {
            let timer = timers.timer();
            timer.set(slot.filter.spec.pause_timeout);
            timer
        });
        if timer.poll_expired(cx).is_pending() {
            return Poll::Pending;
        }
        let details: Arc<str> = "pause_timeout".into();
        let mut stream = self.stream.borrow_mut();
        stream.info.details = Some(Arc::clone(&details));
        stream.info.decided_by = Some(Arc::clone(&slot.filter.spec.name));
        Poll::Ready(Err(Stop::Reply(LocalReply {
            status: StatusCode::GATEWAY_TIMEOUT,
            headers: Vec::new(),
            body: Bytes::new(),
            grpc_status: None,
            details,
        })))
    }

    /// Ready when a filter ends the stream out of turn: from a timer, a call's answer, or by failing while it
    /// holds nothing.
    pub fn poll_interrupt(&mut self, cx: &Context<'_>) -> Poll<Stop> {
        for at in 0..self.slots.len() {
            let Some(slot) = self.slots.get(at) else { break };
            if slot.context.is_none() {
                continue;
            }
            let stop = match slot.look(cx, take_stop) {
                Ok(Some(intents)) => self.obey(at, intents),
                // Whoever waits for the call meets that, for the half that it is about.
                Err(Unavailable) if self.runs(Half::Received, at) || self.runs(Half::Answered, at) => Ok(()),
                Ok(None) | Err(Unavailable) => self.fail_idle(at),
            };
            if let Err(stop) = stop {
                return Poll::Ready(stop);
            }
        }
        Poll::Pending
    }

    /// Awaits `work`, unless a filter ends the stream meanwhile.
    ///
    /// # Errors
    /// When one does.
    pub async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.poll_interrupt(cx) {
            Poll::Ready(stop) => Poll::Ready(Err(stop)),
            Poll::Pending => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// A filter's instance ended while the filter was not being called.
    fn fail_idle(&mut self, at: usize) -> Result<(), Stop> {
        let (received, answered) = (self.keeps(Half::Received, at), self.keeps(Half::Answered, at));
        self.fail(at, Half::Received, received).and_then(|()| self.fail(at, Half::Answered, answered))
    }
}

impl Slot {
    /// Takes of what the guest has asked for, and has the chain woken when it asks for more. What it asks for in a call
    /// that has given way counts when that has returned.
    fn look<T: Default>(
        &self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut Intents) -> T,
    ) -> Result<Option<T>, Unavailable> {
        let (Some((generation, id)), vm) = (self.context, self.vm()) else { return Ok(None) };
        let calling = vm.is_calling();
        let mut later = false;
        let taken = vm.with_stream(generation, id, |context| {
            match &mut context.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
            if calling {
                later = context.intents.are_any();
                return T::default();
            }
            take(&mut context.intents)
        });
        if later {
            vm.after_the_call(cx.waker());
        }
        taken
    }
}

/// Whether a half was asked to go on, and still is.
pub(super) fn asks_for(intents: &Intents, half: Half) -> bool {
    match half {
        Half::Received => intents.resume_received,
        Half::Answered => intents.resume_answered,
    }
}

/// Whether a half was asked to go on.
pub(super) fn take_resumed(intents: &mut Intents, half: Half) -> bool {
    match half {
        Half::Received => std::mem::take(&mut intents.resume_received),
        Half::Answered => std::mem::take(&mut intents.resume_answered),
    }
}

/// What ends the stream, without what resumes it.
fn take_stop(intents: &mut Intents) -> Intents {
    Intents {
        reply: intents.reply.take(),
        close: std::mem::take(&mut intents.close),
        close_upstream: std::mem::take(&mut intents.close_upstream),
        ..Intents::default()
    }
}
