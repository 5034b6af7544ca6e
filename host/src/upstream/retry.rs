//! How many requests may be tried again: a share of those that there are, so that a failing cluster is not asked twice
//! as much as it was when it was well.

use std::cell::Cell;

/// The budget of a cluster on one worker.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

/// What a retry costs. A request earns as many of these as the share has hundredths.
const COST: u64 = 100;

/// The retries that are there at first, so that what has little traffic is tried again, too.
const FIRST: u64 = 10;

/// The retries that can be saved up.
const MOST: u64 = 100;

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(FIRST * COST))
    }
}

impl Budget {
    /// There was a request; `share`: the retries that there may be for a hundred of them.
    pub fn earn(&self, share: u8) {
        self.0.set((self.0.get() + u64::from(share)).min(MOST * COST));
    }

    /// Takes a retry out of it, when there is one left. A share of nothing is no retry, not even at first.
    pub fn take(&self, share: u8) -> bool {
        let left = self.0.get().checked_sub(COST).filter(|_| share > 0);
        left.inspect(|left| self.0.set(*left)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_is_tried_again_and_a_few_at_first() {
        let budget = Budget::default();
        let retries = (0..1_000).filter(|_| {
            budget.earn(20);
            budget.take(20)
        });
        assert_eq!(retries.count(), 210);
        assert!(!Budget::default().take(0));
    }
}
