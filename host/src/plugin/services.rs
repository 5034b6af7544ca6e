//! What all VMs share: metrics that guests define, shared data, and shared queues.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use weir_abi::{MetricKind, Status};

use crate::plugin::digest::Digest;
use crate::plugin::engine::Pulse;
use crate::plugin::grants::Denials;
use crate::plugin::meter::Refusal;
use crate::plugin::outside::Outside;
use crate::plugin::queues::Queues;
use crate::plugin::quotas::{PluginPools, Pool, Pools, Refusals};
use crate::plugin::space::Space;
use crate::plugin::spec::FilterSpec;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Peak, Registry};

/// The services of the process.
#[derive(Debug)]
pub struct Services {
    /// All metrics.
    pub registry: Arc<Registry>,
    /// What is told when guests run.
    pub pulse: Arc<Pulse>,
    /// Shared queues.
    pub queues: Queues,
    /// What stands in for the world, where there is none.
    pub outside: Option<Arc<dyn Outside>>,
    spaces: Mutex<HashMap<String, Arc<Space>>>,
    /// The exposed names of the metrics that each filter of each plugin has defined: series never end.
    metrics: Mutex<HashMap<(String, String), HashSet<String>>>,
    denials: Mutex<HashMap<FilterName, Arc<Denials>>>,
    refusals: Mutex<HashMap<FilterName, Arc<Refusals>>>,
    /// By plugin.
    pools: Mutex<HashMap<Arc<str>, Arc<PluginPools>>>,
    memory: Arc<Pool>,
    /// What shared data and queues hold.
    shared: Arc<Pool>,
}

/// A plugin, and the name of a filter that uses it.
type FilterName = (Arc<str>, Arc<str>);

/// Names of metrics that a filter may define while the process lives, however often its VMs start again.
const MOST_METRICS: usize = 1024;

impl Services {
    /// Services that count into `registry`, for guests of the engine that `pulse` belongs to.
    pub fn new(registry: Arc<Registry>, pulse: Arc<Pulse>) -> Arc<Self> {
        Self::within(None, registry, pulse)
    }

    /// Services for guests that are told of another world than the system's.
    pub fn within(
        outside: Option<Arc<dyn Outside>>,
        registry: Arc<Registry>,
        pulse: Arc<Pulse>,
    ) -> Arc<Self> {
        let shared = Arc::<Pool>::default();
        Arc::new(Self {
            registry,
            pulse,
            queues: Queues::new(Arc::clone(&shared)),
            outside,
            spaces: Mutex::default(),
            metrics: Mutex::default(),
            denials: Mutex::default(),
            refusals: Mutex::default(),
            pools: Mutex::default(),
            memory: Arc::default(),
            shared,
        })
    }

    /// The time of day, as guests are told it.
    pub fn wall(&self) -> SystemTime {
        self.outside.as_ref().map_or_else(SystemTime::now, |outside| outside.wall())
    }

    /// The shared data of a scope. It outlives the VMs that use it.
    pub fn space(&self, scope: &str) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            spaces.entry(scope.to_owned()).or_insert_with(|| Arc::new(Space::new(Arc::clone(&self.shared)))),
        )
    }

    /// Defines a metric of a filter. Its exposed name is the guest's, made safe, behind `weir_plugin_custom_`; the same
    /// name is the same series.
    ///
    /// # Errors
    /// [`Status::InternalFailure`] when the filter has defined too many of different names.
    pub fn define_metric(
        &self,
        kind: MetricKind,
        name: &str,
        plugin: &str,
        filter: &str,
    ) -> Result<GuestMetric, Status> {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
        let exposed: String = "weir_plugin_custom_".chars().chain(name.chars().map(safe)).collect();
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let known = metrics.entry((plugin.to_owned(), filter.to_owned())).or_default();
        if known.len() >= MOST_METRICS && !known.contains(&exposed) {
            return Err(Status::InternalFailure);
        }
        let defined = GuestMetric::define(&self.registry, kind, &exposed, plugin, filter);
        known.insert(exposed);
        Ok(defined)
    }

    /// What a filter was denied, on whatever worker. Looked up when an instance starts.
    pub fn denials(&self, plugin: &Arc<str>, filter: &Arc<str>) -> Arc<Denials> {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(plugin), Arc::clone(filter));
        let make = || Arc::new(Denials::new(&self.registry, plugin, filter));
        Arc::clone(denials.entry(key).or_insert_with(make))
    }

    /// What a filter was refused, on whatever worker. Looked up when an instance starts.
    pub fn refusals(&self, plugin: &Arc<str>, filter: &Arc<str>) -> Arc<Refusals> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(plugin), Arc::clone(filter));
        let make = || Arc::new(Refusals::new(&self.registry, plugin, filter));
        Arc::clone(refusals.entry(key).or_insert_with(make))
    }

    /// What the instances of a filter draw from.
    pub fn pools(&self, spec: &FilterSpec) -> Pools {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let plugin = Arc::clone(pools.entry(Arc::clone(&spec.plugin)).or_default());
        Pools { plugin, all: Arc::clone(&self.memory) }
    }
}

