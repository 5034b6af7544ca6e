//! What the host does on behalf of a filter, its calls to clusters: it is billed like the filter's own CPU time, and
//! gives way like it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::task::yield_now;

use crate::clock::cycles;
use crate::http::h2;
use crate::plugin::engine::EPOCH;
use crate::plugin::filter::VmCell;
use crate::plugin::filter::admission::Books;
use crate::plugin::services::Usage;

/// What the calls of a VM take of a worker before others have their turn: a storm of calls is felt by nobody for longer.
const SLICE: Duration = Duration::from_micros(50);

/// How many of the calls that wait are woken for a slice: to wake thousands would take longer than what one of them does.
const WOKEN: usize = 16;

/// Whose turn it is: the calls of a VM, or whatever else the worker has to do.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// What was used since others last had their turn, in nanoseconds.
    used: Cell<u64>,
    /// Whether they are having it, or calls still wait that have not been let in since.
    resting: Cell<bool>,
    /// How many of the calls that waited are let in now.
    let_in: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// Who pays for what the host does on behalf of a filter.
#[derive(Debug, Clone)]
pub struct Account {
    books: Rc<Books>,
    usage: Option<Arc<Usage>>,
}

impl VmCell {
    /// The account of a root context.
    pub(super) fn account(&self, root: u32) -> Account {
        let usage = (root as usize).checked_sub(1).and_then(|place| self.spec.usages.get(place));
        Account { books: Rc::clone(&self.books), usage: usage.cloned() }
    }
}

impl Account {
    /// Does some work, at the expense of the filter. What the guest itself is called for meanwhile is billed where that
    /// is done, and is of the same slice.
    pub async fn charge<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.books.slice.poll_turn(&self.books, cx).is_pending() {
                return Poll::Pending;
            }
            let (start, before) = (cycles::now(), self.books.guests());
            let polled = work.as_mut().poll(cx);
            let guest = self.books.guests().wrapping_sub(before);
            let wall = cycles::between(start, cycles::now()).saturating_sub(Duration::from_nanos(guest));
            // No more than an epoch, as with calls of the guest: the thread may have been put aside for a while.
            self.bill(wall.min(EPOCH));
            // It is billed already, and yet others have waited for it.
            self.books.slice.used(guest);
            polled
        })
        .await
    }

    /// Waits until another of the VM's calls may be on its way, in the order of asking; it is until what is returned is
    /// dropped. A burst of calls makes no more connections than this has room for, and no more work at once.
    pub async fn room(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.books.on_their_way.acquire().await.ok()
    }

    /// Bills what something else does for a call of the filter.
    fn bill_besides(&self, spent: Duration) {
        let spent = spent.min(EPOCH);
        self.books.besides.set(self.books.besides.get().wrapping_add(nanos(spent)));
        self.bill(spent);
    }

    pub(super) fn bill(&self, spent: Duration) {
        let spent = nanos(spent);
        self.books.meter.bill(spent);
        self.books.slice.used(spent);
        if let Some(usage) = &self.usage {
            usage.cpu.add(spent);
        }
    }
}

/// A call's part of what its connection takes of the worker, which many may share: the filter pays it, in the end at the latest.
#[derive(Debug)]
pub struct Toll {
    account: Account,
    part: h2::Part,
}

impl Toll {
    /// What a stream costs, for a call that is on the account.
    pub fn new(account: &Account, part: h2::Part) -> Self {
        Self { account: account.clone(), part }
    }

    /// Pays what has come up.
    pub fn pay(&self) {
        self.account.bill_besides(self.part.take());
    }
}

