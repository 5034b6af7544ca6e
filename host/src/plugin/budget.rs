//! What a guest may use: CPU time by the call, memory by the instance.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::clock::thread_cpu_time;
use crate::plugin::quotas::{Quota, Refusals, Share};

/// The CPU budget of the call that is running.
///
/// It is CPU time, not wall time: a thread that the kernel put aside must not cost an innocent filter its life.
/// Reading the thread's CPU clock takes a system call, so it is read only when an epoch has passed during the
/// call: the first time to note where the clock stands, then to compare.
///
/// That clock also goes on while the processor is busy with interrupts, or is put aside by a hypervisor. Such a gap is
/// one jump between two epochs, and a loop is there at every epoch: so it takes several looks to tell an overrun.
#[derive(Debug, Default)]
pub struct Budget {
    limit: Duration,
    first_seen: Option<Duration>,
    looks: u32,
    /// Whether the last call was ended for overrunning.
    pub overrun: bool,
}

/// The looks, an epoch apart or more, that it takes to end a call.
pub const LOOKS: u32 = 4;

impl Budget {
    /// Begins a call.
    pub fn begin(&mut self, limit: Duration) {
        *self = Self { limit, first_seen: None, looks: 0, overrun: false };
    }

    /// An epoch has passed while the guest was running. `next`: after how many epochs it is to be looked at again.
    pub fn epoch(&mut self, next: u64) -> UpdateDeadline {
        let now = thread_cpu_time();
        let first = *self.first_seen.get_or_insert(now);
        self.looks += 1;
        if now.saturating_sub(first) >= self.limit && self.looks >= LOOKS {
            self.overrun = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(next)
    }

    /// How much CPU time a call has.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// CPU time since the first epoch of this call, when one has passed.
    pub fn spent(&self) -> Option<Duration> {
        self.first_seen.map(|first| thread_cpu_time().saturating_sub(first))
    }
}

/// What of a call's CPU time counts as long: others wait for it.
const LONG: Duration = Duration::from_micros(500);

/// Short calls in a row after which no more is suspected.
const CLEARED: u32 = 256;

/// CPU time that calls take beyond their first half millisecond.
///
/// The time between two readings of the cycle counter tells that a call may have been long, and not that it was: the thread may
/// have been put aside. So that only makes the guest a suspect, and a suspect's calls are measured by the thread's CPU clock,
/// which takes a system call at either end.
#[derive(Debug, Default)]
pub struct LongCalls {
    /// How many short calls it takes until the guest is no suspect any more.
    suspect: u32,
    /// In nanoseconds, since it was last billed.
    beyond: u64,
}

impl LongCalls {
    /// A call begins. Where the CPU clock stands, when that is to be known.
    #[inline]
    pub fn begin(&self) -> Option<Duration> {
        (self.suspect > 0).then(thread_cpu_time)
    }

    /// A call has ended. `measured`: whether the time is that of the CPU clock.
    #[inline]
    pub fn end(&mut self, spent: Duration, measured: bool) {
        match spent.checked_sub(LONG) {
            Some(beyond) => {
                self.suspect = CLEARED;
                if measured {
                    self.beyond =
                        self.beyond.saturating_add(u64::try_from(beyond.as_nanos()).unwrap_or(u64::MAX));
                }
            }
            None if measured => self.suspect = self.suspect.saturating_sub(1),
            None => {}
        }
    }

    /// A call that took so much has left so much to be carried, in nanoseconds: it is encoded in one go behind the call, and others
    /// wait for both.
    #[inline]
    pub fn carries(&mut self, spent: Duration, carried: u64) {
        let left = u64::try_from(LONG.saturating_sub(spent).as_nanos()).unwrap_or(u64::MAX);
        self.beyond = self.beyond.saturating_add(carried.saturating_sub(left));
    }

