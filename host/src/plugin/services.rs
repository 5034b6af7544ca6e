//! What all VMs share: metrics that guests define, shared data, and shared queues.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use weir_abi::{MetricKind, Status};

use crate::plugin::digest::Digest;
use crate::plugin::engine::Pulse;
use crate::plugin::meter::Refusal;
use crate::plugin::queues::Queues;
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
    spaces: Mutex<HashMap<String, Arc<Space>>>,
}

impl Services {
    /// Services that count into `registry`, for guests of the engine that `pulse` belongs to.
    pub fn new(registry: Arc<Registry>, pulse: Arc<Pulse>) -> Arc<Self> {
        Arc::new(Self { registry, pulse, queues: Queues::default(), spaces: Mutex::default() })
    }

    /// The shared data of a scope. It outlives the VMs that use it.
    pub fn space(&self, scope: &str) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spaces.entry(scope.to_owned()).or_default())
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

/// The shared data of one scope: keys, values, and a number that changes with every write.
#[derive(Debug, Default)]
pub struct Space {
    values: Mutex<HashMap<Vec<u8>, (Bytes, u32)>>,
}

impl Space {
    /// A value and its compare-and-swap number, never 0.
    pub fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Writes a value; `cas` 0 is unconditional. A key that is not there takes any `cas`, as in Envoy.
    ///
    /// # Errors
    /// [`Status::CasMismatch`] when somebody wrote in between.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        match values.get_mut(key) {
            Some((_, current)) if cas != 0 && cas != *current => Err(Status::CasMismatch),
            Some((old, current)) => {
                *old = Bytes::copy_from_slice(value);
                *current = current.wrapping_add(1).max(1);
                Ok(())
            }
            None => {
                values.insert(key.to_vec(), (Bytes::copy_from_slice(value), 1));
                Ok(())
            }
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
    /// Defines a metric. Its exposed name is the guest's, made safe, behind `weir_plugin_custom_`.
    pub fn define(registry: &Registry, kind: MetricKind, name: &str, plugin: &str, filter: &str) -> Self {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
        let exposed: String = "weir_plugin_custom_".chars().chain(name.chars().map(safe)).collect();
        let help = "Defined by a plugin.";
        let labels = [("plugin", plugin), ("filter", filter)];
        match kind {
            MetricKind::Counter => Self::Counter(registry.counter(&exposed, help, &labels)),
            MetricKind::Gauge => Self::Gauge(registry.gauge(&exposed, help, &labels)),
            MetricKind::Histogram => Self::Histogram(registry.numbers(&exposed, help, &labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_with_a_stale_number_is_refused_and_the_value_stays() {
        let space = Space::default();
        space.set(b"k", b"1", 0).expect("unconditional");
        let (_, cas) = space.get(b"k").expect("there");
        space.set(b"k", b"2", cas).expect("the number matches");
        assert_eq!(space.set(b"k", b"3", cas), Err(Status::CasMismatch));
        assert_eq!(space.get(b"k").expect("there").0, "2");
        assert_eq!(space.set(b"new", b"x", 99), Ok(()));
    }
}
