//! What a VM may use over time on one worker: CPU time by the second, and the time that its failures take.
//!
//! It keeps the books and decides who is let in. It calls no guest and reads no clock: the time is handed in.

use std::cell::Cell;
use std::time::Duration;

/// Why a VM is not to be entered, though it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has used up its CPU time of late.
    Throttled,
    /// It has failed too often of late: its breaker is open.
    BreakerOpen,
}

impl Refusal {
    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::BreakerOpen => "breaker_open",
        }
    }

    /// As the details of a response have it.
    pub const fn details(self) -> &'static str {
        match self {
            Self::Throttled => "filter_throttled",
            Self::BreakerOpen => "filter_breaker_open",
        }
    }
}

/// How a stream is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// As usual.
    Usual,
    /// As the one that tries whether the VM works again.
    Trial,
}

/// What came of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The breaker stays closed.
    NotYet,
    /// It has opened, for so long.
    Opened(Duration),
}

/// The books of one VM on one worker. Times are milliseconds of a monotonic clock.
#[derive(Debug)]
pub struct Meter {
    share: Bucket,
    /// What calls may take beyond their first half millisecond.
    long: Bucket,
    breaker: Cell<Breaker>,
    /// All that was ever billed, in nanoseconds.
    billed: Cell<u64>,
}

impl Meter {
    /// The books of a VM that may use so much CPU time in a second, and so much of it in long calls. Zero is no limit.
    pub fn new(per_second: Duration, long: Duration, now: u64) -> Self {
        let (share, long) = (Bucket::new(per_second, now), Bucket::new(long, now));
        Self { share, long, breaker: Cell::default(), billed: Cell::new(0) }
    }

    /// Bills CPU time.
    #[inline]
    pub fn bill(&self, spent: u64) {
        self.share.take(spent);
        self.billed.set(self.billed.get().wrapping_add(spent));
    }

    /// Bills what calls took beyond their first half millisecond: everybody else has waited for that.
    #[inline]
    pub fn bill_long(&self, beyond: u64) {
        if beyond > 0 {
            self.long.take(beyond);
        }
    }

    /// All that was ever billed, in nanoseconds. It wraps around.
    pub fn billed(&self) -> u64 {
        self.billed.get()
    }

    /// Whether a stream may begin.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, now: u64) -> Result<Entry, Refusal> {
        if self.share.level(now) <= 0 || self.long.level(now) <= 0 {
            return Err(Refusal::Throttled);
        }
        let mut breaker = self.breaker.get();
        let entry = breaker.admit(now);
        self.breaker.set(breaker);
        entry
    }

    /// Whether a plugin may be told of what concerns no stream: its timer, first of all.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_event(&self, now: u64) -> Result<(), Refusal> {
        if self.share.level(now) <= 0 || self.long.level(now) <= 0 {
            return Err(Refusal::Throttled);
        }
        if self.breaker.get().is_open(now) { Err(Refusal::BreakerOpen) } else { Ok(()) }
    }

    /// Whether streams that run may go on: they may until as much is owed as there is to a second, so that a shortage
    /// is felt by those that come before those that are there.
    #[inline]
    pub fn may_go_on(&self, now: impl FnOnce() -> u64) -> bool {
        // The clock is read only where it matters.
        let overdrawn = |bucket: &Bucket| bucket.level.get() <= -bucket.capacity;
        if !overdrawn(&self.share) && !overdrawn(&self.long) {
            return true;
        }
        let now = now();
        [&self.share, &self.long].iter().all(|bucket| bucket.level(now) > -bucket.capacity)
    }

    /// A call ended an instance, after so many nanoseconds of CPU time.
    pub fn fault(&self, spent: u64, now: u64) -> Broken {
        let mut breaker = self.breaker.get();
        let broken = breaker.fault(spent, now);
        self.breaker.set(breaker);
        broken
    }

    /// The stream that was the trial has ended well. True when that closes the breaker.
    pub fn trial_passed(&self, now: u64) -> bool {
        let mut breaker = self.breaker.get();
        let closed = breaker.trial_passed(now);
        self.breaker.set(breaker);
        closed
    }
}

/// CPU time that fills up again: a second's worth at the most. It may be overdrawn, and then what is owed is paid first,
/// so that nothing is had for nothing in the long run.
#[derive(Debug)]
struct Bucket {
    capacity: i64,
    /// What is left, in nanoseconds.
    level: Cell<i64>,
    filled: Cell<u64>,
}

impl Bucket {
    fn new(per_second: Duration, now: u64) -> Self {
        let capacity = match i64::try_from(per_second.as_nanos()) {
            // No limit.
            Ok(0) | Err(_) => i64::MAX,
            Ok(capacity) => capacity,
        };
        Self { capacity, level: Cell::new(capacity), filled: Cell::new(now) }
    }

