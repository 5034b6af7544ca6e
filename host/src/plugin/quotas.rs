//! Quotas: what plugins make the host keep and do besides their own memory and time, and what they share.
//!
//! A pool is one number that all workers draw from; a limit belongs to whoever draws. What is refused is counted by
//! filter, and told once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use weir_abi::Status;

use crate::plugin::spec::FilterSpec;
use crate::telemetry::metrics::{Counter, Registry};
use crate::telemetry::seldom::{Seldom, seconds};

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// The memory of one instance.
    Memory,
    /// The memory of all instances of a plugin.
    MemoryPerPlugin,
    /// The memory of all plugins.
    MemoryTotal,
    /// The elements of a table.
    Table,
    /// The instances of a plugin.
    Instances,
    /// What the host holds for an instance: bodies, bytes of connections, replies.
    Held,
    /// Streams of an instance at a time.
    Streams,
    /// HTTP and gRPC calls that are under way.
    Calls,
    /// Lines and bytes of log in a second.
    Log,
    /// Shared data and queues of one scope.
    Shared,
    /// Shared data and queues of all scopes.
    SharedTotal,
}

impl Quota {
    const ALL: [Self; 11] = [
        Self::Memory,
        Self::MemoryPerPlugin,
        Self::MemoryTotal,
        Self::Table,
        Self::Instances,
        Self::Held,
        Self::Streams,
        Self::Calls,
        Self::Log,
        Self::Shared,
        Self::SharedTotal,
    ];

    /// As metrics and the log have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::MemoryPerPlugin => "memory_per_plugin",
            Self::MemoryTotal => "memory_total",
            Self::Table => "table",
            Self::Instances => "instances",
            Self::Held => "held",
            Self::Streams => "streams",
            Self::Calls => "calls",
            Self::Log => "log",
            Self::Shared => "shared",
            Self::SharedTotal => "shared_total",
        }
    }
}

/// Something that many draw from, in bytes or pieces.
#[derive(Debug, Default)]
pub struct Pool(AtomicUsize);

impl Pool {
    /// Takes some, unless more than `limit` would be out then. Whether it was taken.
    pub fn take(&self, amount: usize, limit: usize) -> bool {
        let more = |out: usize| out.checked_add(amount).filter(|out| *out <= limit);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Takes some whatever is out.
    pub fn take_anyway(&self, amount: usize) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, amount: usize) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// What a queue, or the shared data of a scope, may hold whatever others do, in bytes: nobody is to be left without any.
pub const SMALL: usize = 64 << 10;

/// What the host needs to keep a value besides its bytes, about.
pub const ENTRY: usize = 64;

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// The guest is told so.
    Status(Status),
    /// A quota has no more. The guest is told of an internal failure.
    Quota(Quota),
}

/// What the instances of one plugin draw from.
#[derive(Debug, Default)]
pub struct PluginPools {
    /// Bytes of memory.
    pub memory: Pool,
    /// Instances.
    pub instances: Pool,
}

/// The pools that the instances of a plugin draw from.
#[derive(Debug, Clone)]
pub struct Pools {
    /// The plugin's.
    pub plugin: Arc<PluginPools>,
    /// The memory of all plugins.
    pub all: Arc<Pool>,
}

/// What one instance draws from, and what it has of it. What it has goes back with it.
#[derive(Debug)]
pub struct Share {
    plugin: Arc<PluginPools>,
    all: Arc<Pool>,
    per_plugin: usize,
    total: usize,
    bytes: usize,
}

/// Instances that one plugin may have: half of all that there can be, so that no plugin takes the room of the others.
pub const MOST_INSTANCES: usize = crate::plugin::engine::SLOTS as usize / 2;

impl Share {
    /// The share of a new instance of a filter.
    ///
    /// # Errors
    /// When the plugin has as many as it may.
    pub fn new(pools: &Pools, spec: &FilterSpec) -> Result<Self, Quota> {
        let Pools { plugin, all } = pools.clone();
        if !plugin.instances.take(1, MOST_INSTANCES) {
            return Err(Quota::Instances);
        }
        let (per_plugin, total) = (spec.memory_per_plugin, spec.memory_total);
        Ok(Self { plugin, all, per_plugin, total, bytes: 0 })
    }

    /// Takes memory.
    ///
    /// # Errors
    /// Which quota has no more.
    pub fn take(&mut self, bytes: usize) -> Result<(), Quota> {
        if !self.plugin.memory.take(bytes, self.per_plugin) {
            return Err(Quota::MemoryPerPlugin);
        }
        if !self.all.take(bytes, self.total) {
            self.plugin.memory.give_back(bytes);
            return Err(Quota::MemoryTotal);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives memory back.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.plugin.memory.give_back(bytes);
        self.all.give_back(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
        self.plugin.instances.give_back(1);
    }
}

/// What one filter was refused, over all workers and versions, and its log of this second.
#[derive(Debug)]
pub struct Refusals {
    plugin: Box<str>,
    filter: Box<str>,
    counters: [(Counter, Seldom); Quota::ALL.len()],
    second: AtomicU64,
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

impl Refusals {
    /// What a filter was refused.
    pub fn new(registry: &Registry, plugin: &str, filter: &str) -> Self {
        let counter = |quota: Quota| {
            let labels = [("plugin", plugin), ("filter", filter), ("quota", quota.as_str())];
            let help = "What plugins were refused because a quota was used up.";
            (registry.counter("weir_plugin_quota_refused_total", help, &labels), Seldom::default())
        };
        Self {
            plugin: plugin.into(),
            filter: filter.into(),
            counters: Quota::ALL.map(counter),
            second: AtomicU64::new(0),
            lines: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Counts that something was refused.
    pub fn refuse(&self, quota: Quota) {
        let Some((counter, seldom)) = self.counters.get(quota as usize) else { return };
        counter.inc();
        if seldom.now() {
            let (plugin, filter, quota) = (&*self.plugin, &*self.filter, quota.as_str());
            tracing::warn!(plugin, filter, quota, "refused: a quota of the filter is used up");
        }
    }

    /// Whether a line of so many bytes may be logged in this second. One that may not is counted.
    pub fn may_log(&self, len: usize, spec: &FilterSpec) -> bool {
        let now = seconds();
        // Two threads may both begin a second; then a line more is logged than the quota has.
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.lines.store(0, Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
        }
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = lines < spec.log_lines && bytes.saturating_add(len) <= spec.log_bytes;
        if !fits {
            self.refuse(Quota::Log);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_up_to_the_limit_and_what_comes_back_can_be_taken_again() {
        let pool = Pool::default();
        assert!(pool.take(60, 100) && !pool.take(41, 100) && pool.take(40, 100));
        assert!(!pool.take(usize::MAX, usize::MAX), "no overflow");
        pool.give_back(60);
        assert!(pool.take(60, 100) && !pool.take(1, 100));
    }
}
