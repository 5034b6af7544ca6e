//! Waiting for a while.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use weir_sdk::{http, timeout, timer};
//! # async fn example() -> weir_sdk::Result<()> {
//! timer::sleep(Duration::from_millis(100)).await;
//! let two_calls = async {
//!     http::call("a", http::Request::get("/")).await?;
//!     http::call("b", http::Request::get("/")).await
//! };
//! let answer = timeout(Duration::from_secs(1), two_calls).await??;
//! # Ok(())
//! # }
//! ```
//!
//! A plugin has one timer, by which all that wait are woken. The SDK sets it to the one who is next, and ends it when nobody
//! waits: a filter that never sleeps has none. Hosts count in milliseconds, and are late rather than early.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::by_id::ById;
use crate::error::{Error, Result};
use crate::{raw, task};

/// Ready after this long.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { duration, asleep: None }
}

/// Gives `future` this much time. An error when that was not enough; the future is dropped then, and with it the calls that it
/// waits for.
///
/// Calls have timeouts of their own, which cost no timer: [`crate::http::Request::timeout`].
///
/// # Errors
/// When the time is up.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output> {
    match task::race(future, sleep(duration)).await {
        task::First::Left(output) => Ok(output),
        task::First::Right(()) => Err(Error::new(format!("it took longer than {duration:?}"))),
    }
}

/// See [`sleep`].
#[derive(Debug)]
#[must_use = "nobody sleeps who does not await it"]
pub struct Sleep {
    duration: Duration,
    asleep: Option<Asleep>,
}

/// Whose timer, and the place among those who wait for it.
#[derive(Debug, Clone, Copy)]
struct Asleep {
    root: u32,
    place: Place,
}

