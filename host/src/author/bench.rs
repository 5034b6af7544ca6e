//! `weir plugin bench`: what a plugin's callbacks cost in its cases, and perhaps another build of it beside.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::{Map, Value as Json, json};

use crate::author::test::{Plugins, Wanted, plugin_of, read_cases};
use crate::testbed::{Bench, Cost, Costs, Manner, NotStarted};

/// What was measured of a case.
#[derive(Debug)]
pub struct Measured {
    /// The case.
    pub case: String,
    /// What it costs.
    pub costs: Costs,
    /// What it costs the other plugin.
    pub against: Option<Costs>,
}

/// How the runs are spread: what disturbs the machine for a while meets both plugins.
const ROUNDS: u64 = 10;

/// Runs cases `runs` times, and those of another plugin between them.
///
/// # Errors
/// What is wrong with the files, or why a plugin cannot be run.
pub fn bench(
    wanted: &Wanted,
    against: Option<&PathBuf>,
    manner: Manner,
    runs: u64,
) -> anyhow::Result<Vec<Measured>> {
    let mut plugins = Plugins::new()?;
    let mut measured = Vec::new();
    for (path, file, _) in read_cases(&wanted.paths)? {
        let plugin = plugins.load(&plugin_of(&path, &file, wanted)?)?;
        let plugin = plugins.cast(plugin, &file)?;
        let other = against.map(|against| plugins.load(against)).transpose()?;
        let other = other.map(|other| plugins.cast(other, &file)).transpose()?;
        let picked = |name: &str| wanted.only.as_ref().is_none_or(|part| name.contains(part));
        for case in file.cases.iter().filter(|case| case.refused.is_none() && picked(&case.name)) {
            let start = |plugin| match Bench::start(plugins.workbench(), plugin, &file, case, manner) {
                Ok(bench) => Ok(bench),
                Err(NotStarted::Plugin { error, .. }) => {
                    bail!("{}: the plugin does not start: {error}", &*case.name)
                }
                Err(NotStarted::Other(error)) => Err(error),
            };
            let mut bench = start(&plugin)?;
            let mut beside = other.as_ref().map(start).transpose()?;
            for _ in 0..ROUNDS {
                bench.run(runs.div_ceil(ROUNDS))?;
                beside.iter_mut().try_for_each(|beside| beside.run(runs.div_ceil(ROUNDS)))?;
            }
            let (costs, against) = (bench.costs(), beside.map(|beside| beside.costs()));
            measured.push(Measured { case: case.name.value.clone(), costs, against });
        }
    }
    if measured.is_empty() {
        bail!("no case can be measured: there is none, or none with this in its name");
    }
    Ok(measured)
}

impl Measured {
    /// For scripts.
    pub fn to_json(&self) -> Json {
        let all = |costs: &Costs| {
            costs.iter().map(|(name, cost)| ((*name).to_owned(), of(cost))).collect::<Map<_, _>>()
        };
        json!({
            "case": self.case,
            "callbacks": all(&self.costs),
            "against": self.against.as_ref().map(all),
        })
    }
}

fn of(cost: &Cost) -> Json {
    json!({
        "calls": cost.calls,
        "median_ns": cost.median,
        "p99_ns": cost.p99,
        "host_calls": cost.host_calls,
        "bytes": cost.bytes,
    })
}
