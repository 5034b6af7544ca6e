//! Runs the filters of one stream: in order for what comes from downstream, in reverse for what comes from
//! upstream. Headers and trailers are in `chain/http.rs`, new and closed connections in `chain/network.rs`, the
//! bytes of both in `chain/data.rs`, and how it ends in `chain/ending.rs`. A guest that gives way is waited for in
//! `chain/apart.rs`.
//!
//! A guest returns at once; what it asked for is an intent in its context, and is carried out here. A filter may
//! hold a message: then the chain waits, for the filter's word from wherever it comes (a timer, a call's
//! answer), for its failure, or for `pause_timeout`.

mod apart;
pub mod data;
mod ending;
mod hold;
pub mod http;
pub mod network;
mod pause;

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;
use wasmtime::WasmParams;
use weir_abi::PeerKind;

use crate::clock::{Timers, coarse_millis};
use crate::plugin::chain::apart::Pending;
use crate::plugin::chain::hold::Hold;
use crate::plugin::chain::pause::take_resumed;
use crate::plugin::filter::{Unavailable, VmCell, VmHandle, Which};
use crate::plugin::meter::{Entry, StreamMeter};
use crate::plugin::spec::FilterSpec;
use crate::plugin::stream::{LocalReply, SharedStream};
use crate::plugin::vm::{Intents, StreamContext};

/// One filter on one worker.
pub struct Filter {
    /// What it is.
    pub spec: Arc<FilterSpec>,
    /// Its VM on this worker.
    pub vm: Rc<VmHandle>,
    /// Its root context in the VM.
    pub root: u32,
}

/// Which half of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// From downstream: the request, or downstream data.
    Received,
    /// From upstream: the response, or upstream data.
    Answered,
}

/// Why a chain ended a stream, or one of its halves.
#[derive(Debug, Clone)]
pub enum Stop {
    /// This is the answer.
    Reply(LocalReply),
    /// The stream is reset, and the connection closed where there is no stream.
    Reset(Arc<str>),
}

/// The filters of one stream.
pub struct Chain {
    slots: SmallVec<[Slot; 4]>,
    stream: SharedStream,
    /// Whether it is an HTTP exchange; else it is a TCP connection.
    http: bool,
    /// How many filters have been shown the headers of the request.
    requested: usize,
    /// How many filters have been shown the headers of the response.
    responded: usize,
    timers: Rc<Timers>,
    /// What a filter may hold of a half, in bytes.
    limit: usize,
    /// Who closed the connection to the client: Weir, unless it is known that the client did.
    closed_by: PeerKind,
    finished: bool,
}

struct Slot {
    filter: Rc<Filter>,
    /// The VM of the stream alone, with `isolation: stream`.
    own: Option<Rc<VmHandle>>,
    /// The instance that the stream is in, where calls give way.
    lane: Option<Rc<VmCell>>,
    /// The context and the generation of its instance; `None` before the stream begins for this filter, and
    /// once it goes on without it.
    context: Option<(u64, u32)>,
    /// Whether the request was shown to it, so that it sees the response too.
    involved: bool,
    /// What it holds of what comes from downstream.
    received: Option<Box<Hold>>,
    /// What it holds of what comes from upstream.
    answered: Option<Box<Hold>>,
    /// What the stream has used of the filter.
    meter: StreamMeter,
    /// Whether that is more than it may.
    overdrawn: bool,
    /// Whether it tries whether the filter works again.
    trial: bool,
}

/// A call.
enum Call {
    /// It has returned.
    Done(Outcome),
    /// It gives way, and is waited for.
    Later(Pending),
}

/// What a filter made of a callback.
enum Outcome {
    /// It lets the message go on, or it has nothing to say.
    Continue,
    /// It holds the message, in the way that its answer says.
    Pause(u32),
}

impl Chain {
    /// The chain of a stream that begins: every filter gets its context, in order.
    ///
    /// # Errors
    /// When a filter fails that may not.
    pub fn begin(
        filters: impl IntoIterator<Item = Rc<Filter>>,
        stream: &SharedStream,
        timers: &Rc<Timers>,
    ) -> (Self, Result<(), Stop>) {
        let now = coarse_millis();
        let slot = |filter| Slot {
            filter,
            own: None,
            lane: None,
            context: None,
            involved: false,
            received: None,
            answered: None,
            meter: StreamMeter::new(now),
            overdrawn: false,
            trial: false,
        };
        let mut chain = Self {
            slots: filters.into_iter().map(slot).collect(),
            http: stream.borrow().is_http(),
            stream: Arc::clone(stream),
            requested: 0,
            responded: 0,
            timers: Rc::clone(timers),
            limit: usize::MAX,
            closed_by: PeerKind::Local,
            finished: false,
        };
        let begun = (0..chain.slots.len()).try_for_each(|at| chain.begin_filter(at));
        (chain, begun)
    }

    fn begin_filter(&mut self, at: usize) -> Result<(), Stop> {
        let Some(slot) = self.slots.get_mut(at) else { return Ok(()) };
        let filter = &slot.filter;
        slot.lane = filter.vm.least_busy();
        match slot.vm().admit(filter.root) {
            Ok(entry) => slot.trial = entry == Entry::Trial,
            Err(refusal) => return self.fail_because(at, Half::Received, false, refusal.details()),
        }
        match filter.vm.for_stream() {
            Ok(own) => slot.own = own,
            Err(Unavailable) => return self.fail(at, Half::Received, false),
        }
        let vm = slot.own.as_ref().unwrap_or(&filter.vm);
        let generation = vm.generation();
        let stream = Arc::clone(&self.stream);
        let created = match &slot.lane {
            Some(lane) => lane.begin_stream((filter.root, &filter.spec), at, stream),
            None => vm.with(generation, |instance| {
                if !instance.has_room(filter.root) {
                    return Ok(None);
                }
                let id = instance.create_stream(filter.root, at, stream, filter.spec.cpu)?;
                Ok(Some((generation, id)))
            }),
        };
        match created {
            Ok(Some(context)) => {
                slot.context = Some(context);
                Ok(())
            }
            Ok(None) | Err(Unavailable) => self.fail(at, Half::Received, false),
        }
    }