impl Drop for Toll {
    fn drop(&mut self) {
        self.pay();
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Slice {
    /// The calls have used some of it, in nanoseconds.
    fn used(&self, spent: u64) {
        self.used.set(self.used.get().saturating_add(spent));
    }

    /// Ready when it is the turn of the VM's calls.
    fn poll_turn(&self, books: &Rc<Books>, cx: &Context<'_>) -> Poll<()> {
        if u128::from(self.used.get()) < SLICE.as_nanos() {
            if !self.resting.get() {
                return Poll::Ready(());
            }
            // Nobody comes before those that wait.
            if let Some(left) = self.let_in.get().checked_sub(1) {
                self.let_in.set(left);
                return Poll::Ready(());
            }
        }
        self.waiting.borrow_mut().push_back(cx.waker().clone());
        if !self.resting.replace(true) {
            let books = Rc::clone(books);
            tokio::task::spawn_local(async move { books.slice.rest().await });
        }
        Poll::Pending
    }

    /// Lets others have their turn, and then some of those that wait, until nobody does.
    async fn rest(&self) {
        while !self.waiting.borrow().is_empty() {
            // It wakes when the worker has looked at its sockets, and what is ready by then goes first.
            yield_now().await;
            self.used.set(0);
            let mut waiting = self.waiting.borrow_mut();
            let some = waiting.len().min(WOKEN);
            let woken: Vec<Waker> = waiting.drain(..some).collect();
            drop(waiting);
            self.let_in.set(woken.len());
            woken.into_iter().for_each(Waker::wake);
        }
        self.resting.set(false);
        self.used.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_of_calls_lets_others_have_their_turn_after_each_slice_and_all_of_it_is_billed() {
        const CALLS: usize = 20;
        let books = Rc::new(Books::with_shares(Duration::from_secs(1), Duration::ZERO));
        let seen = Rc::new(RefCell::new(String::new()));
        let local = tokio::task::LocalSet::new();
        for _ in 0..CALLS {
            let (account, seen) = (Account { books: Rc::clone(&books), usage: None }, Rc::clone(&seen));
            local.spawn_local(async move {
                account.charge(async { spin(SLICE) }).await;
                seen.borrow_mut().push('c');
            });
        }
        let (done, others) = (Rc::clone(&seen), Rc::clone(&seen));
        let other = local.spawn_local(async move {
            while done.borrow().matches('c').count() < CALLS {
                others.borrow_mut().push('o');
                yield_now().await;
            }
        });
        local.run_until(other).await.expect("it does not panic");
        assert!(!seen.borrow().contains("cc"), "a slice, then others: {}", seen.borrow());
        let least = SLICE.as_nanos() as u64 * CALLS as u64;
        assert!(books.meter.billed() >= least, "{} of {least}", books.meter.billed());
    }

    #[tokio::test]
    async fn what_the_guest_takes_over_answers_is_of_the_slice_too() {
        let books = Rc::new(Books::with_shares(Duration::from_secs(1), Duration::ZERO));
        let account = Account { books: Rc::clone(&books), usage: None };
        account.charge(async { books.meter.bill(nanos(SLICE)) }).await;
        let mut next = pin!(account.charge(async {}));
        let local = tokio::task::LocalSet::new();
        let first = local.run_until(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx)))).await;
        assert!(first.is_pending(), "others have their turn first");
        local.run_until(next).await;
    }

    #[tokio::test]
    async fn what_the_guest_is_billed_for_meanwhile_is_not_billed_twice() {
        let books = Rc::new(Books::with_shares(Duration::from_secs(1), Duration::ZERO));
        let account = Account { books: Rc::clone(&books), usage: None };
        let guest = 3_600_000_000_000;
        account.charge(async { books.meter.bill(guest) }).await;
        assert_eq!(books.meter.billed(), guest);
    }

    #[tokio::test]
    async fn what_a_connection_does_for_a_call_is_billed_and_not_taken_for_the_guests_work() {
        let books = Rc::new(Books::with_shares(Duration::from_secs(1), Duration::ZERO));
        let account = Account { books: Rc::clone(&books), usage: None };
        let besides = Duration::from_micros(300);
        let work = async {
            let toll = Toll::new(&account, h2::Part::of(besides));
            toll.pay();
            toll.pay();
            spin(SLICE);
        };
        account.charge(work).await;
        let least = nanos(SLICE + besides);
        assert!(books.meter.billed() >= least, "{} of {least}", books.meter.billed());
        let before = books.meter.billed();
        drop(Toll::new(&account, h2::Part::of(besides)));
        assert_eq!(books.meter.billed() - before, nanos(besides), "in the end at the latest");
    }

    fn spin(time: Duration) {
        let start = cycles::now();
        while cycles::between(start, cycles::now()) < time {
            std::hint::spin_loop();
        }
    }
}
