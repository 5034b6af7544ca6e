//! Looks on at the calls into one guest, for those who measure it. Nobody looks on in a proxy, and then it costs a look
//! at a field.

use std::collections::BTreeMap;

use crate::clock::cycles;

/// What was seen of the calls into a guest.
#[derive(Debug, Default)]
pub struct Watch {
    /// Host functions that were called since the call into the guest began.
    pub host_calls: u64,
    /// Bytes that they passed to and fro since then, without numbers.
    pub bytes: u64,
    calls: BTreeMap<&'static str, Vec<Sample>>,
}

/// One call into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How long it took.
    pub nanos: u64,
    /// Host functions that it called.
    pub host_calls: u64,
    /// Bytes that they passed to and fro, without numbers.
    pub bytes: u64,
}

impl Watch {
    /// A call begins; what the cycle counter is to be subtracted from later.
    pub fn begin(&mut self) -> u64 {
        (self.host_calls, self.bytes) = (0, 0);
        cycles::now()
    }

    /// The call that began at `start` has ended.
    pub fn end(&mut self, callback: &'static str, start: u64) {
        let nanos = u64::try_from(cycles::between(start, cycles::now()).as_nanos()).unwrap_or(u64::MAX);
        let sample = Sample { nanos, host_calls: self.host_calls, bytes: self.bytes };
        self.calls.entry(callback).or_default().push(sample);
    }

    /// The calls since this was last asked, by callback and in their order.
    pub fn take(&mut self) -> BTreeMap<&'static str, Vec<Sample>> {
        std::mem::take(&mut self.calls)
    }
}