    /// The stream's state.
    pub fn stream(&self) -> &SharedStream {
        &self.stream
    }

    /// Whether there are no filters.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The filters in the order in which they see a half.
    fn order(&self, half: Half) -> impl Iterator<Item = usize> + use<> {
        let count = self.slots.len();
        (0..count).map(move |step| match half {
            Half::Received => step,
            Half::Answered => count - 1 - step,
        })
    }

    /// Those that come after `at`; all, for `None`.
    fn after(&self, half: Half, at: Option<usize>) -> impl Iterator<Item = usize> + use<> {
        let mut order = self.order(half);
        if let Some(at) = at {
            for step in order.by_ref() {
                if step == at {
                    break;
                }
            }
        }
        order
    }

    /// How many filters have been shown the headers of a half.
    fn headers_seen(&mut self, half: Half) -> &mut usize {
        match half {
            Half::Received => &mut self.requested,
            Half::Answered => &mut self.responded,
        }
    }

    /// A filter that takes part, with its context and the generation of that.
    fn part(&self, at: usize) -> Option<(&Slot, (u64, u32))> {
        let slot = self.slots.get(at)?;
        Some((slot, slot.context?))
    }

    /// Whether a filter takes part and exports a callback. One whose instance is gone counts as if it did, so
    /// that its failure is met.
    fn has<P, R>(&self, at: usize, which: Which<P, R>) -> bool {
        let Some((slot, (generation, _))) = self.part(at) else { return false };
        slot.vm().exports(generation, which)
    }

    /// Calls a filter about one half of the stream. `prepare` readies its context for the call, and gives what the
    /// callback is told. A filter that does not export the callback lets everything go on.
    ///
    /// # Errors
    /// When the filter, or its failure, ends the stream.
    fn call<P>(
        &mut self,
        at: usize,
        half: Half,
        which: Which<P, u32>,
        prepare: impl FnOnce(u32, &mut StreamContext) -> P + 'static,
    ) -> Result<Call, Stop>
    where
        P: WasmParams + Sync + 'static,
    {
        let Some((slot, (generation, id))) = self.part(at) else { return Ok(Call::Done(Outcome::Continue)) };
        if (slot.overdrawn || !slot.vm().may_go_on()) && self.has(at, which) {
            return self.cut_off(at, half).map(|()| Call::Done(Outcome::Continue));
        }
        let limit = slot.filter.spec.cpu;
        if slot.lane.is_some() {
            return self.call_apart((at, half), (generation, id), which, prepare);
        }
        let called = slot.vm().with(generation, |instance| {
            let exported = instance.exports(which);
            let Some(context) = instance.stream(id) else { return Ok((None, Intents::default(), 0)) };
            let params = prepare(id, context);
            if !exported {
                return Ok((None, Intents::default(), 0));
            }
            // A message that was not held was not waiting to be resumed.
            take_resumed(&mut context.intents, half);
            let action = instance.call(id, limit, which, params)?;
            let intents = instance.stream(id).map(|context| std::mem::take(&mut context.intents));
            Ok((action, intents.unwrap_or_default(), instance.spent()))
        });
        let Ok((action, intents, spent)) = called else {
            let holds = self.held(half, at).is_some();
            return self.fail(at, half, holds).map(|()| Call::Done(Outcome::Continue));
        };
        self.take_in(at, half, action, intents, spent).map(Call::Done)
    }

    /// What a call has left behind, once it has returned.
    #[inline]
    fn take_in(
        &mut self,
        at: usize,
        half: Half,
        action: Option<u32>,
        mut intents: Intents,
        spent: u64,
    ) -> Result<Outcome, Stop> {
        if let Some(slot) = self.slots.get_mut(at) {
            let limit = slot.filter.spec.cpu_per_stream;
            slot.overdrawn |= !slot.meter.bill(spent, limit, coarse_millis);
        }
        let resumed = take_resumed(&mut intents, half);
        self.give_back(at, half, &mut intents);
        self.obey(at, intents)?;
        // 0 continues; all other numbers stop in one way or another.
        Ok(match action.unwrap_or(0) {
            0 => Outcome::Continue,
            _ if resumed => Outcome::Continue,
            action => Outcome::Pause(action),
        })
    }

    /// What the guest asked for the other half is left for whoever waits for that.
    fn give_back(&self, at: usize, half: Half, intents: &mut Intents) {
        let other = match half {
            Half::Received => Half::Answered,
            Half::Answered => Half::Received,
        };
        if take_resumed(intents, other) {
            // Of an instance that is gone, nobody waits for anything.
            self.with_context(at, |context| {
                match other {
                    Half::Received => context.intents.resume_received = true,
                    Half::Answered => context.intents.resume_answered = true,
                }
                context.wake();
            });
        }
    }

    /// Changes a filter's context; `None` when it is gone, with its instance.
    fn with_context<T>(&self, at: usize, change: impl FnOnce(&mut StreamContext) -> T) -> Option<T> {
        let (slot, (generation, id)) = self.part(at)?;
        slot.vm().with_stream(generation, id, change).ok().flatten()
    }
}
