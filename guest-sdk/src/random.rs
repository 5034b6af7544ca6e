//! Random numbers. Each comes from the host: nothing of them is kept in the plugin, so that with `isolation: stream` no two
//! streams, which are copies of one instance, draw the same.
//!
//! ```
//! # fn example() -> weir_sdk::Result<()> {
//! let id = format!("{:016x}", weir_sdk::random::number()?);
//! # Ok(())
//! # }
//! ```
//!
//! That does not hold of what keeps a state of its own. A generator that is seeded in `new`, and the keys of a
//! [`std::collections::HashMap`], are the same in all copies: draw from here in a callback instead.

use crate::error::{Explain, Result};
use crate::raw;

/// Fills a buffer with random bytes.
///
/// # Errors
/// When the host has none to give.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    raw::random(bytes).explain(|| format!("drawing {} random bytes", bytes.len()))
}

/// A random number of 64 bits.
///
/// # Errors
/// When the host has none to give.
pub fn number() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
