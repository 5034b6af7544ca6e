//! Looks on at the calls into one guest, for those who measure it. Nobody looks on in a proxy, and then it costs a look
//! at a field.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::cycles;

/// Who looks on at an instance. There is one for each, and all tell the same [`Samples`].
#[derive(Debug)]
pub struct Watch {
    /// Host functions that were called since the call into the guest began.
    pub host_calls: u64,
    /// Bytes that they passed to and fro since then, without numbers.
    pub bytes: u64,
    samples: Arc<Samples>,
}

/// What was seen of the calls into guests, by callback and in their order.
#[derive(Debug, Default)]
pub struct Samples(Mutex<BTreeMap<&'static str, Vec<Sample>>>);

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
    /// One that has seen nothing.
    pub fn new(samples: &Arc<Samples>) -> Self {
        Self { host_calls: 0, bytes: 0, samples: Arc::clone(samples) }
    }

    /// A call begins; what the cycle counter is to be subtracted from later.
    pub fn begin(&mut self) -> u64 {
        (self.host_calls, self.bytes) = (0, 0);
        cycles::now()
    }

    /// The call that began at `start` has ended.
    pub fn end(&mut self, callback: &'static str, start: u64) {
        let nanos = u64::try_from(cycles::between(start, cycles::now()).as_nanos()).unwrap_or(u64::MAX);
        let sample = Sample { nanos, host_calls: self.host_calls, bytes: self.bytes };
        let mut samples = self.samples.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.entry(callback).or_default().push(sample);
    }
}

impl Samples {
    /// The calls since this was last asked.
    pub fn take(&self) -> BTreeMap<&'static str, Vec<Sample>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
