//! Overload: how near the process is to what it may use, and what is given up for that.
//!
//! The control plane looks every so often ([`Gauges::look`]) and publishes a level. The data plane reads one number.

pub mod descriptors;
pub mod pages;
mod pressure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::coarse_millis;

pub use pressure::Gauges;

/// What is given up, by degrees: each level gives up what the ones before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Normal,
    /// Connections end with the answer to what was asked for on them.
    NoKeepalive,
    /// New requests are answered by 503.
    NoRequests,
    /// New connections are reset, and idle ones closed.
    NoConnections,
    /// The streams that hold the most are reset.
    Reset,
}

impl Level {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Normal, Self::NoKeepalive, Self::NoRequests, Self::NoConnections, Self::Reset];

    /// As logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::NoKeepalive => "no_keepalive",
            Self::NoRequests => "no_requests",
            Self::NoConnections => "no_connections",
            Self::Reset => "reset_streams",
        }
    }
}

/// How often a worker shows that it is not late.
pub const BEAT: Duration = Duration::from_millis(200);

/// What all threads know of the process's load.
#[derive(Debug)]
pub struct Overload {
    level: AtomicU8,
    /// Connections of all listeners.
    connections: AtomicU32,
    /// Those of them that have been silent for so long that they hold no buffers.
    silent: AtomicU32,
    /// When each worker last came round, in coarse milliseconds; 0 before it has begun and once it has ended.
    beats: Box<[AtomicU64]>,
    /// Whether each worker has been asked to shed, and has not come to it yet.
    asked: Box<[AtomicBool]>,
}

impl Overload {
    /// For a process with so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        let beats = (0..workers).map(|_| AtomicU64::new(0)).collect();
        let asked = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let (level, connections, silent) = Default::default();
        Arc::new(Self { level, connections, silent, beats, asked })
    }

    /// Whether so much is given up, or more.
    pub fn at_least(&self, level: Level) -> bool {
        self.level.load(Ordering::Relaxed) >= level as u8
    }

    /// Has this be given up from now on.
    pub fn publish(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Lets a connection in, unless there are `most` already; 0 is no limit.
    pub fn admit(self: &Arc<Self>, most: u32) -> Option<Admitted> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::clone(self));
        (most == 0 || before < most).then_some(admitted)
    }

    /// How many connections there are.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection as silent, until what is returned is dropped.
    pub fn fall_silent(self: &Arc<Self>) -> Silent {
        self.silent.fetch_add(1, Ordering::Relaxed);
        Silent(Arc::clone(self))
    }

    /// How many connections are silent.
    pub fn silent(&self) -> u32 {
        self.silent.load(Ordering::Relaxed)
    }

    /// A worker has come round.
    pub fn beat(&self, worker: usize) {
        self.set_beat(worker, coarse_millis());
    }

    /// A worker has ended.
    pub fn ended(&self, worker: usize) {
        self.set_beat(worker, 0);
    }

    fn set_beat(&self, worker: usize, at: u64) {
        if let Some(beat) = self.beats.get(worker) {
            beat.store(at, Ordering::Relaxed);
        }
    }

    /// Whether a worker is to be asked to shed: not again while it has not come to it.
    pub fn ask(&self, worker: usize) -> bool {
        self.asked.get(worker).is_some_and(|asked| !asked.swap(true, Ordering::Relaxed))
    }

    /// A worker sheds now.
    pub fn sheds(&self, worker: usize) {
        if let Some(asked) = self.asked.get(worker) {
            asked.store(false, Ordering::Relaxed);
        }
    }

    /// How late the workers are, even the one that is least: a filter that keeps one of them is no overload of all.
    fn delay(&self) -> Duration {
        let now = coarse_millis();
        let beats = self.beats.iter().map(|beat| beat.load(Ordering::Relaxed)).filter(|beat| *beat > 0);
        let shortest = beats.map(|beat| now.saturating_sub(beat)).min().unwrap_or(0);
        Duration::from_millis(shortest).saturating_sub(BEAT)
    }
}

/// A connection that was let in, until it is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Overload>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is silent, until this is dropped.
#[derive(Debug)]
pub struct Silent(Arc<Overload>);

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.silent.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_are_let_in_as_may_be() {
        let overload = Overload::new(1);
        let admitted: Vec<_> = (0..4).filter_map(|_| overload.admit(3)).collect();
        assert_eq!(admitted.len(), 3);
        drop(admitted);
        assert!(overload.admit(1).is_some(), "there is room again");
        assert!((0..100).map(|_| overload.admit(0)).all(|admitted| admitted.is_some()), "0 is no limit");
    }

    #[test]
    fn workers_are_late_when_none_comes_round_and_those_that_have_ended_do_not_count() {
        let overload = Overload::new(3);
        assert_eq!(overload.delay(), Duration::ZERO, "none has begun");
        overload.set_beat(0, coarse_millis() - 9_000);
        overload.set_beat(1, coarse_millis() - 5_000);
        let late = overload.delay();
        assert!(late >= Duration::from_millis(4_800) && late < Duration::from_millis(8_000), "{late:?}");
        overload.ended(1);
        assert!(overload.delay() >= Duration::from_millis(8_800));
        overload.beat(2);
        assert!(overload.delay() < Duration::from_millis(4_000), "one comes round");
    }
}
