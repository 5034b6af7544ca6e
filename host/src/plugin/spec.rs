//! What a filter is, apart from the code that runs it: its names, its configuration, its budgets.

use std::sync::Arc;
use std::time::Duration;

use crate::config::filter::{Defaults, Filter, Isolation, OnFailure, Plugins, Scheduling, config_bytes};
use crate::config::metadata::{Metadata, Node};
use crate::plugin::grants::Granted;

/// One filter: a plugin in a chain, with its configuration. Equal specs of equal content share their instances
/// across reloads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilterSpec {
    /// The filter's name.
    pub name: Arc<str>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The listener that it belongs to.
    pub listener: Arc<str>,
    /// The root id.
    pub root_id: String,
    /// The VM id: the scope of shared data, and of queues. Empty: the filter has a scope of its own.
    pub vm_id: String,
    /// The VM's configuration.
    pub vm_config: Vec<u8>,
    /// The filter's configuration.
    pub config: Vec<u8>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// How many instances on each worker share the streams of a filter whose calls give way; `None` for a filter whose
    /// calls run to their end.
    pub pool: Option<usize>,
    /// CPU time for one call.
    pub cpu: Duration,
    /// CPU time in a second, on each worker.
    pub cpu_per_second: Duration,
    /// CPU time that its calls may take in a second beyond their first half millisecond, on each worker; zero is no limit.
    pub long_calls_per_second: Duration,
    /// CPU time in a second for one stream.
    pub cpu_per_stream: Duration,
    /// CPU time for the start of an instance.
    pub start_cpu: Duration,
    /// Memory of one instance, in bytes.
    pub memory: usize,
    /// Memory of all instances of the plugin, in bytes.
    pub memory_per_plugin: usize,
    /// Memory of all instances of all plugins, in bytes.
    pub memory_total: usize,
    /// Shared data and queues of all plugins, in bytes.
    pub shared_total: usize,
    /// Streams of one instance.
    pub streams: usize,
    /// Calls of one instance.
    pub calls: usize,
    /// Its calls that are on their way at once, on each worker.
    pub calls_at_once: usize,
    /// Lines of log in a second.
    pub log_lines: usize,
    /// Bytes of log in a second.
    pub log_bytes: usize,
    /// Whether a stream goes on without the filter when it fails.
    pub fail_open: bool,
    /// Which streams share an instance.
    pub isolation: Isolation,
    /// How long it may hold a message.
    pub pause_timeout: Duration,
    /// Whether it is shown the body while it holds the headers.
    pub allow_on_headers_stop_iteration: bool,
    /// What it may use.
    pub grants: Granted,
    /// What it is told of where it is.
    pub surroundings: Arc<Surroundings>,
}

/// What filters are told of the process and the listener that they are in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Surroundings {
    /// The process.
    pub node: Node,
    /// The listener's metadata.
    pub metadata: Metadata,
}

/// The CPU time for one call that nobody has to ask for: `plugins.defaults.cpu`, unless the operator says otherwise.
const DEFAULT_CPU: Duration = Duration::from_millis(2);

/// CPU time for one call of a filter whose calls give way.
const PREEMPTIBLE_CPU: Duration = Duration::from_millis(100);

/// Instances of such a filter on each worker.
const POOL: usize = 4;

impl FilterSpec {
    /// The spec of a filter as it is configured; `config` is the route's, when the route has one.
    pub fn new(
        listener: &str,
        filter: &Filter,
        defaults: &Defaults,
        config: Option<&serde_json::Value>,
        surroundings: Arc<Surroundings>,
    ) -> Self {
        let pool = match filter.scheduling {
            Some(Scheduling::Preemptible) => {
                Some(filter.instances.as_ref().map_or(POOL, |instances| count(instances.value)).max(1))
            }
            Some(Scheduling::Inline) | None => None,
        };
        let default = if pool.is_some() { PREEMPTIBLE_CPU.max(defaults.cpu) } else { defaults.cpu };
        let cpu = filter.cpu.unwrap_or(default);
        // Whoever lets a call take longer means that it may.
        let over_time = |own: Option<Duration>, default: Duration| {
            own.unwrap_or(match default {
                Duration::ZERO => default,
                default => default.max(cpu),
            })
        };
        let long_calls =
            if cpu > DEFAULT_CPU || pool.is_some() { Duration::ZERO } else { defaults.long_calls_per_second };
        let own = filter.config.as_ref().map(|config| &config.value);
        Self {
            name: filter.name().as_str().into(),
            plugin: filter.plugin.as_str().into(),
            listener: listener.into(),
            root_id: filter.root_id.clone().unwrap_or_default(),
            vm_id: filter.vm_id.clone().unwrap_or_default(),
            vm_config: config_bytes(filter.vm_config.as_ref()),
            config: config_bytes(config.or(own)),
            environment: environment(filter),
            pool,
            cpu,
            cpu_per_second: over_time(filter.cpu_per_second, defaults.cpu_per_second),
            long_calls_per_second: filter.long_calls_per_second.unwrap_or(long_calls),
            cpu_per_stream: over_time(filter.cpu_per_stream, defaults.cpu_per_stream),
            start_cpu: filter.start_cpu.unwrap_or(defaults.start_cpu),
            memory: filter.memory.unwrap_or(defaults.memory).0,
            memory_per_plugin: usize::MAX,
            memory_total: usize::MAX,
            shared_total: usize::MAX,
            streams: count(filter.streams.unwrap_or(defaults.streams)),
            calls: count(filter.calls.unwrap_or(defaults.calls)),
            calls_at_once: count(filter.calls_at_once.unwrap_or(defaults.calls_at_once)),
            log_lines: count(filter.log_lines.unwrap_or(defaults.log_lines)),
            log_bytes: filter.log_bytes.unwrap_or(defaults.log_bytes).0,
            fail_open: filter.on_failure.unwrap_or(defaults.on_failure) == OnFailure::Open,
            isolation: filter.isolation,
            pause_timeout: filter.pause_timeout.unwrap_or(defaults.pause_timeout),
            allow_on_headers_stop_iteration: filter.allow_on_headers_stop_iteration.unwrap_or(false),
            grants: Granted::new(filter),
            surroundings,
        }
    }

    /// The same filter within what plugins may use together.
    #[must_use]
    pub fn within(self, plugins: &Plugins) -> Self {
        let (memory_per_plugin, memory_total) = (plugins.memory_per_plugin.0, plugins.memory_total.0);
        let shared_total = plugins.shared_total.0;
        Self { memory_per_plugin, memory_total, shared_total, ..self }
    }

    /// The scope of the filter's shared data.
    pub fn data_scope(&self) -> String {
        if self.vm_id.is_empty() {
            // A slash cannot be confused with a vm_id's: those are prefixed too.
            format!("filter/{}/{}", self.listener, self.name)
        } else {
            scope_of(&self.vm_id)
        }
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The filter's own variables, and those of the process that it is granted and does not have.
fn environment(filter: &Filter) -> Vec<(String, String)> {
    let own = filter.environment.iter().map(|(name, value)| (name.clone(), value.0.clone()));
    let granted = filter.grants.environment.iter().filter(|name| !filter.environment.contains_key(*name));
    own.chain(granted.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)))).collect()
}

/// The scope of the shared data and the queues of a `vm_id`.
pub fn scope_of(vm_id: &str) -> String {
    format!("vm/{vm_id}")
}
