//! What a guest has whose calls run on fibers: they give way to the worker's other work whenever an epoch passes.
//!
//! While a call has given way its store is nobody's, and yet the streams of the instance go on. So the VM lends its
//! streams to the worker at every such moment, and takes them back when a host function, or the end of the call, needs
//! them. A thread does one thing at a time, so that the two never meet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atomic_refcell::AtomicRefCell;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use wasmtime::UpdateDeadline;

use crate::clock::thread_cpu_time;
use crate::plugin::budget::LOOKS;
use crate::plugin::engine::Pulse;
use crate::plugin::vm::{Streams, Vm};

/// Whose turn it is among the calls of a worker that give way: one of them runs at a time, and whatever else is ready
/// comes between two of its slices.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

/// A turn. To drop it is to let the next one run.
#[derive(Debug)]
pub struct Turn(Turns);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Waits for its turn, in the order of asking.
    pub async fn take(&self) -> Turn {
        self.acquire().await;
        Turn(self.clone())
    }

    async fn acquire(&self) {
        // It is never closed.
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }

    /// Lets everything else on the worker run that is ready, and then those that wait for their turn.
    async fn give_way(&self) {
        // This one wakes when the worker has looked at its sockets. The turn is kept until then: of several calls only
        // one has run when somebody's bytes are looked for.
        yield_now().await;
        self.0.add_permits(1);
        self.acquire().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.add_permits(1);
    }
}

/// What one instance and the worker have in common.
pub struct Fiber {
    pulse: Arc<Pulse>,
    turns: Turns,
    lent: AtomicRefCell<Lent>,
    clock: AtomicRefCell<Clock>,
}

/// What the worker is lent.
#[derive(Default)]
struct Lent {
    streams: Streams,
    last_id: u32,
    /// Whether they are here, and not in the VM.
    here: bool,
}

/// The CPU time of a call, by the slices that it ran in: what others do between them is not its own.
#[derive(Debug, Default)]
struct Clock {
    limit: Duration,
    /// In the slices before.
    spent: Duration,
    /// Where the thread's clock stood when this slice began.
    since: Duration,
    slices: u32,
}

impl Fiber {
    /// A fiber's part of a worker.
    pub fn new(pulse: Arc<Pulse>, turns: Turns) -> Arc<Self> {
        Arc::new(Self { pulse, turns, lent: AtomicRefCell::default(), clock: AtomicRefCell::default() })
    }

    /// A call begins, which may use so much CPU time.
    pub fn begin(&self, limit: Duration) {
        *self.clock.borrow_mut() =
            Clock { limit, spent: Duration::ZERO, since: thread_cpu_time(), slices: 0 };
    }

    /// The CPU time of the call that has just ended.
    pub fn spent(&self) -> Duration {
        self.clock.borrow().spent_at(thread_cpu_time())
    }

    /// How often the call has given way.
    pub fn slices(&self) -> u32 {
        self.clock.borrow().slices
    }

    /// What is to be done about a call when an epoch has passed: it gives way, or is ended.
    pub fn epoch(self: &Arc<Self>, vm: &mut Vm) -> UpdateDeadline {
        if self.clock.borrow_mut().is_over() {
            vm.budget.overrun = true;
            return UpdateDeadline::Interrupt;
        }
        self.pulse.refine();
        self.lend(&mut vm.streams, &mut vm.last_id);
        let me = Arc::clone(self);
        UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                me.turns.give_way().await;
                // The epoch may have come to rest meanwhile.
                me.pulse.mark();
                me.clock.borrow_mut().resume();
            }),
        )
    }

    fn lend(&self, streams: &mut Streams, last_id: &mut u32) {
        let mut lent = self.lent.borrow_mut();
        if !std::mem::replace(&mut lent.here, true) {
            std::mem::swap(&mut lent.streams, streams);
            lent.last_id = *last_id;
        }
    }

    /// Takes back what was lent, if it was.
    pub fn take_back(&self, streams: &mut Streams, last_id: &mut u32) {
        let mut lent = self.lent.borrow_mut();
        if std::mem::take(&mut lent.here) {
            std::mem::swap(&mut lent.streams, streams);
            *last_id = lent.last_id;
        }
    }

    /// The streams and the last id, while they are lent.
    pub fn with_streams<T>(&self, work: impl FnOnce(&mut Streams, &mut u32) -> T) -> T {
        let Lent { streams, last_id, .. } = &mut *self.lent.borrow_mut();
        work(streams, last_id)
    }
}

impl Clock {
    /// A slice begins.
    fn resume(&mut self) {
        self.since = thread_cpu_time();
    }

    fn spent_at(&self, now: Duration) -> Duration {
        self.spent + now.saturating_sub(self.since)
    }

    /// Ends a slice. True when there is to be no other.
    fn is_over(&mut self) -> bool {
        let now = thread_cpu_time();
        (self.spent, self.since) = (self.spent_at(now), now);
        self.slices = self.slices.saturating_add(1);
        // As for other calls: one jump of the clock is no overrun.
        self.spent >= self.limit && self.slices >= LOOKS
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber").field("clock", &self.clock).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn work(time: Duration) {
        let begun = thread_cpu_time();
        while thread_cpu_time().saturating_sub(begun) < time {}
    }

    #[test]
    fn what_others_do_between_two_slices_is_not_the_calls_own() {
        let mut clock = Clock { limit: 1_000 * MS, since: thread_cpu_time(), ..Clock::default() };
        for _ in 0..5 {
            work(MS);
            assert!(!clock.is_over());
            work(20 * MS);
            clock.resume();
        }
        let spent = clock.spent_at(thread_cpu_time());
        assert!((5 * MS..50 * MS).contains(&spent), "{spent:?} of 105 ms");
    }

    #[test]
    fn a_call_is_over_when_its_slices_together_have_reached_its_limit_and_not_for_one_jump_of_the_clock() {
        let mut clock = Clock { limit: 3 * MS, since: thread_cpu_time(), ..Clock::default() };
        work(4 * MS);
        assert!((1..LOOKS).all(|_| !clock.is_over()), "a jump");
        assert!(clock.is_over());
    }

    #[tokio::test]
    async fn turns_are_taken_one_by_one_and_between_two_of_them_everything_else_runs() {
        let turns = Turns::default();
        let ran = Arc::new(AtomicRefCell::new(Vec::new()));
        let (others, local) = (Arc::clone(&ran), tokio::task::LocalSet::new());
        for name in ["a", "b"] {
            let (turns, ran) = (turns.clone(), Arc::clone(&ran));
            local.spawn_local(async move {
                let turn = turns.take().await;
                for _ in 0..3 {
                    ran.borrow_mut().push(name);
                    turn.0.give_way().await;
                }
            });
        }
        local.spawn_local(async move {
            for _ in 0..10 {
                others.borrow_mut().push("other");
                yield_now().await;
            }
        });
        local.await;
        let ran = ran.borrow();
        let slices: Vec<_> = ran.iter().filter(|name| **name != "other").copied().collect();
        assert_eq!(slices, ["a", "b", "a", "b", "a", "b"], "in turn");
        let together = ran.windows(2).filter(|pair| !pair.contains(&"other")).count();
        assert_eq!(together, 0, "{ran:?}");
    }
}
