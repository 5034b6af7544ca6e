//! Shared data: what the filters of one scope keep for all of their instances, on every worker and across swaps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weir_abi::Status;

use crate::plugin::quotas::{ENTRY, Pool, Quota, SMALL, Unwritten};

/// The shared data of one scope: keys, values, and a number that changes with every write.
#[derive(Debug)]
pub struct Space {
    values: Mutex<Values>,
    /// What all scopes draw from.
    all: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Values {
    by_key: HashMap<Box<[u8]>, (Bytes, u32)>,
    /// Of all keys and values.
    bytes: usize,
}

/// Keys that a scope may have: it is the host's memory, and nothing in the contract ever takes a key away.
const MOST_KEYS: usize = 1 << 16;

/// The bytes of all keys and values that a scope may have.
pub const MOST_BYTES: usize = 64 << 20;

impl Space {
    /// The data of a scope that has none yet. `all`: what all scopes draw from.
    pub fn new(all: Arc<Pool>) -> Self {
        Self { values: Mutex::default(), all }
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value and its compare-and-swap number, never 0.
    pub fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        self.lock().by_key.get(key).cloned()
    }

    /// Writes a value; `cas` 0 is unconditional. A key that is not there takes any `cas`, as in Envoy. `total`: bytes that
    /// all scopes may have together.
    ///
    /// # Errors
    /// [`Status::CasMismatch`] when somebody wrote in between; the quota, when the scope would have too many keys or bytes,
    /// or all of them would. What is there stays.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32, total: usize) -> Result<(), Unwritten> {
        let mut values = self.lock();
        let keys = values.by_key.len();
        let Values { by_key, bytes } = &mut *values;
        let full = Err(Unwritten::Quota(Quota::Shared));
        match by_key.get_mut(key) {
            Some((_, current)) if cas != 0 && cas != *current => Err(Unwritten::Status(Status::CasMismatch)),
            Some((old, current)) => {
                // A value that does not grow is always taken.
                let grown = value.len().saturating_sub(old.len());
                if grown > 0 {
                    if *bytes + grown > MOST_BYTES {
                        return full;
                    }
                    self.draw(*bytes + keys * ENTRY, grown, total)?;
                }
                self.all.give_back(old.len().saturating_sub(value.len()));
                *bytes = *bytes - old.len() + value.len();
                *old = Bytes::copy_from_slice(value);
                *current = current.wrapping_add(1).max(1);
                Ok(())
            }
            None => {
                let size = key.len() + value.len();
                if keys >= MOST_KEYS || *bytes + size > MOST_BYTES {
                    return full;
                }
                self.draw(*bytes + keys * ENTRY, size + ENTRY, total)?;
                *bytes += size;
                by_key.insert(key.into(), (Bytes::copy_from_slice(value), 1));
                Ok(())
            }
        }
    }

    /// Draws from what all scopes have; `own`: what this one has of it.
    fn draw(&self, own: usize, amount: usize, total: usize) -> Result<(), Unwritten> {
        if own + amount <= SMALL {
            self.all.take_anyway(amount);
        } else if !self.all.take(amount, total) {
            return Err(Unwritten::Quota(Quota::SharedTotal));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Result<(), Unwritten> = Err(Unwritten::Quota(Quota::Shared));

    #[test]
    fn a_write_with_a_stale_number_is_refused_and_the_value_stays() {
        let space = Space::new(Arc::default());
        space.set(b"k", b"1", 0, usize::MAX).expect("unconditional");
        let (_, cas) = space.get(b"k").expect("there");
        space.set(b"k", b"2", cas, usize::MAX).expect("the number matches");
        assert_eq!(space.set(b"k", b"3", cas, usize::MAX), Err(Unwritten::Status(Status::CasMismatch)));
        assert_eq!(space.get(b"k").expect("there").0, "2");
        assert_eq!(space.set(b"new", b"x", 99, usize::MAX), Ok(()));
    }
    #[test]
    fn a_scope_that_is_full_takes_no_more_keys_and_what_is_there_can_be_changed() {
        let space = Space::new(Arc::default());
        for key in 0..MOST_KEYS {
            space.set(&key.to_le_bytes(), b"", 0, usize::MAX).expect("there is room");
        }
        assert_eq!(space.set(b"one more", b"", 0, usize::MAX), FULL);
        assert_eq!(space.set(&7_usize.to_le_bytes(), b"changed", 0, usize::MAX), Ok(()));
        assert_eq!(space.get(&7_usize.to_le_bytes()).expect("there").0, "changed");
    }

    #[test]
    fn a_scope_holds_so_many_bytes_and_counts_those_that_are_written_over_no_more() {
        let space = Space::new(Arc::default());
        let half = vec![0; MOST_BYTES / 2 - 1];
        space.set(b"a", &half, 0, usize::MAX).expect("there is room");
        space.set(b"b", &half, 0, usize::MAX).expect("there is room");
        assert_eq!(space.set(b"c", b"", 0, usize::MAX), FULL, "a key is bytes, too");
        assert_eq!(space.set(b"a", &vec![1; MOST_BYTES / 2], 0, usize::MAX), FULL);
        assert_eq!(space.get(b"a"), Some((half.clone().into(), 1)), "what is there stays");
        assert_eq!(space.set(b"a", &half, 1, usize::MAX), Ok(()), "the same again");
        assert_eq!(space.set(b"a", b"", 2, usize::MAX), Ok(()));
        assert_eq!(space.set(b"c", b"fits now", 0, usize::MAX), Ok(()));
    }

    #[test]
    fn all_scopes_together_hold_so_many_bytes_and_each_has_a_little_in_any_case() {
        let all = Arc::new(Pool::default());
        let (hoard, other) = (Space::new(Arc::clone(&all)), Space::new(Arc::clone(&all)));
        let total = 1 << 20;
        let none_left = Err(Unwritten::Quota(Quota::SharedTotal));
        assert_eq!(hoard.set(b"k", &vec![0; total - 1 - ENTRY], 0, total), Ok(()));
        assert_eq!(hoard.set(b"l", b"", 0, total), none_left);
        assert_eq!(other.set(b"k", &vec![0; SMALL], 0, total), none_left);
        assert_eq!(other.set(b"k", &vec![0; SMALL / 2], 0, total), Ok(()), "a little");
        assert_eq!(other.set(b"k", &vec![0; SMALL], 0, total), none_left, "it grows no more");
        // What is written over makes room.
        assert_eq!(hoard.set(b"k", b"", 0, total), Ok(()));
        assert_eq!(other.set(b"k", &vec![0; total / 2], 0, total), Ok(()));
        assert_eq!(other.set(b"k", b"", 0, total), Ok(()));
        assert!(all.take(total - 2 * (1 + ENTRY), total) && !all.take(1, total), "nothing is lost of it");
    }
}
