//! Time: coarse timers that cost nothing when they do not fire, and the clocks that plugins are billed by.
//!
//! A worker owns one [`Timers`]; every connection holds one [`Timer`] for as long as it lives. Setting a
//! deadline stores a number. One task per worker ([`Timers::run`]) sleeps until the earliest deadline and wakes
//! whom it concerns; the same registry wakes every connection when the worker starts to drain.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use slab::Slab;
use tokio::sync::Notify;

/// Milliseconds on the coarse monotonic clock, which is read without a system call.
pub fn coarse_millis() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000
}

/// CPU time of the calling thread. It costs a system call: read it only where a budget is in doubt.
pub fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Reads of the cycle counter, for accounting that must cost next to nothing.
pub mod cycles {
    use super::{Duration, OnceLock};

    static CLOCK: OnceLock<quanta::Clock> = OnceLock::new();

    fn clock() -> &'static quanta::Clock {
        CLOCK.get_or_init(quanta::Clock::new)
    }

    /// The counter now.
    pub fn now() -> u64 {
        clock().raw()
    }

    /// The time between two readings.
    pub fn between(start: u64, end: u64) -> Duration {
        Duration::from_nanos(clock().delta_as_nanos(start, end))
    }
}

/// A moment by the cycle counter, for what is told of an exchange. To read it takes a third of what an
/// [`Instant`](std::time::Instant) does, and an exchange does so five times.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self(cycles::now())
    }

    /// The time since it.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// The time since an earlier one; zero when that is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        cycles::between(earlier.0, self.0)
    }
}

/// The timers of one worker.
#[derive(Debug, Default)]
pub struct Timers {
    entries: RefCell<Slab<Entry>>,
    /// A lower bound of all deadlines, so that most passes of the sweeper look at nothing.
    earliest: Cell<Option<u64>>,
    lowered: Notify,
    /// Milliseconds, where time stands still but for [`Timers::skip`].
    standing: Option<Cell<u64>>,
}

#[derive(Debug, Default)]
struct Entry {
    deadline: Option<u64>,
    waker: Option<Waker>,
}

impl Timers {
    /// Timers by a clock that stands still until it is told to go on: with it, nothing has to be waited for.
    pub fn standing() -> Self {
        Self { standing: Some(Cell::default()), ..Self::default() }
    }

    /// Milliseconds on the clock that the timers go by.
    pub fn now(&self) -> u64 {
        self.standing.as_ref().map_or_else(coarse_millis, Cell::get)
    }

    /// Lets the time that stands go on to the next deadline, and fires what is due then. `None` when there is none.
    pub fn skip(&self) -> Option<()> {
        let standing = self.standing.as_ref()?;
        let now = standing.get();
        let deadlines = self.entries.borrow();
        let mut ahead = deadlines.iter().filter_map(|(_, entry)| entry.deadline).collect::<Vec<_>>();
        drop(deadlines);
        // What is due already was told so.
        ahead.retain(|deadline| *deadline > now);
        standing.set(ahead.into_iter().min()?);
        self.sweep();
        Some(())
    }

    /// Registers a timer without a deadline.
    pub fn timer(self: &Rc<Self>) -> Timer {
        let key = self.entries.borrow_mut().insert(Entry::default());
        Timer { timers: Rc::clone(self), key }
    }

    /// Wakes everyone who waits on a timer, whatever their deadline.
    pub fn wake_all(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            if let Some(waker) = &entry.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Fires timers, for as long as the worker runs.
    pub async fn run(&self) {
        loop {
            let Some(earliest) = self.earliest.get() else {
                self.lowered.notified().await;
                continue;
            };
            let wait = Duration::from_millis(earliest.saturating_sub(self.now()));
            if wait.is_zero() {
                self.sweep();
            } else {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.lowered.notified() => {}
                }
            }
        }
    }

    fn sweep(&self) {
        let now = self.now();
        let mut earliest = None;
        for (_, entry) in self.entries.borrow().iter() {
            match entry.deadline {
                Some(deadline) if deadline <= now => {
                    if let Some(waker) = &entry.waker {
                        waker.wake_by_ref();
                    }
                }
                Some(deadline) => earliest = Some(earliest.unwrap_or(deadline).min(deadline)),
                None => {}
            }
        }
        self.earliest.set(earliest);
    }
}

/// One deadline that can be set again and again.
#[derive(Debug)]
pub struct Timer {
    timers: Rc<Timers>,
    key: usize,
}