/// When, in nanoseconds of the host's clock, and a number that tells those of one moment apart.
type Place = (u64, u32);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(asleep) = self.asleep else {
            let (root, until) = (task::root(), raw::monotonic().saturating_add(nanos(self.duration)));
            let place = TIMERS.with(|timers| {
                let mut timers = timers.borrow_mut();
                timers.get_or_insert_with(root, Timer::default).map(|timer| timer.add(until, cx))
            });
            self.asleep = place.map(|place| Asleep { root, place });
            return Poll::Pending;
        };
        TIMERS.with(|timers| match timers.borrow_mut().get_mut(asleep.root) {
            Some(timer) => timer.poll(asleep.place, cx),
            None => Poll::Ready(()),
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(Asleep { root, place }) = self.asleep {
            TIMERS.with(|timers| {
                if let Some(timer) = timers.borrow_mut().get_mut(root) {
                    timer.sleeping.remove(&place);
                }
            });
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The timer of one root context.
#[derive(Default)]
struct Timer {
    sleeping: BTreeMap<Place, Waker>,
    number: u32,
    /// Nanoseconds between two ticks that are the filter's own, and when the next one is due.
    own: Option<(u64, u64)>,
    /// For when the host's timer is set; `None` when it is not.
    set: Option<u64>,
    /// What sets it. Only who wants ticks brings it, so that a module where nobody does has nothing of it.
    tick: Option<fn(u32)>,
}

impl Timer {
    fn add(&mut self, until: u64, cx: &Context<'_>) -> Place {
        self.number = self.number.wrapping_add(1);
        let place = (until, self.number);
        self.sleeping.insert(place, cx.waker().clone());
        self.tick = Some(raw::set_tick);
        if self.set.is_none_or(|set| until < set) {
            self.arm(raw::monotonic());
        }
        place
    }

    fn poll(&mut self, place: Place, cx: &Context<'_>) -> Poll<()> {
        match self.sleeping.get_mut(&place) {
            Some(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            // It was woken.
            None => Poll::Ready(()),
        }
    }

    fn next(&self) -> Option<u64> {
        let first = self.sleeping.keys().next().map(|(until, _)| *until);
        first.into_iter().chain(self.own.map(|(_, next)| next)).min()
    }

    /// Sets the host's timer for whoever is next.
    fn arm(&mut self, now: u64) {
        let next = self.next();
        let period = next.map_or(0, |next| next.saturating_sub(now).div_ceil(NANOS_PER_MILLI).max(1));
        if let Some(tick) = self.tick
            && (next.is_some() || self.set.is_some())
        {
            tick(u32::try_from(period).unwrap_or(u32::MAX));
        }
        self.set = next;
    }

    /// Takes those whose time has come, and tells whether the filter's own is among them.
    fn due(&mut self, now: u64) -> (Vec<Waker>, bool) {
        // The host's clock may run a little ahead of its timer: who is due within the millisecond is due.
        let soon = now.saturating_add(NANOS_PER_MILLI / 2);
        let later = self.sleeping.split_off(&(soon.saturating_add(1), 0));
        let woken = std::mem::replace(&mut self.sleeping, later);
        let own = match &mut self.own {
            Some((period, next)) if *next <= soon => {
                *next = now.saturating_add(*period);
                true
            }
            _ => false,
        };
        (woken.into_values().collect(), own)
    }
}

/// The filter of this root context wants ticks of its own.
pub(crate) fn every(root: u32, period: Duration) {
    let (period, now) = (nanos(period), raw::monotonic());
    TIMERS.with(|timers| {
        let mut timers = timers.borrow_mut();
        if let Some(timer) = timers.get_or_insert_with(root, Timer::default) {
            timer.own = Some((period, now.saturating_add(period)));
            timer.tick = Some(raw::set_tick);
            timer.arm(now);
        }
    });
}

/// The host's timer. Wakes those whose time has come, and tells whether the filter's own has.
pub(crate) fn ticked(root: u32) -> bool {
    let due =
        TIMERS.with(|timers| timers.borrow_mut().get_mut(root).map(|timer| timer.due(raw::monotonic())));
    let Some((woken, own)) = due else { return false };
    woken.into_iter().for_each(Waker::wake);
    own
}

/// After a tick, when everybody has had his turn.
pub(crate) fn rearm(root: u32) {
    TIMERS.with(|timers| {
        if let Some(timer) = timers.borrow_mut().get_mut(root) {
            timer.arm(raw::monotonic());
        }
    });
}

/// A root context has ended.
pub(crate) fn delete(root: u32) {
    let gone = TIMERS.with(|timers| timers.borrow_mut().remove(root));
    drop(gone);
}

const NANOS_PER_MILLI: u64 = 1_000_000;

thread_local! {
    static TIMERS: RefCell<ById<Timer>> = const { RefCell::new(ById::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer() -> Timer {
        Timer { own: Some((10 * NANOS_PER_MILLI, 10 * NANOS_PER_MILLI)), ..Timer::default() }
    }

    #[test]
    fn the_timer_is_set_for_whoever_is_next() {
        let (mut timer, cx) = (timer(), Context::from_waker(Waker::noop()));
        assert_eq!(timer.next(), Some(10 * NANOS_PER_MILLI));
        let place = timer.add(3 * NANOS_PER_MILLI, &cx);
        timer.add(20 * NANOS_PER_MILLI, &cx);
        assert_eq!(timer.next(), Some(3 * NANOS_PER_MILLI));
        timer.sleeping.remove(&place);
        assert_eq!(timer.next(), Some(10 * NANOS_PER_MILLI), "who is gone wakes nobody");
    }

    #[test]
    fn those_whose_time_has_come_are_woken_and_the_others_sleep_on() {
        let (mut timer, cx) = (timer(), Context::from_waker(Waker::noop()));
        let (first, second) = (timer.add(5 * NANOS_PER_MILLI, &cx), timer.add(15 * NANOS_PER_MILLI, &cx));
        let (woken, own) = timer.due(10 * NANOS_PER_MILLI);
        assert_eq!((woken.len(), own), (1, true));
        assert!(timer.poll(first, &cx).is_ready() && timer.poll(second, &cx).is_pending());
        assert_eq!(timer.own, Some((10 * NANOS_PER_MILLI, 20 * NANOS_PER_MILLI)));
    }
}