    #[inline]
    fn take(&self, spent: u64) {
        self.level.set(self.level.get().saturating_sub(i64::try_from(spent).unwrap_or(i64::MAX)));
    }

    fn level(&self, now: u64) -> i64 {
        let passed = i64::try_from(now.saturating_sub(self.filled.get())).unwrap_or(i64::MAX);
        let gained = (self.capacity / 1_000).saturating_mul(passed);
        self.filled.set(now);
        self.level.set(self.level.get().saturating_add(gained).min(self.capacity));
        self.level.get()
    }
}

/// CPU time of one stream. Most are over before they have used a second's worth, and never read the clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct StreamMeter {
    used: u64,
    since: u64,
}

impl StreamMeter {
    /// A stream that begins.
    pub fn new(now: u64) -> Self {
        Self { used: 0, since: now }
    }

    /// Bills CPU time. False when it is more than the stream may use by now.
    #[inline]
    pub fn bill(&mut self, spent: u64, per_second: Duration, now: impl FnOnce() -> u64) -> bool {
        self.used = self.used.saturating_add(spent);
        let limit = u64::try_from(per_second.as_nanos()).unwrap_or(u64::MAX);
        if self.used <= limit || per_second.is_zero() {
            return true;
        }
        let now = now();
        let earned = (limit / 1_000).saturating_mul(now.saturating_sub(self.since));
        self.used = self.used.saturating_sub(earned);
        self.since = now;
        self.used <= limit
    }
}

/// What the failures of a VM together may take of a worker's time: one part in two hundred.
const FAILURE_SHARE: u64 = 200;

/// What they may take at once, before the breaker opens, in nanoseconds.
const FAILURES_AT_ONCE: u64 = 10_000_000;

/// A failure is billed as so many nanoseconds at least: to clear up after one takes time, too.
const LEAST: u64 = 500_000;

/// How long the breaker stays open at least, the first time; twice as long each further time.
const FIRST_OPEN: u64 = 1_000;

/// The longest of these.
const LONGEST_OPEN: u64 = 60_000;

/// A breaker that stays closed for so long begins anew.
const FORGIVEN: u64 = 60_000;

/// A trial that has gone on for so long gives way to another: its stream may be one that never ends.
const TRIAL: u64 = 10_000;

/// Keeps a VM that fails from being entered. What its failures took is a debt, which the worker's time pays off at
/// [`FAILURE_SHARE`]; while it is too large nobody is let in.
#[derive(Debug, Clone, Copy, Default)]
struct Breaker {
    /// In nanoseconds, as it was at `at`.
    debt: u64,
    at: u64,
    state: State,
    /// How often it has opened in a row.
    opened: u32,
    closed_at: u64,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Closed,
    /// Until then.
    Open(u64),
    /// One stream tries, since then.
    HalfOpen(u64),
}

impl Breaker {
    fn is_open(&self, now: u64) -> bool {
        matches!(self.state, State::Open(until) if now < until)
    }

    fn admit(&mut self, now: u64) -> Result<Entry, Refusal> {
        match self.state {
            State::Closed => Ok(Entry::Usual),
            State::Open(until) if now < until => Err(Refusal::BreakerOpen),
            State::HalfOpen(since) if now < since + TRIAL => Err(Refusal::BreakerOpen),
            State::Open(_) | State::HalfOpen(_) => {
                self.state = State::HalfOpen(now);
                Ok(Entry::Trial)
            }
        }
    }

    fn fault(&mut self, spent: u64, now: u64) -> Broken {
        let paid = now.saturating_sub(self.at).saturating_mul(1_000_000) / FAILURE_SHARE;
        self.debt = self.debt.saturating_sub(paid).saturating_add(spent.max(LEAST));
        self.at = now;
        match self.state {
            State::Closed if self.debt <= FAILURES_AT_ONCE => return Broken::NotYet,
            State::Closed if now >= self.closed_at + FORGIVEN => self.opened = 0,
            State::Closed | State::Open(_) | State::HalfOpen(_) => {}
        }
        let least = FIRST_OPEN.saturating_mul(1 << self.opened.min(16)).min(LONGEST_OPEN);
        // Whatever the debt is, it is paid before anybody is let in.
        let time = least.max(self.debt.saturating_mul(FAILURE_SHARE) / 1_000_000);
        self.opened = self.opened.saturating_add(1);
        self.state = State::Open(now.saturating_add(time));
        Broken::Opened(Duration::from_millis(time))
    }

