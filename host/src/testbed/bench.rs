//! What a plugin costs: the streams of a case, again and again, and each call into the guest with its time, its host calls
//! and the bytes that passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::filter::{Isolation, Scheduling};
use crate::plugin::watch::{Sample, Samples};
use crate::testbed::bed::{Bed, NotStarted, Setting, Workbench};
use crate::testbed::case::{Case, CaseFile};
use crate::testbed::run::{Cast, run_stream};

/// What the calls of one callback cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// How many calls there were for each run of the case.
    pub calls: f64,
    /// The median of their times, in nanoseconds.
    pub median: u64,
    /// What 99 of 100 take no longer than.
    pub p99: u64,
    /// Host calls for each.
    pub host_calls: f64,
    /// Bytes for each that pass to and fro.
    pub bytes: f64,
}

/// What a case costs, by callback, in the order of the contract's names.
pub type Costs = BTreeMap<&'static str, Cost>;

/// How the filter's instances are to be held, in the place of what the file says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Which streams share an instance.
    pub isolation: Option<Isolation>,
    /// How its calls share a worker.
    pub scheduling: Option<Scheduling>,
}

/// A case that is run again and again on one plugin.
pub struct Bench<'a> {
    file: &'a CaseFile,
    case: &'a Case,
    bed: Bed,
    seen: Arc<Samples>,
    runs: u64,
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

impl<'a> Bench<'a> {
    /// Starts the plugin, and warms it up.
    ///
    /// # Errors
    /// When it does not start, or a stream cannot be run.
    pub fn start(
        workbench: &Arc<Workbench>,
        plugins: &Cast,
        file: &'a CaseFile,
        case: &'a Case,
        manner: Manner,
    ) -> Result<Self, NotStarted> {
        let seen = Arc::<Samples>::default();
        let mut setting = Setting { watched: Some(Arc::clone(&seen)), ..plugins.setting(file, case) };
        let filter = &mut setting.filter.0;
        filter.isolation = manner.isolation.unwrap_or(filter.isolation);
        filter.scheduling = manner.scheduling.or(filter.scheduling);
        let bed = Bed::start(workbench, &plugins.tested, setting)?;
        let mut bench = Self { file, case, bed, seen, runs: 0, samples: BTreeMap::new() };
        bench.run(WARM_UP)?;
        (bench.runs, bench.samples) = (0, BTreeMap::new());
        Ok(bench)
    }

    /// Runs the case so many times.
    ///
    /// # Errors
    /// When a stream cannot be run.
    pub fn run(&mut self, times: u64) -> anyhow::Result<()> {
        // What happened while the plugin started is not the case's.
        drop(self.seen.take());
        for _ in 0..times {
            for step in self.case.streams() {
                run_stream(&mut self.bed, self.file, self.case, &step, &[])?;
            }
        }
        self.runs += times;
        for (callback, samples) in self.seen.take() {
            self.samples.entry(callback).or_default().extend(samples);
        }
        Ok(())
    }

    /// What was measured.
    pub fn costs(&self) -> Costs {
        let of =
            |(callback, samples): (&&'static str, &Vec<Sample>)| Some((*callback, cost(samples, self.runs)?));
        self.samples.iter().filter_map(of).collect()
    }
}

/// Runs before anything is measured.
const WARM_UP: u64 = 200;

fn cost(samples: &[Sample], runs: u64) -> Option<Cost> {
    let mut times: Vec<u64> = samples.iter().map(|sample| sample.nanos).collect();
    times.sort_unstable();
    let count = times.len() as f64;
    let mean = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64 / count;
    Some(Cost {
        calls: count / runs.max(1) as f64,
        median: *times.get(times.len() / 2)?,
        p99: *times.get(times.len() * 99 / 100)?,
        host_calls: mean(|sample| sample.host_calls),
        bytes: mean(|sample| sample.bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_the_median_of_times_and_the_mean_of_counts_for_each_run() {
        let sample = |nanos, host_calls| Sample { nanos, host_calls, bytes: 10 };
        let samples = [sample(5, 1), sample(1_000, 2), sample(7, 1), sample(6, 2)];
        let found = cost(&samples, 2).expect("there are samples");
        assert_eq!(found, Cost { calls: 2.0, median: 7, p99: 1_000, host_calls: 1.5, bytes: 10.0 });
        assert_eq!(cost(&[], 2), None);
    }
}
