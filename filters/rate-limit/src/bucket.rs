//! Buckets of tokens. A bucket is one number: the moment at which it will be full again (the generic cell rate
//! algorithm). So nothing has to fill it, and one that is full need not be kept.

use std::time::Duration;

/// How fast tokens come, and how many there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds from one token to the next.
    interval: u64,
    /// Tokens in a full bucket.
    burst: u64,
}

/// What came of asking for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// When the bucket will be full.
    pub(crate) full_at: u64,
    /// In how many nanoseconds that is.
    pub(crate) full_in: u64,
    /// Whole tokens that are left.
    pub(crate) left: u64,
    /// For how many nanoseconds there is none; 0 when one was taken.
    pub(crate) wait: u64,
}

impl Rate {
    /// So many tokens in such a time. `None` when that is none, or more than one a nanosecond, or when the bucket would
    /// take longer than a year to fill.
    pub(crate) fn new(tokens: u64, per: Duration, burst: u64) -> Option<Self> {
        const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;
        let interval =
            u64::try_from(per.as_nanos()).ok()?.checked_div(tokens).filter(|interval| *interval > 0)?;
        let fits = burst > 0 && interval.checked_mul(burst).is_some_and(|whole| whole <= YEAR);
        fits.then_some(Self { interval, burst })
    }

    pub(crate) fn burst(self) -> u64 {
        self.burst
    }

    /// Takes a token at a moment from a bucket that will be full at another. All moments are in nanoseconds of one
    /// clock; one that went back makes nobody wait longer than an empty bucket does.
    pub(crate) fn take(self, full_at: u64, now: u64) -> Taken {
        let whole = self.interval.saturating_mul(self.burst);
        let missing = full_at.saturating_sub(now).min(whole);
        let after = missing.saturating_add(self.interval);
        let wait = after.saturating_sub(whole);
        let full_in = if wait > 0 { missing } else { after };
        let left = whole.saturating_sub(full_in).checked_div(self.interval).unwrap_or(0);
        Taken { full_at: now.saturating_add(full_in), full_in, left, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(tokens: u64, burst: u64) -> Rate {
        Rate::new(tokens, Duration::from_secs(1), burst).expect("a rate")
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_one_token_an_interval() {
        let (rate, mut full_at, now) = (rate(2, 3), 0, 1000 * SECOND);
        for left in [2, 1, 0] {
            let taken = rate.take(full_at, now);
            assert_eq!((taken.wait, taken.left), (0, left));
            full_at = taken.full_at;
        }
        let refused = rate.take(full_at, now);
        assert_eq!((refused.wait, refused.left, refused.full_in), (SECOND / 2, 0, 3 * SECOND / 2));
        assert_eq!(refused.full_at, full_at, "who is refused takes nothing");
        assert_eq!(rate.take(full_at, now + SECOND / 2 - 1).wait, 1);
        assert_eq!(rate.take(full_at, now + SECOND / 2).wait, 0);
        assert_eq!(rate.take(full_at, now + 100 * SECOND).left, 2, "it does not overflow");
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_wait_longer_than_an_empty_bucket_does() {
        let rate = rate(1, 5);
        let taken = rate.take(1_000_000 * SECOND, 1000 * SECOND);
        assert_eq!((taken.wait, taken.full_at), (SECOND, 1005 * SECOND));
        assert_eq!(rate.take(taken.full_at, 1001 * SECOND).wait, 0);
        assert_eq!(rate.take(u64::MAX, u64::MAX).left, 4, "the end of time is no overflow");
    }

    #[test]
    fn a_rate_that_is_none_is_none() {
        for (tokens, per, burst) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (2_000_000_000, 1, 1), (1, 86_400, 366), (1, u64::MAX, 1)]
        {
            assert_eq!(Rate::new(tokens, Duration::from_secs(per), burst), None, "{tokens} {per} {burst}");
        }
    }
}
