//! Counters, gauges and histograms, and their Prometheus text.
//!
//! A series is made of shards, one for each worker and one for the control plane, each on its own cache line,
//! so that counting is never contended. Series are looked up when a snapshot is built, never on the path of a
//! request; asking for the same name and labels again returns the same series.

mod present;
mod versions;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// All series of the process.
#[derive(Debug)]
pub struct Registry {
    shards: usize,
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Counter),
    /// A counter of nanoseconds, which is exposed in seconds.
    Time(Counter),
    Gauge(Gauge),
    Peak(Peak),
    Histogram(Histogram),
}

/// A pair of label name and value.
pub type Label<'a> = (&'a str, &'a str);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Has the calling thread count into the shard `worker + 1`; other threads share shard 0.
pub fn use_worker_shard(worker: usize) {
    SHARD.set(worker + 1);
}

impl Registry {
    /// A registry for a process with so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { shards: workers + 1, families: Mutex::default() })
    }

    /// A number that only goes up.
    pub fn counter(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Counter {
        let make = || Series::Counter(Counter(Shards::new(self.shards)));
        match self.series(name, help, Kind::Counter, labels, make) {
            Series::Counter(counter) => counter,
            Series::Time(_) | Series::Gauge(_) | Series::Peak(_) | Series::Histogram(_) => {
                Counter(Shards::new(self.shards))
            }
        }
    }

    /// Shows a counter that was made elsewhere; the first one of a name and labels stays.
    pub fn adopt(&self, name: &str, help: &'static str, labels: &[Label<'_>], counter: Counter) {
        self.series(name, help, Kind::Counter, labels, || Series::Counter(counter));
    }

    /// A sum of durations: counted in nanoseconds, exposed in seconds.
    pub fn time(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Counter {
        let make = || Series::Time(Counter(Shards::new(self.shards)));
        match self.series(name, help, Kind::Counter, labels, make) {
            Series::Time(counter) => counter,
            Series::Counter(_) | Series::Gauge(_) | Series::Peak(_) | Series::Histogram(_) => {
                Counter(Shards::new(self.shards))
            }
        }
    }

    /// A number that goes up and down.
    pub fn gauge(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Gauge {
        let make = || Series::Gauge(Gauge(Shards::new(self.shards)));
        match self.series(name, help, Kind::Gauge, labels, make) {
            Series::Gauge(gauge) => gauge,
            Series::Counter(_) | Series::Time(_) | Series::Peak(_) | Series::Histogram(_) => {
                Gauge(Shards::new(self.shards))
            }
        }
    }

    /// The largest of many numbers.
    pub fn peak(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Peak {
        match self.series(name, help, Kind::Gauge, labels, || Series::Peak(Peak::default())) {
            Series::Peak(peak) => peak,
            Series::Counter(_) | Series::Time(_) | Series::Gauge(_) | Series::Histogram(_) => Peak::default(),
        }
    }

    /// A distribution of durations.
    pub fn histogram(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Histogram {
        self.distribution(name, help, labels, MICROS)
    }

    /// A distribution of plain numbers.
    pub fn numbers(&self, name: &str, help: &'static str, labels: &[Label<'_>]) -> Histogram {
        self.distribution(name, help, labels, 1.0)
    }

    fn distribution(&self, name: &str, help: &'static str, labels: &[Label<'_>], scale: f64) -> Histogram {
        let make = || Series::Histogram(Histogram::new(self.shards, scale));
        match self.series(name, help, Kind::Histogram, labels, make) {
            Series::Histogram(histogram) => histogram,
            Series::Counter(_) | Series::Time(_) | Series::Gauge(_) | Series::Peak(_) => {
                Histogram::new(self.shards, scale)
            }
        }
    }

    /// Finds or makes a series. A name that already stands for another kind gets a series that is not exposed.
    fn series(
        &self,
        name: &str,
        help: &'static str,
        kind: Kind,
        labels: &[Label<'_>],
        make: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family =
            families.entry(name.to_owned()).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        if family.kind != kind {
            return make();
        }
        family.series.entry(label_text(labels)).or_insert_with(make).clone()
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.values_mut().for_each(versions::fold);
        let mut out = String::new();
        for (name, family) in &*families {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, series) in &family.series {
                match series {
                    Series::Counter(counter) => {
                        let _ = writeln!(out, "{name}{} {}", braced(labels), counter.value());
                    }
                    Series::Time(counter) => {
                        let seconds = Duration::from_nanos(counter.value()).as_secs_f64();
                        let _ = writeln!(out, "{name}{} {seconds}", braced(labels));
                    }
                    Series::Gauge(gauge) => {
                        let _ = writeln!(out, "{name}{} {}", braced(labels), gauge.value());
                    }
                    Series::Peak(peak) => {
                        let _ = writeln!(out, "{name}{} {}", braced(labels), peak.value());
                    }
                    Series::Histogram(histogram) => histogram.render(name, labels, &mut out),
                }
            }
        }
        out
    }
}

fn label_text(labels: &[Label<'_>]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// One number for each shard, each alone on its cache line.
#[derive(Debug, Clone)]
struct Shards(Arc<[Shard]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

impl Shards {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| Shard::default()).collect())
    }

    /// Adds to the calling thread's shard, wrapping: a decrement is an addition of its two's complement.
    fn add(&self, amount: u64) {
        if let Some(shard) = self.0.get(SHARD.get()).or_else(|| self.0.first()) {
            shard.0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, shard| sum.wrapping_add(shard.0.load(Ordering::Relaxed)))
    }
}

/// A number that only goes up.
#[derive(Debug, Clone)]
pub struct Counter(Shards);

impl Counter {
    /// One that belongs to no registry yet, for what happens seldom: threads contend for it.
    pub fn alone() -> Self {
        Self(Shards::new(1))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.add(amount);
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.0.sum()
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(Shards);

impl Gauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.add(amount as u64);
    }

    /// Adds one until the guard is dropped.
    pub fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }

    /// Sets the value. Only one thread may set a gauge at a time.
    pub fn set(&self, value: i64) {
        self.add(value.wrapping_sub(self.value()));
    }

    /// The sum over all threads.
    pub fn value(&self) -> i64 {
        self.0.sum() as i64
    }
}