    /// Takes what is to be billed.
    #[inline]
    pub fn take(&mut self) -> u64 {
        std::mem::take(&mut self.beyond)
    }
}

/// The memory of one instance, within what its plugin and all plugins have.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    share: Share,
    refusals: Arc<Refusals>,
    /// What the growth that is under way takes, should it not come about.
    growth: usize,
    /// Elements of all its tables.
    elements: usize,
    /// Bytes that the guest's memory has.
    pub used: usize,
    /// Whether growth was refused since the flag was last cleared.
    pub refused: bool,
    /// Which quota the last growth was refused by.
    pub quota: Quota,
}

/// Elements that the tables of an instance may have together; large Go modules come close.
const TABLE_ELEMENTS: usize = 100_000;

impl Limiter {
    /// A limit in bytes, for an instance that draws from `share`.
    pub fn new(limit: usize, share: Share, refusals: Arc<Refusals>) -> Self {
        let (used, growth, elements, refused) = (0, 0, 0, false);
        Self { limit, share, refusals, growth, elements, used, refused, quota: Quota::Memory }
    }

    fn take(&mut self, desired: usize) -> Result<(), Quota> {
        if desired > self.limit {
            return Err(Quota::Memory);
        }
        self.growth = desired.saturating_sub(self.used);
        self.share.take(self.growth)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if let Err(quota) = self.take(desired) {
            (self.refused, self.quota) = (true, quota);
            self.refusals.refuse(quota);
            return Ok(false);
        }
        self.used = desired;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.used -= self.growth;
        self.share.give_back(std::mem::take(&mut self.growth));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_sub(current).saturating_add(desired);
        if elements > TABLE_ELEMENTS {
            self.refusals.refuse(Quota::Table);
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_looks_long_makes_a_suspect_and_only_what_the_cpu_clock_tells_counts() {
        let (long, short) = (LONG + Duration::from_micros(7), Duration::from_micros(3));
        let mut calls = LongCalls::default();
        assert_eq!(calls.begin(), None, "nobody is measured without a reason");
        calls.end(long, false);
        assert_eq!(calls.take(), 0, "the thread may have been put aside");
        assert!(calls.begin().is_some());
        calls.end(long, true);
        assert_eq!((calls.take(), calls.take()), (7_000, 0));
        (0..CLEARED).for_each(|_| calls.end(short, true));
        assert_eq!((calls.begin(), calls.take()), (None, 0), "it has made up for that");
    }

    #[test]
    fn what_a_call_leaves_to_be_carried_counts_with_the_call_beyond_half_a_millisecond() {
        let mut calls = LongCalls::default();
        let carried = |calls: &mut LongCalls, spent, carried| {
            calls.carries(Duration::from_micros(spent), carried);
            calls.take()
        };
        assert_eq!(carried(&mut calls, 50, 400_000), 0);
        assert_eq!(carried(&mut calls, 200, 400_000), 100_000, "others wait for both");
        assert_eq!(
            carried(&mut calls, 700, 400_000),
            400_000,
            "what the call took beyond is billed as the call's"
        );
        assert_eq!(carried(&mut calls, 700, 0), 0);
        assert_eq!(calls.begin(), None, "it makes nobody a suspect: it is no guess");
    }

    #[test]
    fn one_jump_of_the_clock_is_no_overrun_but_a_guest_that_stays_over_its_limit_is_ended() {
        let mut budget = Budget::default();
        // Everything is over this limit: as if the processor had been put aside since the first look.
        budget.begin(Duration::ZERO);
        for look in 1..LOOKS {
            assert!(matches!(budget.epoch(1), UpdateDeadline::Continue(1)), "look {look}");
        }
        assert!(matches!(budget.epoch(1), UpdateDeadline::Interrupt));
        assert!(budget.overrun);
        budget.begin(Duration::from_secs(3600));
        assert!((0..100).all(|_| matches!(budget.epoch(1), UpdateDeadline::Continue(1))));
    }
}
