//! Several things at once: waiting for all of them, for the first of them, and work that is no stream's.
//!
//! There is no runtime to choose and none to start. A future is polled when what it waits for has come.
//!
//! ```no_run
//! use weir_sdk::task::First;
//! use weir_sdk::{http, join, race, spawn, timer};
//! # use std::time::Duration;
//! # async fn example() -> weir_sdk::Result<()> {
//! let ask = |cluster: &str| http::call(cluster, http::Request::get("/"));
//!
//! // Both, side by side.
//! let (one, two) = join(ask("one"), ask("two")).await;
//! weir_sdk::info!("{} and {}", one?.status(), two?.status());
//!
//! // Whichever is faster; the other is given up.
//! match race(ask("one"), timer::sleep(Duration::from_millis(20))).await {
//!     First::Left(answer) => weir_sdk::info!("{}", answer?.status()),
//!     First::Right(()) => weir_sdk::info!("it took too long"),
//! }
//!
//! // Nobody waits for this, and it goes on when the stream has ended.
//! let told = ask("audit");
//! spawn(async { drop(told.await) });
//! # Ok(())
//! # }
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::raw;

/// Awaits both.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(move |cx| {
        poll_once(a.as_mut(), &mut first, cx);
        poll_once(b.as_mut(), &mut second, cx);
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls a future until it has given its output.
fn poll_once<F: Future>(future: Pin<&mut F>, output: &mut Option<F::Output>, cx: &mut Context<'_>) {
    if output.is_none()
        && let Poll::Ready(ready) = future.poll(cx)
    {
        *output = Some(ready);
    }
}

/// Awaits all of them; the outputs are in the futures' order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |cx| {
        for (future, output) in &mut all {
            poll_once(future.as_mut(), output, cx);
        }
        if all.iter().any(|(_, output)| output.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(all.drain(..).filter_map(|(_, output)| output).collect())
    })
    .await
}

/// Awaits the faster one, and drops the other.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> First<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(move |cx| match a.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(First::Left(output)),
        Poll::Pending => b.as_mut().poll(cx).map(First::Right),
    })
    .await
}

/// Which of two was faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First<A, B> {
    /// The one that was named first. It is, too, when both are ready.
    Left(A),
    /// The other one.
    Right(B),
}

/// Has a future run by itself: what it does outlives the stream that began it, and ends with the filter. Use it for what
/// many streams need, a list of keys say, with a [`Signal`] for those who wait for it.
///
/// It acts for the filter and not for a stream: it can call, sleep, log and share, and sees no headers and no body. It
/// begins once the callback that spawned it is through.
///
/// The filter must have an `async fn` among its callbacks: without one nothing wakes its futures.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let root = root();
    let id = BACKGROUND.with(|background| {
        let lane = LANE.get();
        LANE.set(lane.wrapping_add(1).max(FIRST_LANE));
        let id = Id { context: root, lane };
        background.borrow_mut().insert(id, Some(Box::pin(future)));
        id
    });
    wake(id);
}

/// Tells all who wait that something has come about.
#[derive(Default, Clone)]
pub struct Signal(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    /// How often it was given.
    given: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Gives the signal to all who wait just now.
    pub fn give(&self) {
        self.0.given.set(self.0.given.get().wrapping_add(1));
        let wakers = std::mem::take(&mut *self.0.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready when the signal is given the next time.
    pub fn wait(&self) -> impl Future<Output = ()> + use<> {
        let (waiting, seen) = (Rc::clone(&self.0), self.0.given.get());
        poll_fn(move |cx| {
            if waiting.given.get() != seen {
                return Poll::Ready(());
            }
            let mut wakers = waiting.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("given", &self.0.given.get()).finish()
    }
}

/// Which future: one of the two halves of a stream, or one that is no stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) context: u32,
    pub(crate) lane: u32,
}

/// The lanes before it are halves of streams.
pub(crate) const FIRST_LANE: u32 = 2;

struct Waking(Id);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        wake(self.0);
    }
}

/// What wakes a future.
pub(crate) fn waker(id: Id) -> Waker {
    Arc::new(Waking(id)).into()
}

fn wake(id: Id) {
    WOKEN.with(|woken| {
        let mut woken = woken.borrow_mut();
        if !woken.contains(&id) {
            woken.push(id);
        }
    });
}

/// The next future that is to be polled.
pub(crate) fn take_woken() -> Option<Id> {
    WOKEN.with(|woken| {
        let mut woken = woken.borrow_mut();
        (!woken.is_empty()).then(|| woken.remove(0))
    })
}

/// It is polled now, whether it was woken or not.
pub(crate) fn is_polled(id: Id) {
    WOKEN.with(|woken| woken.borrow_mut().retain(|other| *other != id));
}

/// Polls a future that is no stream's.
pub(crate) fn poll_background(id: Id) {
    let taken = BACKGROUND.with(|background| background.borrow_mut().get_mut(&id).and_then(Option::take));
    let Some(mut future) = taken else { return };
    enter(id.context);
    if raw::set_effective_context(id.context).is_ok()
        && future.as_mut().poll(&mut Context::from_waker(&waker(id))).is_pending()
    {
        let pending = BACKGROUND.with(|background| match background.borrow_mut().get_mut(&id) {
            Some(place) => place.replace(future).is_none(),
            None => false,
        });
        if pending {
            return;
        }
    }
    let gone = BACKGROUND.with(|background| background.borrow_mut().remove(&id));
    drop(gone);
}

/// A root context has ended, and with it what runs for it.
pub(crate) fn delete(root: u32) {
    let gone = BACKGROUND.with(|background| {
        let mut background = background.borrow_mut();
        let mut theirs = background.split_off(&Id { context: root, lane: 0 });
        let mut others = theirs.split_off(&Id { context: root.saturating_add(1), lane: 0 });
        background.append(&mut others);
        theirs
    });
    drop(gone);
}

/// The root context that is being served.
pub(crate) fn root() -> u32 {
    ROOT.get()
}

/// From now on this root context is served.
pub(crate) fn enter(root: u32) {
    ROOT.set(root);
}

type Background = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static ROOT: Cell<u32> = const { Cell::new(0) };
    /// For the next future that is no stream's.
    static LANE: Cell<u32> = const { Cell::new(FIRST_LANE) };
    static WOKEN: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
    /// A future is out of its place while it is polled.
    static BACKGROUND: RefCell<BTreeMap<Id, Option<Background>>> = const { RefCell::new(BTreeMap::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn both_and_all_are_awaited_and_the_first_wins() {
        assert_eq!(now(join(async { 1 }, async { "two" })), Poll::Ready((1, "two")));
        assert!(now(join(async { 1 }, std::future::pending::<()>())).is_pending());
        assert_eq!(now(join_all([1, 2, 3].map(std::future::ready))), Poll::Ready(vec![1, 2, 3]));
        assert_eq!(now(race(std::future::pending::<()>(), async { 2 })), Poll::Ready(First::Right(2)));
    }

    #[test]
    fn a_signal_wakes_those_who_wait_and_is_not_kept_for_those_who_come_later() {
        let signal = Signal::default();
        let id = Id { context: 9, lane: FIRST_LANE };
        let (own, mut waits) = (waker(id), pin!(signal.wait()));
        let mut cx = Context::from_waker(&own);
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        signal.give();
        assert_eq!(take_woken(), Some(id));
        assert!(waits.as_mut().poll(&mut cx).is_ready());
        assert!(now(signal.wait()).is_pending());
    }
}
