//! Context ids: the host chooses them, one after the other, and both sides look things up by them.

use core::hash::Hasher;

/// Hashes context ids. Nobody else chooses them, so that it need only be quick.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: neighbours go far apart, in the upper bits too, which tables look at.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
