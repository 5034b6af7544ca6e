//! What a guest has asked for in a call, and what is done when that has returned: in slices, at the filter's expense. A guest asks for
//! a thousand calls to clusters as fast as it can count, and to begin each of them takes the host longer than that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::yield_now;

use crate::clock::cycles;
use crate::plugin::engine::EPOCH;
use crate::plugin::filter::VmCell;
use crate::plugin::vm::Outgoing;

/// So many are run at once, whatever they take, and in the stretch of the call that has asked for them. Who asks for more has kept
/// others waiting for long enough.
const AT_ONCE: usize = 16;

/// What further ones take before others have their turn.
const SLICE: Duration = Duration::from_micros(50);

/// What is to be done, in the order of asking.
#[derive(Debug)]
pub(super) struct Errands<T> {
    waiting: RefCell<VecDeque<T>>,
    /// Whether somebody is at it, and goes on until nothing is left.
    under_way: Cell<bool>,
}

impl<T> Default for Errands<T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), under_way: Cell::new(false) }
    }
}

impl<T> Errands<T> {
    /// Adds some. True when nobody is at it: whoever added them is to begin.
    fn add(&self, more: impl Iterator<Item = T>) -> bool {
        self.waiting.borrow_mut().extend(more);
        !self.under_way.replace(true)
    }

    /// Whether there are more than are run at once.
    fn are_many(&self) -> bool {
        self.waiting.borrow().len() > AT_ONCE
    }

    /// Runs some, for a slice. True when nothing is left.
    fn run(&self, mut run: impl FnMut(T)) -> bool {
        let start = cycles::now();
        for done in 1.. {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(next) = next else { break };
            run(next);
            if done >= AT_ONCE && cycles::between(start, cycles::now()) >= SLICE {
                return false;
            }
        }
        self.under_way.set(false);
        true
    }
}

impl VmCell {
    /// Does what a guest has asked for: at once, or what is too much for that little by little.
    pub(super) fn carry_out(&self, outgoing: Vec<Outgoing>) {
        let generation = self.generation();
        let own = outgoing.into_iter().filter(|asked| !self.is_of_worker(asked));
        if !self.errands.add(own.map(|asked| (generation, asked))) {
            return;
        }
        if !self.errands.are_many() && self.run_errands() {
            return;
        }
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            loop {
                // It wakes when the worker has looked at its sockets, and what is ready by then goes first.
                yield_now().await;
                let Some(cell) = me.upgrade() else { return };
                if cell.run_errands() {
                    return;
                }
            }
        });
    }

    /// Runs errands for a slice. True when nothing is left.
    fn run_errands(&self) -> bool {
        let (start, before) = (cycles::now(), self.books.guests());
        let mut payer = 1;
        let all = self.errands.run(|(generation, asked)| {
            payer = asked.root().unwrap_or(payer);
            // What an instance has asked for that is gone is of no use to anybody.
            if generation == self.generation() {
                self.run_errand(asked);
            }
        });
        // What the guest was called for is billed already, and the thread may have been put aside.
        let guest = Duration::from_nanos(self.books.guests().wrapping_sub(before));
        let took = cycles::between(start, cycles::now()).saturating_sub(guest);
        self.account(payer).bill(took.min(EPOCH));
        all
    }

    fn run_errand(&self, asked: Outgoing) {
        match asked {
            Outgoing::Tick { root } => self.start_timer(root),
            Outgoing::Call(call) => self.start_call(*call),
            Outgoing::GrpcOpen(open) => self.open_grpc(*open),
            Outgoing::GrpcSend { token, message, end } => {
                if let Some(call) = self.grpc.borrow().get(&token) {
                    call.sender.send(message, end);
                }
            }
            Outgoing::GrpcCancel { token } => drop(self.grpc.borrow_mut().remove(&token)),
            Outgoing::Listen { root, queue } => self.listen(root, queue),
            Outgoing::Done { root } => self.done(root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_much_is_served_by_slices_in_the_order_of_asking() {
        let errands = Errands::default();
        let long = |_: usize| {
            let start = cycles::now();
            while cycles::between(start, cycles::now()) < SLICE / 10 {
                std::hint::spin_loop();
            }
        };
        assert!(errands.add(0..AT_ONCE), "nobody is at it");
        assert!(!errands.are_many(), "they are run at once");
        assert!(!errands.add(AT_ONCE..AT_ONCE * 3), "somebody is at it");
        assert!(errands.are_many(), "others come first");
        let mut seen = Vec::new();
        let mut slice = |most: usize| {
            let before = seen.len();
            let all = errands.run(|errand| {
                long(errand);
                seen.push(errand);
            });
            assert_eq!((seen.len() - before, all), (most, most == 0));
        };
        slice(AT_ONCE);
        assert!(!errands.add(AT_ONCE * 3..AT_ONCE * 4), "whoever is at it goes on");
        (0..3).for_each(|_| slice(AT_ONCE));
        slice(0);
        assert_eq!(seen, (0..AT_ONCE * 4).collect::<Vec<_>>());
        assert!(errands.add(std::iter::empty()), "nobody is at it any more");
    }
}