    fn trial_passed(&mut self, now: u64) -> bool {
        let trying = matches!(self.state, State::HalfOpen(_));
        if trying {
            self.state = State::Closed;
            self.closed_at = now;
        }
        trying
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn overruns_take_half_a_percent_of_the_time_however_fast_they_come() {
        for cost in [MS, 5 * MS, 40 * MS, 700 * MS] {
            let meter = Meter::new(Duration::from_secs(3600), Duration::ZERO, 0);
            let mut taken = 0;
            // An hour; whenever somebody is let in, it overruns.
            for now in 0..3_600_000 {
                if meter.admit(now).is_ok() {
                    taken += cost;
                    meter.fault(cost, now);
                    let bound = now * MS / 200 + FAILURES_AT_ONCE + cost;
                    assert!(taken <= bound, "{taken} of {bound} at {now} for overruns of {cost}");
                }
            }
            assert!(taken > 2 * cost, "the breaker lets somebody try again");
        }
    }

    #[test]
    fn an_open_breaker_lets_one_try_closes_when_that_goes_well_and_stays_open_longer_when_not() {
        let meter = Meter::new(Duration::from_secs(1), Duration::ZERO, 0);
        let Broken::Opened(first) = meter.fault(11 * MS, 0) else { panic!("it opens") };
        assert_eq!(first, Duration::from_millis(2_200), "until the debt is paid");
        assert_eq!(meter.admit(2_199), Err(Refusal::BreakerOpen));
        assert_eq!(meter.admit_event(2_199), Err(Refusal::BreakerOpen));
        assert_eq!(meter.admit(2_200), Ok(Entry::Trial));
        assert_eq!(meter.admit(2_201), Err(Refusal::BreakerOpen), "one at a time");
        assert_eq!(meter.fault(MS, 2_300), Broken::Opened(Duration::from_secs(2)));
        assert!(!meter.trial_passed(2_301), "the end of a trial that failed closes nothing");
        assert_eq!(meter.admit(4_300), Ok(Entry::Trial));
        assert_eq!(meter.admit(4_300 + TRIAL), Ok(Entry::Trial), "another, when the first never ends");
        assert!(meter.trial_passed(20_000));
        assert_eq!(meter.admit(20_000), Ok(Entry::Usual));
        assert_eq!(meter.fault(11 * MS, 21_000), Broken::Opened(Duration::from_secs(4)), "not forgiven yet");
        assert_eq!(meter.admit(25_000), Ok(Entry::Trial));
        assert!(meter.trial_passed(25_000));
        let forgiven = 25_000 + FORGIVEN;
        assert_eq!(meter.fault(11 * MS, forgiven), Broken::Opened(first), "a good while makes up for all");
    }

    #[test]
    fn a_share_is_refused_when_it_is_used_up_and_comes_back_with_the_time_but_not_beyond_a_second() {
        let meter = Meter::new(Duration::from_millis(500), Duration::ZERO, 0);
        meter.bill(499 * MS);
        assert_eq!(meter.admit(0), Ok(Entry::Usual));
        meter.bill(101 * MS);
        assert_eq!(meter.admit(0), Err(Refusal::Throttled));
        assert!(meter.may_go_on(|| 0), "what runs goes on");
        assert_eq!(meter.admit(200), Err(Refusal::Throttled), "the debt is paid, and no more");
        assert_eq!(meter.admit(201), Ok(Entry::Usual));
        meter.bill(600 * MS);
        assert!(!meter.may_go_on(|| 201), "now too much is owed");
        assert!(meter.may_go_on(|| 500));
        assert_eq!(meter.admit(1_000_000), Ok(Entry::Usual));
        meter.bill(500 * MS);
        assert_eq!(
            meter.admit(1_000_000),
            Err(Refusal::Throttled),
            "a long rest saves up no more than a second"
        );
    }

    #[test]
    fn long_calls_have_a_share_of_their_own_however_little_of_a_second_they_use() {
        let meter = Meter::new(Duration::from_secs(1), Duration::from_millis(20), 0);
        (0..19).for_each(|_| meter.bill_long(MS));
        assert_eq!(meter.admit(0), Ok(Entry::Usual));
        meter.bill_long(MS);
        assert_eq!(meter.admit(0), Err(Refusal::Throttled));
        assert_eq!(meter.admit_event(0), Err(Refusal::Throttled));
        assert!(meter.may_go_on(|| 0), "what runs goes on");
        assert_eq!(meter.admit(1), Ok(Entry::Usual), "it fills up again");
        meter.bill_long(21 * MS);
        assert!(!meter.may_go_on(|| 1), "now too much is owed");
        assert!(meter.may_go_on(|| 100));
    }

    #[test]
    fn a_stream_may_use_its_share_of_each_second_that_it_lives() {
        let limit = Duration::from_millis(100);
        let mut meter = StreamMeter::new(0);
        assert!(meter.bill(100 * MS, limit, || unreachable!("the clock is not needed")));
        assert!(!meter.bill(MS, limit, || 0));
        let mut slow = StreamMeter::new(0);
        assert!((1..1_000).all(|second| slow.bill(100 * MS, limit, || second * 1_000)));
    }
}
