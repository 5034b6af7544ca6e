//! Data that all instances of a filter share: those of all workers, and those before and after a reload.
//!
//! ```
//! use weir_sdk::shared_data;
//!
//! # fn example() -> weir_sdk::Result<()> {
//! shared_data::set("motto", "be kind")?;
//! let seen = shared_data::add("seen", 1)?;
//! // Whoever writes in between is seen: the change is made again, to what is there then.
//! shared_data::update("last ten", |old| {
//!     let mut all: Vec<u64> = old.and_then(|old| serde_json::from_slice(old).ok()).unwrap_or_default();
//!     all.push(seen);
//!     all.drain(..all.len().saturating_sub(10));
//!     serde_json::to_vec(&all).unwrap_or_default()
//! })?;
//! # Ok(())
//! # }
//! # assert!(example().is_err(), "without a host there is no shared data");
//! ```

use weir_abi::Status;

use crate::error::{Error, Explain, Result};
use crate::raw;

/// A value, with the number that tells whether somebody has written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    cas: u32,
}

/// Reads a value; `None` when there is none.
///
/// # Errors
/// When the host does not answer.
pub fn get(key: &str) -> Result<Option<Versioned>> {
    let found = raw::shared_data(key).explain(|| format!("reading shared data `{key}`"))?;
    Ok(found.map(|(value, cas)| Versioned { value, cas }))
}

/// Writes a value, whatever was there.
///
/// # Errors
/// When the host does not take it.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<()> {
    raw::set_shared_data(key, value.as_ref(), 0).explain(|| format!("writing shared data `{key}`"))
}

/// Writes a value if nobody has written since `old` was read. False when somebody has.
///
/// # Errors
/// When the host does not take it.
pub fn compare_and_set(key: &str, old: &Versioned, value: impl AsRef<[u8]>) -> Result<bool> {
    match raw::set_shared_data(key, value.as_ref(), old.cas) {
        Ok(()) => Ok(true),
        Err(Status::CasMismatch) => Ok(false),
        Err(status) => Err(Error::host(format!("writing shared data `{key}`"), status)),
    }
}

/// Writes a value where there is none. False when somebody has written one meanwhile.
///
/// A key that is not there takes any number; one that is there takes its own only, which counts up from 1 with every
/// write and does not come to the largest.
fn create(key: &str, value: &[u8]) -> Result<bool> {
    compare_and_set(key, &Versioned { value: Vec::new(), cas: u32::MAX }, value)
}

/// Changes a value: `change` gets what is there and returns what is to be there, again if somebody wrote in
/// between.
///
/// # Errors
/// When the host does not answer, or when others write so often that it does not succeed in a hundred attempts.
pub fn update(key: &str, mut change: impl FnMut(Option<&[u8]>) -> Vec<u8>) -> Result<()> {
    for _ in 0..100 {
        match get(key)? {
            None => {
                if create(key, &change(None))? {
                    return Ok(());
                }
            }
            Some(old) => {
                if compare_and_set(key, &old, change(Some(&old.value)))? {
                    return Ok(());
                }
            }
        }
    }
    Err(Error::new(format!("shared data `{key}` is written too often by others")))
}

/// A number that all count together. Adds `by`, and returns what it is then; one that is not there, or that somebody else has
/// written something else to, begins at 0.
///
/// # Errors
/// As [`update`].
pub fn add(key: &str, by: u64) -> Result<u64> {
    let mut sum = 0;
    update(key, |old| {
        let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes);
        sum = old.saturating_add(by);
        sum.to_le_bytes().to_vec()
    })?;
    Ok(sum)
}