/// The largest of many numbers, over all threads. For what happens seldom: threads contend for it.
#[derive(Debug, Clone, Default)]
pub struct Peak(Arc<AtomicU64>);

impl Peak {
    /// There was this number, too.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// The largest so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a gauge, given back on drop.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// A distribution, in buckets.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Arc<[Shards]>,
    sum: Shards,
    /// What is counted for one of what is exposed.
    scale: f64,
}

/// Durations are counted in microseconds and exposed in seconds.
const MICROS: f64 = 1e6;

/// The upper bounds of the buckets: for durations, from 100 µs to a minute.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 15_000_000, 60_000_000,
];

impl Histogram {
    fn new(shards: usize, scale: f64) -> Self {
        let buckets = (0..=BOUNDS.len()).map(|_| Shards::new(shards)).collect();
        Self { buckets, sum: Shards::new(shards), scale }
    }

    /// Records a duration.
    pub fn record(&self, duration: Duration) {
        self.record_value(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records a number: for durations, of microseconds.
    pub fn record_value(&self, value: u64) {
        let bucket = BOUNDS.partition_point(|&bound| bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.sum.add(value);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Shards::sum).sum()
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.sum();
            let bound = BOUNDS.get(at).map_or("+Inf".to_owned(), |&bound| self.exposed(bound));
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum{} {}", braced(labels), self.exposed(self.sum.sum()));
        let _ = writeln!(out, "{name}_count{} {total}", braced(labels));
    }

    fn exposed(&self, value: u64) -> String {
        format!("{}", value as f64 / self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_labels_are_the_same_series_summed_over_threads() {
        let registry = Registry::new(2);
        let counter = registry.counter("weir_test_total", "Tests.", &[("listener", "a")]);
        counter.inc();
        let again = registry.counter("weir_test_total", "Tests.", &[("listener", "a")]);
        std::thread::spawn(move || {
            use_worker_shard(1);
            again.add(2);
        })
        .join()
        .expect("the thread counts");
        assert_eq!(counter.value(), 3);
    }

    #[test]
    fn the_text_has_help_type_labels_and_cumulative_buckets() {
        let registry = Registry::new(1);
        registry.counter("weir_a_total", "As.", &[("x", "say \"hi\"\n")]).inc();
        registry.gauge("weir_b", "Bs.", &[]).set(-4);
        let histogram = registry.histogram("weir_c_seconds", "Cs.", &[("route", "r")]);
        histogram.record(Duration::from_micros(200));
        histogram.record(Duration::from_secs(90));
        let text = registry.render();
        for line in [
            "# HELP weir_a_total As.",
            "# TYPE weir_a_total counter",
            r#"weir_a_total{x="say \"hi\"\n"} 1"#,
            "weir_b -4",
            r#"weir_c_seconds_bucket{route="r",le="0.0001"} 0"#,
            r#"weir_c_seconds_bucket{route="r",le="0.00025"} 1"#,
            r#"weir_c_seconds_bucket{route="r",le="+Inf"} 2"#,
            r#"weir_c_seconds_count{route="r"} 2"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_held_gauge_is_given_back() {
        let gauge = Registry::new(1).gauge("weir_g", "Gs.", &[]);
        let held = gauge.hold();
        assert_eq!(gauge.value(), 1);
        drop(held);
        assert_eq!(gauge.value(), 0);
    }
}