/// What a filter used of one version of its plugin, over all workers.
#[derive(Debug)]
pub struct Usage {
    /// Calls into the guest.
    pub calls: Counter,
    /// CPU time in the guest, in nanoseconds.
    pub cpu: Counter,
    /// Instances that are alive.
    pub instances: Gauge,
    /// Bytes of memory that the instances have.
    pub memory: Gauge,
    /// The most that one of them had.
    pub memory_peak: Peak,
    /// Instances that were built in the place of ones that failed.
    pub rebuilt: Counter,
    /// Those that were to be built, and did not start.
    pub not_rebuilt: Counter,
    /// Workers on which it is not called, since it failed too often.
    pub breakers_open: Gauge,
    refused: [Counter; 2],
    faults: [Counter; FaultKind::ALL.len()],
}

impl Usage {
    /// The usage of a filter.
    pub fn new(registry: &Registry, digest: Digest, spec: &FilterSpec) -> Arc<Self> {
        let version = digest.to_string();
        let labels = [
            ("plugin", &*spec.plugin),
            ("version", &version),
            ("filter", &spec.name),
            ("listener", &spec.listener),
        ];
        let with = |name, help, label, value| {
            let labels: Vec<_> = labels.iter().copied().chain([(label, value)]).collect();
            registry.counter(name, help, &labels)
        };
        let rebuilds = |result| {
            let help = "Instances built in the place of ones that failed, or that could not be.";
            with("weir_plugin_rebuilds_total", help, "result", result)
        };
        let refused = |refusal: Refusal| {
            let help = "Streams and timers that a plugin was not called for.";
            with("weir_plugin_refused_total", help, "reason", refusal.as_str())
        };
        Arc::new(Self {
            calls: registry.counter("weir_plugin_calls_total", "Calls into plugins.", &labels),
            cpu: registry.time("weir_plugin_cpu_seconds_total", "CPU time in plugins.", &labels),
            instances: registry.gauge("weir_plugin_instances", "Instances that are alive.", &labels),
            memory: registry.gauge("weir_plugin_memory_bytes", "Memory of the instances.", &labels),
            memory_peak: registry.peak(
                "weir_plugin_memory_peak_bytes",
                "The most memory that one instance had.",
                &labels,
            ),
            rebuilt: rebuilds("started"),
            not_rebuilt: rebuilds("failed"),
            breakers_open: registry.gauge(
                "weir_plugin_breakers_open",
                "Workers on which a plugin is not called, since it failed too often.",
                &labels,
            ),
            refused: [Refusal::Throttled, Refusal::BreakerOpen].map(refused),
            faults: FaultKind::ALL.map(|kind| {
                let help = "Calls that ended an instance, by kind.";
                with("weir_plugin_faults_total", help, "kind", kind.as_str())
            }),
        })
    }

    /// The memory of an instance has changed by so many bytes, and is so large now.
    pub fn memory_grew(&self, by: i64, now: i64) {
        self.memory.add(by);
        self.memory_peak.raise(now.unsigned_abs());
    }

    /// What it was not called for.
    pub fn refused(&self, refusal: Refusal) -> &Counter {
        let [throttled, broken] = &self.refused;
        match refusal {
            Refusal::Throttled => throttled,
            Refusal::BreakerOpen => broken,
        }
    }

    /// The faults of a kind.
    pub fn faults(&self, kind: FaultKind) -> &Counter {
        let [trap, cpu, memory, exit] = &self.faults;
        match kind {
            FaultKind::Trap => trap,
            FaultKind::Cpu => cpu,
            FaultKind::Memory => memory,
            FaultKind::Exit => exit,
        }
    }
}

/// Why a call ended its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The guest trapped.
    Trap,
    /// It used up its CPU time.
    Cpu,
    /// It trapped after more memory was refused.
    Memory,
    /// It exited.
    Exit,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Trap, Self::Cpu, Self::Memory, Self::Exit];

    /// As metrics and the admin API have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Exit => "exit",
        }
    }
}

/// A metric that a guest defined.
#[derive(Debug, Clone)]
pub enum GuestMetric {
    /// Only goes up.
    Counter(Counter),
    /// Goes up and down.
    Gauge(Gauge),
    /// A distribution.
    Histogram(Histogram),
}

impl GuestMetric {
    fn define(registry: &Registry, kind: MetricKind, exposed: &str, plugin: &str, filter: &str) -> Self {
        let help = "Defined by a plugin.";
        let labels = [("plugin", plugin), ("filter", filter)];
        match kind {
            MetricKind::Counter => Self::Counter(registry.counter(exposed, help, &labels)),
            MetricKind::Gauge => Self::Gauge(registry.gauge(exposed, help, &labels)),
            MetricKind::Histogram => Self::Histogram(registry.numbers(exposed, help, &labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_starts_again_with_other_metrics_each_time_fills_no_more_than_its_part_of_the_registry() {
        let engine = crate::plugin::engine::PluginEngine::new().expect("an engine");
        let services = Services::new(Registry::new(0), Arc::clone(engine.pulse()));
        let define = |name: &str, filter| services.define_metric(MetricKind::Counter, name, "plugin", filter);
        for number in 0..MOST_METRICS {
            define(&format!("n{number}"), "a").expect("there is room");
        }
        assert!(matches!(define("another", "a"), Err(Status::InternalFailure)));
        let before = services.registry.render();
        // Those that there are it has for ever, each once.
        for number in 0..MOST_METRICS {
            define(&format!("n{number}"), "a").expect("it is there");
        }
        assert_eq!(services.registry.render(), before);
        define("another", "b").expect("each filter has room of its own");
    }
}
