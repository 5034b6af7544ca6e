//! What a guest may use: CPU time by the call, memory by the instance.

use std::time::Duration;

use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::clock::thread_cpu_time;

/// The CPU budget of the call that is running.
///
/// It is CPU time, not wall time: a thread that the kernel put aside must not cost an innocent filter its life.
/// Reading the thread's CPU clock takes a system call, so it is read only when an epoch has passed during the
/// call: the first time to note where the clock stands, then to compare.
#[derive(Debug, Default)]
pub struct Budget {
    limit: Duration,
    first_seen: Option<Duration>,
    /// Whether the last call was ended for overrunning.
    pub overrun: bool,
}

impl Budget {
    /// Begins a call.
    pub fn begin(&mut self, limit: Duration) {
        *self = Self { limit, first_seen: None, overrun: false };
    }

    /// An epoch has passed while the guest was running.
    pub fn epoch(&mut self) -> UpdateDeadline {
        let now = thread_cpu_time();
        let first = *self.first_seen.get_or_insert(now);
        if now.saturating_sub(first) >= self.limit {
            self.overrun = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(1)
    }

    /// CPU time since the first epoch of this call, when one has passed.
    pub fn spent(&self) -> Option<Duration> {
        self.first_seen.map(|first| thread_cpu_time().saturating_sub(first))
    }
}

/// The memory of one instance.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    /// Bytes that the guest's memory has.
    pub used: usize,
    /// Whether growth was refused since the flag was last cleared.
    pub refused: bool,
}

/// Elements that one table may have; large Go modules come close.
const TABLE_ELEMENTS: usize = 100_000;

impl Limiter {
    /// A limit in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: false }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = desired;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        1
    }
}
