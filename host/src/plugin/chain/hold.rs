//! What a filter holds of one half of a stream.

use crate::clock::Timer;
use crate::http::body::Buffer;
use crate::plugin::chain::apart::Running;
use crate::plugin::chain::{Chain, Half, Slot};

/// What a filter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// The headers, and with them everything behind (Envoy's StopAllIteration); or a connection that is new.
    Start,
    /// The headers, while it is shown what comes behind them (Envoy's StopIteration).
    Headers,
    /// What has come of the body, or of the data.
    Data,
    /// The trailers, and what it held before.
    Trailers,
    /// Nothing any more, but those behind it have not seen the headers yet.
    Nothing,
}

/// How far a half has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// There is more to come.
    Open,
    /// That was all.
    Data,
    /// That was all, and the trailers are there.
    Trailers,
}

/// A filter's hold on a half. The bytes that the guest sees are in its context.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) what: Held,
    /// Bytes before those, which the guest is not shown any more.
    pub(super) aside: Buffer,
    /// How much of the half has come to the filter.
    pub(super) end: End,
    /// When its time is up.
    pub(super) pause: Option<Timer>,
    /// Bytes that go on though the trailers behind them are held.
    pub(super) onward: Buffer,
    /// The call that it is told by, as long as that is waited for.
    pub(super) running: Option<Running>,
}

impl Hold {
    pub(super) fn new(what: Held) -> Box<Self> {
        let (aside, onward) = (Buffer::default(), Buffer::default());
        Box::new(Self { what, aside, end: End::Open, pause: None, onward, running: None })
    }
}

impl Slot {
    /// The filter's hold on a half.
    pub(super) fn holds(&self, half: Half) -> Option<&Hold> {
        match half {
            Half::Received => self.received.as_deref(),
            Half::Answered => self.answered.as_deref(),
        }
    }
}

impl Chain {
    /// What a filter holds of a half.
    pub(super) fn held(&self, half: Half, at: usize) -> Option<Held> {
        self.slots.get(at)?.holds(half).map(|hold| hold.what)
    }

    /// A filter's hold on a half.
    pub(super) fn hold(&mut self, half: Half, at: usize) -> Option<&mut Option<Box<Hold>>> {
        let slot = self.slots.get_mut(at)?;
        Some(match half {
            Half::Received => &mut slot.received,
            Half::Answered => &mut slot.answered,
        })
    }

    /// Takes a filter's hold away.
    pub(super) fn take_hold(&mut self, half: Half, at: usize) -> Option<Box<Hold>> {
        self.hold(half, at)?.take()
    }

    /// Has a filter hold something; what it held before stays with it.
    pub(super) fn set_held(&mut self, half: Half, at: usize, what: Held) -> Option<&mut Hold> {
        let hold = self.hold(half, at)?.get_or_insert_with(|| Hold::new(what));
        hold.what = what;
        Some(hold)
    }

    /// Whether any filter holds something of a half.
    pub fn holds(&self, half: Half) -> bool {
        self.order(half).any(|at| self.held(half, at).is_some())
    }

    /// Whether a filter that holds the headers is to be shown the body meanwhile.
    pub fn reads_ahead(&self, half: Half) -> bool {
        self.order(half).any(|at| self.held(half, at) == Some(Held::Headers))
    }
}
