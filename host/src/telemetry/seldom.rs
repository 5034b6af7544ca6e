//! What happens often and is to be said seldom.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets one line a second through, over all threads, so that a flood is one line a second too.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether the line is to be said now.
    pub fn now(&self) -> bool {
        // 0 is never; the first second is 1.
        let now = seconds() + 1;
        let last = self.0.load(Ordering::Relaxed);
        last < now && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Seconds since somebody first asked.
pub fn seconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_one_line_is_let_through_for_each_second() {
        let (seldom, began) = (Seldom::default(), seconds());
        let said = (0..10_000).filter(|_| seldom.now()).count() as u64;
        assert!(said >= 1 && said <= seconds() - began + 1, "{said} lines");
    }
}
