//! Between making a snapshot and publishing it: instances are started, each configuration is tried.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::problem::{Place, Problem};
use crate::config::{AccessLogTarget, Config};
use crate::plugin::filter::VmSpec;
use crate::plugin::instance::{Instance, StartError};
use crate::snapshot::{Made, Snapshot};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::sink::Losses;

/// A snapshot that can be published.
pub struct Prepared {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// For each worker the instances of every VM that is new.
    pub instances: Vec<Instances>,
}

/// Instances, by VM.
pub type Instances = HashMap<u64, Vec<Box<Instance>>>;

/// A VM that did not start.
pub struct NotStarted {
    /// The VM.
    pub vm: Arc<VmSpec>,
    /// Where its filter stands in the configuration.
    pub place: Place,
    /// Why.
    pub error: StartError,
}

impl NotStarted {
    /// As a problem of the configuration.
    pub fn problem(&self, config: &Config) -> Problem {
        let plugin = self.vm.filters.first().map_or("", |spec| &*spec.plugin);
        config.problem(&self.place, format!("plugin `{plugin}` ({}): {}", self.vm.digest, self.error))
    }
}

/// Starts the instances of a snapshot.
///
/// # Errors
/// Every problem: those that the snapshot was made with, and those of plugins that refuse.
pub async fn prepare(config: &Config, made: Made, workers: usize) -> Result<Prepared, Vec<Problem>> {
    let mut problems = made.problems;
    let (instances, failures) = start_all(&made.snapshot, made.new_vms, workers).await;
    problems.extend(failures.iter().map(|failure| failure.problem(config)));
    if problems.is_empty() { Ok(Prepared { snapshot: made.snapshot, instances }) } else { Err(problems) }
}

/// Starts the instances of each VM for each worker, off the control plane's thread. A VM whose first instance does
/// not start is not tried again.
pub async fn start_all(
    snapshot: &Snapshot,
    vms: Vec<(Arc<VmSpec>, Place)>,
    workers: usize,
) -> (Vec<Instances>, Vec<NotStarted>) {
    let clusters = Arc::clone(&snapshot.cluster_names);
    let work = move || {
        let mut instances: Vec<Instances> = (0..workers).map(|_| HashMap::new()).collect();
        let mut failures = Vec::new();
        for (vm, place) in vms {
            for own in &mut instances {
                let started = (0..vm.instances()).map(|_| vm.start(&clusters).map(Box::new));
                match started.collect() {
                    Ok(all) => drop(own.insert(vm.id, all)),
                    Err(error) => {
                        failures.push(NotStarted { vm: Arc::clone(&vm), place, error });
                        break;
                    }
                }
            }
        }
        (instances, failures)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic in the builder is a mistake of ours; let it be seen where panics are seen.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Opens the access log that a configuration asks for. What it loses is counted in `losses`.
///
/// # Errors
/// When its file cannot be opened.
pub fn access_log(config: &Config, losses: &Losses) -> Result<Option<AccessLog>, Problem> {
    let opened = match &*config.sections.access_log {
        AccessLogTarget::Off => return Ok(None),
        AccessLogTarget::Stdout => AccessLog::stdout(losses.clone()),
        AccessLogTarget::File(path) => AccessLog::file(path, losses.clone()),
    };
    opened.map(Some).map_err(|error| {
        let message =
            format!("the access log cannot be opened: {error}; give a path in a folder that Weir may write");
        config.problem(&config.sections.access_log.place, message)
    })
}
