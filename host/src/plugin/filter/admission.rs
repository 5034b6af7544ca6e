//! Whether a VM may be entered: its share of CPU time, and its breaker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::coarse_millis;
use crate::plugin::filter::account::Slice;
use crate::plugin::filter::{VmCell, VmSpec};
use crate::plugin::meter::{Broken, Entry, Meter, Refusal};
use crate::plugin::spec::FilterSpec;
use crate::telemetry::metrics::Held;

/// How often the log tells that a VM has used up its CPU time, in milliseconds.
const TELL: u64 = 10_000;

/// How often whoever waits for CPU time looks again.
const LOOK: Duration = Duration::from_millis(20);

/// What a VM on one worker may use, and what is known of it over time.
#[derive(Debug)]
pub(super) struct Books {
    /// What it may use.
    pub(super) meter: Meter,
    /// Whether it is the turn of its calls to clusters.
    pub(super) slice: Slice,
    /// What was billed for what connections did for its calls, in nanoseconds; it wraps around.
    pub(super) besides: Cell<u64>,
    /// Room for its calls that are on their way at once.
    pub(super) on_their_way: Semaphore,
    /// Counts it among those with an open breaker, while it is one.
    open: RefCell<Option<Held>>,
    /// When the log last told that its CPU time is used up.
    told_of_shortage: Cell<u64>,
    /// The last second in which failures of single streams were told of, and how many.
    told_of_failures: Cell<(u64, u32)>,
}

/// Failures of single streams that are told of in a second.
const TOLD: u32 = 10;

impl Books {
    pub(super) fn new(spec: &VmSpec) -> Self {
        // The largest share counts, and zero is no limit.
        let most = |share: fn(&FilterSpec) -> Duration| {
            let shares = spec.filters.iter().map(|spec| share(spec));
            shares
                .max_by_key(|share| if share.is_zero() { Duration::MAX } else { *share })
                .unwrap_or_default()
        };
        let calls = spec.filters.iter().map(|spec| spec.calls_at_once).max().unwrap_or_default();
        Self {
            on_their_way: Semaphore::new(calls.clamp(1, Semaphore::MAX_PERMITS)),
            ..Self::with_shares(most(|spec| spec.cpu_per_second), most(|spec| spec.long_calls_per_second))
        }
    }

    /// The books of a VM that may use so much CPU time in a second, and so much in long calls.
    pub(super) fn with_shares(per_second: Duration, long: Duration) -> Self {
        Self {
            meter: Meter::new(per_second, long, coarse_millis()),
            slice: Slice::default(),
            besides: Cell::new(0),
            on_their_way: Semaphore::new(Semaphore::MAX_PERMITS),
            open: RefCell::default(),
            told_of_shortage: Cell::new(0),
            told_of_failures: Cell::new((0, 0)),
        }
    }

    /// What was billed for what was done here and now, in nanoseconds; it wraps around.
    pub(super) fn guests(&self) -> u64 {
        self.meter.billed().wrapping_sub(self.besides.get())
    }

    /// Whether the failure of one stream is to be told of: those that fail by the thousand are not, one by one.
    pub(super) fn tells_of_failure(&self) -> bool {
        let now = coarse_millis() / 1_000;
        let told = match self.told_of_failures.get() {
            (second, told) if second == now => told,
            _ => 0,
        };
        self.told_of_failures.set((now, told.saturating_add(1)));
        told < TOLD
    }
}

impl VmCell {
    /// Whether a stream of a root context may begin. When there is no instance it may: the call meets that.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, root: u32) -> Result<Entry, Refusal> {
        if self.is_gone() && !self.spec.is_per_stream() {
            return Ok(Entry::Usual);
        }
        self.books.meter.admit(coarse_millis()).inspect_err(|&refusal| self.refused(root, refusal))
    }

    /// Whether the timer of a root context may be told of.
    pub(super) fn admits_tick(&self, root: u32) -> bool {
        self.books
            .meter
            .admit_event(coarse_millis())
            .inspect_err(|&refusal| self.refused(root, refusal))
            .is_ok()
    }

    /// Whether what runs may go on.
    #[inline]
    pub fn may_go_on(&self) -> bool {
        self.books.meter.may_go_on(coarse_millis)
    }

    /// Counts what a plugin is not called for.
    pub fn refused(&self, root: u32, refusal: Refusal) {
        let place = (root as usize).checked_sub(1);
        let Some((spec, usage)) =
            place.and_then(|place| self.spec.filters.get(place).zip(self.spec.usages.get(place)))
        else {
            return;
        };
        usage.refused(refusal).inc();
        let now = coarse_millis();
        if refusal == Refusal::Throttled && now >= self.books.told_of_shortage.get() {
            self.books.told_of_shortage.set(now.saturating_add(TELL));
            let (plugin, filter) = (&*spec.plugin, &*spec.name);
            let (second, stream, long) =
                (spec.cpu_per_second, spec.cpu_per_stream, spec.long_calls_per_second);
            tracing::warn!(
                plugin,
                filter,
                "a filter has used up its CPU time ({second:?} in a second, {stream:?} for one stream, {long:?} in a \
                 second beyond the first half millisecond of its calls; zero is no limit) and is not called for some; \
                 where it needs long calls, set its `scheduling: preemptible`"
            );
        }
    }

    /// An instance has failed, after so many nanoseconds of CPU time.
    pub(super) fn note_fault(&self, spent: u64) {
        let Broken::Opened(time) = self.books.meter.fault(spent, coarse_millis()) else { return };
        let usage = self.spec.usages.first();
        *self.books.open.borrow_mut() = usage.map(|usage| usage.breakers_open.hold());
        let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
        let digest = self.spec.digest;
        tracing::error!(plugin, %digest, "a plugin fails too often and is not called for {time:?}");
    }

    /// The stream that tried whether the plugin works again has ended well.
    pub fn trial_passed(&self) {
        if self.books.meter.trial_passed(coarse_millis()) {
            self.books.open.take();
            let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
            let digest = self.spec.digest;
            tracing::info!(plugin, %digest, "a plugin that failed too often is called again");
        }
    }

    /// Waits until what runs may go on. `None` when the VM is gone by then.
    pub(super) async fn when_it_may_go_on(me: Weak<Self>) -> Option<Rc<Self>> {
        loop {
            let cell = me.upgrade()?;
            if cell.may_go_on() {
                return Some(cell);
            }
            drop(cell);
            tokio::time::sleep(LOOK).await;
        }
    }
}
