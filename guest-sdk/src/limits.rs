//! Limits to how often something may happen.
//!
//! ```
//! use std::time::Duration;
//!
//! use weir_sdk::limits::{self, TokenBucket};
//!
//! # fn example() -> weir_sdk::Result<()> {
//! // On each worker: ten in a second, and fifty at once.
//! let bucket = TokenBucket::new(10.0, 50.0);
//! assert!(bucket.take());
//!
//! // Over all workers: a hundred in a minute.
//! if !limits::shared("requests of ann", 100, Duration::from_secs(60))? {
//!     weir_sdk::info!("too many");
//! }
//! # Ok(())
//! # }
//! # assert!(example().is_err(), "without a host there is no shared data");
//! ```

use std::cell::Cell;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::{raw, shared_data};

/// A bucket of tokens on this worker: so many are added each second, up to so many, and each event takes one.
///
/// It is the filter's own, so that each worker has one. For a limit over all workers see [`shared`].
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: Cell<f64>,
    filled: Cell<u64>,
}

impl TokenBucket {
    /// A full bucket, which takes `burst` tokens and gets `per_second`.
    #[must_use]
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, tokens: Cell::new(burst), filled: Cell::new(raw::monotonic()) }
    }

    /// Takes a token; false when there is none.
    pub fn take(&self) -> bool {
        self.take_at(raw::monotonic())
    }

    fn take_at(&self, now: u64) -> bool {
        let passed = Duration::from_nanos(now.saturating_sub(self.filled.replace(now))).as_secs_f64();
        let tokens = (self.tokens.get() + passed * self.per_second).min(self.burst);
        let taken = tokens >= 1.0;
        self.tokens.set(if taken { tokens - 1.0 } else { tokens });
        taken
    }
}

/// Counts an event under `key` over all workers, by shared data, and tells whether there were at most `most` of them in this
/// window of time. A window begins at a multiple of its length, so that up to twice as many come together around its
/// end.
///
/// # Errors
/// When the host does not answer, or when all others count so often that it does not come to it.
pub fn shared(key: &str, most: u64, window: Duration) -> Result<bool> {
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    let window =
        raw::time().map_err(|status| Error::host("asking for the time", status))? / 1_000_000 / millis;
    let mut count = 0;
    shared_data::update(key, |old| {
        count = next_count(old, window);
        [window.to_le_bytes(), count.to_le_bytes()].concat()
    })?;
    Ok(count <= most)
}

/// The count with one event more, of this window.
fn next_count(old: Option<&[u8]>, window: u64) -> u64 {
    let old = old.and_then(|old| Some((old.first_chunk::<8>()?, old.last_chunk::<8>()?)));
    match old {
        Some((of, count)) if u64::from_le_bytes(*of) == window => {
            u64::from_le_bytes(*count).saturating_add(1)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_comes_in() {
        let bucket = TokenBucket::new(10.0, 2.0);
        let millis = |millis: u64| millis * 1_000_000;
        assert_eq!([0, 0, 0].map(|at| bucket.take_at(at)), [true, true, false]);
        assert!(!bucket.take_at(millis(90)) && bucket.take_at(millis(110)) && !bucket.take_at(millis(120)));
        assert_eq!(
            [0, 0, 0].map(|_| bucket.take_at(millis(5000))),
            [true, true, false],
            "it is full at its burst"
        );
    }

    #[test]
    fn a_window_that_is_over_counts_for_nothing() {
        let stored = [7_u64.to_le_bytes(), 41_u64.to_le_bytes()].concat();
        assert_eq!(
            (next_count(Some(&stored), 7), next_count(Some(&stored), 8), next_count(None, 7)),
            (42, 1, 1)
        );
        assert_eq!(next_count(Some(b"nonsense"), 7), 1);
    }
}
