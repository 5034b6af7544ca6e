//! Where buckets lie: in shared data, in a number of slots that is fixed.
//!
//! Nothing in shared data can be removed, and clients choose the values that buckets are for. So a value does not get
//! a key of its own: a secret hash of it says in which slot its bucket lies, and each slot has room for a few. When it
//! has none left, the fullest bucket goes, of which least is forgotten.

use std::cell::OnceCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use weir_sdk::{Error, Result, random, shared_data};

use crate::bucket::Taken;
use crate::limit::Limit;

/// Buckets in a slot.
const WAYS: usize = 8;

/// The most slots of a limit: shared data holds 65,536 keys.
const MOST_SLOTS: u32 = 1 << 15;

/// The buckets of all limits.
#[derive(Debug)]
pub(crate) struct Store {
    slots: u32,
    secret: OnceCell<[u8; 16]>,
}

/// A bucket: the hash of the value that it is for, and when it will be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    hash: u64,
    full_at: u64,
}

impl Store {
    /// Room for so many buckets of each limit.
    ///
    /// # Errors
    /// When shared data would not hold them.
    pub(crate) fn new(max_keys: u32) -> Result<Self> {
        let ways = u32::try_from(WAYS).unwrap_or(1);
        let slots = max_keys.div_ceil(ways);
        if slots == 0 || slots > MOST_SLOTS {
            return Err(Error::new(format!(
                "`max_keys: {max_keys}` is out of range; use 1 to {}",
                MOST_SLOTS * ways
            )));
        }
        Ok(Self { slots, secret: OnceCell::new() })
    }

    /// Takes a token from the bucket for these values.
    ///
    /// # Errors
    /// When the host does not give or take shared data.
    pub(crate) fn take(&self, limit: &Limit, values: &[Vec<u8>], now: u64) -> Result<Taken> {
        let hash = hash(self.secret()?, values);
        let key = format!("{}/{}", limit.name, hash % u64::from(self.slots));
        let mut taken = None;
        shared_data::update(&key, |old| {
            let mut slot = read(old.unwrap_or_default());
            let before = slot.iter().find(|bucket| bucket.hash == hash).map_or(0, |bucket| bucket.full_at);
            let after = limit.rate.take(before, now);
            taken = Some(after);
            put(&mut slot, Bucket { hash, full_at: after.full_at }, now);
            write(&slot)
        })?;
        taken.ok_or_else(|| Error::new("shared data was not asked for"))
    }

    /// What nobody outside knows, and all instances do: with it nobody can tell which values share a slot.
    fn secret(&self) -> Result<&[u8; 16]> {
        if let Some(secret) = self.secret.get() {
            return Ok(secret);
        }
        let mut fresh = [0; 16];
        random::fill(&mut fresh)?;
        let mut agreed = fresh;
        shared_data::update("secret", |old| {
            agreed = old.and_then(|old| old.try_into().ok()).unwrap_or(fresh);
            agreed.to_vec()
        })?;
        Ok(self.secret.get_or_init(|| agreed))
    }
}

fn hash(secret: &[u8; 16], values: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(secret);
    for value in values {
        // With their lengths, so that `ab` and `c` are not `a` and `bc`.
        hasher.write_usize(value.len());
        hasher.write(value);
    }
    hasher.finish()
}

/// Bytes that are no slot are an empty one: an older version may have left them.
fn read(bytes: &[u8]) -> Vec<Bucket> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let bucket = |bytes: &[u8]| {
        let (hash, full_at) = bytes.split_at_checked(8)?;
        Some(Bucket { hash: number(hash)?, full_at: number(full_at)? })
    };
    bytes.chunks_exact(16).take(WAYS).filter_map(bucket).collect()
}

fn write(slot: &[Bucket]) -> Vec<u8> {
    slot.iter()
        .flat_map(|bucket| [bucket.hash.to_le_bytes(), bucket.full_at.to_le_bytes()])
        .flatten()
        .collect()
}

/// Puts a bucket into a slot, in the place of the one before, of those that are full, or of the fullest.
fn put(slot: &mut Vec<Bucket>, bucket: Bucket, now: u64) {
    slot.retain(|other| other.hash != bucket.hash && other.full_at > now);
    if slot.len() >= WAYS {
        let fullest = slot.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at).map(|(at, _)| at);
        if let Some(at) = fullest {
            slot.swap_remove(at);
        }
    }
    slot.push(bucket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_the_emptiest_buckets_and_none_that_is_full() {
        let mut slot = Vec::new();
        for hash in 1..=8 {
            put(&mut slot, Bucket { hash, full_at: 100 + hash }, 10);
        }
        assert_eq!(read(&write(&slot)), slot, "it is the same when it is read again");
        put(&mut slot, Bucket { hash: 9, full_at: 105 }, 10);
        let mut left: Vec<u64> = slot.iter().map(|bucket| bucket.hash).collect();
        left.sort_unstable();
        assert_eq!(left, [2, 3, 4, 5, 6, 7, 8, 9], "the fullest of those that were there went");
        put(&mut slot, Bucket { hash: 3, full_at: 200 }, 106);
        let mut left: Vec<u64> = slot.iter().map(|bucket| bucket.hash).collect();
        left.sort_unstable();
        assert_eq!(left, [3, 7, 8], "those that are full are not kept");
    }

    #[test]
    fn what_is_no_slot_is_an_empty_one() {
        assert_eq!(read(b""), []);
        assert_eq!(read(&[7; 15]), []);
        assert_eq!(read(&[7; 1000]).len(), WAYS);
    }

    #[test]
    fn values_are_told_apart_wherever_they_are_split() {
        let of = |values: &[&str]| {
            hash(&[1; 16], &values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["", "a"]), of(&["a", ""]));
        assert_ne!(of(&["a"]), hash(&[2; 16], &[b"a".to_vec()]), "without the secret it cannot be known");
    }

    #[test]
    fn room_has_its_bounds() {
        assert!(Store::new(0).expect_err("none").to_string().contains("out of range"));
        assert!(Store::new(300_000).expect_err("too much").to_string().contains("use 1 to 262144"));
        assert_eq!(Store::new(9).expect("two slots").slots, 2);
    }
}