impl Timer {
    /// Sets the deadline `after` from now, to the coarse clock's few milliseconds, never early.
    pub fn set(&self, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2);
        let coarseness = if self.timers.standing.is_some() { 0 } else { COARSENESS };
        let deadline = self.timers.now().saturating_add(after).saturating_add(coarseness);
        self.with(|entry| entry.deadline = Some(deadline));
        if self.timers.earliest.get().is_none_or(|earliest| deadline < earliest) {
            self.timers.earliest.set(Some(deadline));
            self.timers.lowered.notify_one();
        }
    }

    /// Sets the deadline to the end of a time limit that begins now. Zero is no limit.
    pub fn set_limit(&self, limit: Duration) {
        if limit.is_zero() { self.clear() } else { self.set(limit) }
    }

    /// Sets the deadline to `after` from now, or a little later, when others end too: for what many wait for and is not urgent.
    pub fn set_roughly(&self, after: Duration) {
        let early =
            self.timers.now().saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX / 2));
        self.set(after + Duration::from_millis(early.next_multiple_of(TOGETHER) - early));
    }

    /// Removes the deadline.
    pub fn clear(&self) {
        self.with(|entry| entry.deadline = None);
    }

    /// Ready once the deadline has passed. Also wakes the task when the worker starts to drain.
    pub fn poll_expired(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|entry| {
            if entry.deadline.is_some_and(|deadline| deadline <= self.timers.now()) {
                return Poll::Ready(());
            }
            match &mut entry.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    /// Waits for `work` until the deadline passes; `None` when it does.
    pub async fn limit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_expired(cx).map(|()| None),
        })
        .await
    }

    fn with<T>(&self, f: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.timers.entries.borrow_mut();
        match entries.get_mut(self.key) {
            Some(entry) => f(entry),
            // A timer's entry lives exactly as long as the timer.
            None => f(&mut Entry::default()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.timers.entries.borrow_mut().try_remove(self.key);
    }
}

/// What is not urgent ends at multiples of so many milliseconds.
const TOGETHER: u64 = 250;

/// How late the coarse clock may be, in milliseconds: one kernel tick at 250 Hz.
const COARSENESS: u64 = 4;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn with_timers<F: Future>(test: impl FnOnce(Rc<Timers>) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build_local(Default::default())
            .expect("a runtime");
        runtime.block_on(async {
            let timers = Rc::new(Timers::default());
            let sweeper = Rc::clone(&timers);
            tokio::task::spawn_local(async move { sweeper.run().await });
            test(timers).await
        })
    }

    #[test]
    fn what_is_not_urgent_ends_together_with_others_and_never_early() {
        with_timers(|timers| async move {
            let (timer, after) = (timers.timer(), 1_000);
            for _ in 0..3 {
                let begun = timers.now();
                timer.set_roughly(Duration::from_millis(after));
                let deadline = timer.with(|entry| entry.deadline).expect("it is set") - COARSENESS;
                assert_eq!(deadline % TOGETHER, 0);
                let late = timers.now() + after + TOGETHER;
                assert!((begun + after..late).contains(&deadline), "{deadline}, {begun} to {late}");
            }
        });
    }

    #[test]
    fn a_deadline_ends_the_wait_and_never_early() {
        with_timers(|timers| async move {
            let timer = timers.timer();
            let start = Instant::now();
            timer.set(Duration::from_millis(30));
            assert_eq!(timer.limit(std::future::pending::<()>()).await, None);
            assert!(start.elapsed() >= Duration::from_millis(30));
        });
    }

    #[test]
    fn work_that_ends_in_time_is_returned_and_a_cleared_deadline_never_fires() {
        with_timers(|timers| async move {
            let (timer, other) = (timers.timer(), timers.timer());
            timer.set(Duration::from_millis(5));
            assert_eq!(timer.limit(async { 7 }).await, Some(7));
            timer.clear();
            other.set(Duration::from_millis(30));
            let both = async {
                other.limit(std::future::pending::<()>()).await;
                8
            };
            assert_eq!(timer.limit(both).await, Some(8));
        });
    }

    #[test]
    fn time_that_stands_goes_on_from_deadline_to_deadline_and_no_further() {
        let timers = Rc::new(Timers::standing());
        let (late, early) = (timers.timer(), timers.timer());
        late.set(Duration::from_secs(3600));
        early.set(Duration::from_millis(5));
        let cx = Context::from_waker(Waker::noop());
        assert!(early.poll_expired(&cx).is_pending());
        assert_eq!((timers.skip(), timers.now()), (Some(()), 5));
        assert!(early.poll_expired(&cx).is_ready() && late.poll_expired(&cx).is_pending());
        assert_eq!((timers.skip(), timers.now()), (Some(()), 3_600_000));
        assert!(late.poll_expired(&cx).is_ready());
        assert_eq!((timers.skip(), timers.now()), (None, 3_600_000));
    }

    #[test]
    fn an_earlier_deadline_set_later_fires_first() {
        with_timers(|timers| async move {
            let (late, early) = (timers.timer(), timers.timer());
            late.set(Duration::from_secs(3600));
            tokio::task::yield_now().await;
            early.set(Duration::from_millis(5));
            assert_eq!(early.limit(std::future::pending::<()>()).await, None);
        });
    }
}
