//! Time and log of a bed: a clock that stands still but for what somebody waits for, and lines that are kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use weir_abi::LogLevel;

use crate::plugin::outside::Outside;
use crate::plugin::services::FaultKind;
use crate::plugin::watch::{Samples, Watch};
use crate::testbed::seen::Line;

/// What plugins are told of the world, and what they say to it.
#[derive(Debug)]
pub struct World {
    began: SystemTime,
    /// Milliseconds since then.
    millis: AtomicU64,
    lines: Mutex<Vec<Line>>,
    failures: Mutex<Vec<String>>,
    /// The filter whose calls are looked on at, and what is seen of them.
    watched: Option<(String, Arc<Samples>)>,
}

impl World {
    /// A world that begins at a time of day, and in which somebody looks on at a filter's calls, or nobody.
    pub fn new(began: SystemTime, watched: Option<(String, Arc<Samples>)>) -> Self {
        let (lines, failures) = Default::default();
        Self { began, millis: AtomicU64::new(0), lines, failures, watched }
    }

    /// So many milliseconds have gone by since the beginning.
    pub fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn since(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// What was logged since this was last asked.
    pub fn take_lines(&self) -> Vec<Line> {
        std::mem::take(&mut lock(&self.lines))
    }

    /// How plugins failed since this was last asked.
    pub fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.failures))
    }
}

/// How long the clock that is never set has been going when a world begins: Go takes a clock that tells zero for a broken one.
const BEFORE: Duration = Duration::from_secs(1);

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside for World {
    fn wall(&self) -> SystemTime {
        self.began + self.since()
    }

    fn monotonic(&self) -> Duration {
        BEFORE + self.since()
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::Info
    }

    fn logged(&self, _: &str, level: LogLevel, message: &str) {
        if level >= LogLevel::Info {
            lock(&self.lines).push(Line { level, text: message.to_owned() });
        }
    }

    fn watch(&self, filter: &str) -> Option<Watch> {
        let (watched, samples) = self.watched.as_ref()?;
        (watched == filter).then(|| Watch::new(samples))
    }

    fn failed(&self, _: &str, kind: FaultKind, message: &str) {
        lock(&self.failures).push(format!("{}: {message}", kind.as_str()));
    }
}

/// Tells when a runtime has nothing to do any more: then time may go on.
#[derive(Debug, Default)]
pub struct Idle {
    waiting: Mutex<Option<Waker>>,
    found: AtomicBool,
}

impl Idle {
    /// The runtime is about to sleep. Whoever waits for that is woken, once.
    pub fn about_to_sleep(&self) {
        if let Some(waker) = lock(&self.waiting).take() {
            self.found.store(true, Ordering::Relaxed);
            waker.wake();
        }
    }

    /// Whether it was about to sleep since [`Idle::wait`]. Asked once for each.
    pub fn found(&self) -> bool {
        self.found.swap(false, Ordering::Relaxed)
    }

    /// Has somebody woken when it is about to sleep.
    pub fn wait(&self, waker: &Waker) {
        *lock(&self.waiting) = Some(waker.clone());
    }
}
