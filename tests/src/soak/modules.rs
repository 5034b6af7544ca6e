//! Random modules, by wasm-smith: each goes through the loader, is started, and sees one stream.
//!
//! Most of them have what a plugin must export, a part of the callbacks, and the host functions to call; the others
//! are whatever comes. That the process lives is the test. Each is known by its number: it is the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use weir::config::Config;
use weir::config::listener::Service;
use weir::config::metadata::Metadata;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::instance::{Fault, Instance, StartCx};
use weir::plugin::module::Compiler;
use weir::plugin::parts::Parts;
use weir::plugin::services::{Services, Usage};
use weir::plugin::spec::{FilterSpec, Surroundings};
use weir::plugin::vm::Access;
use weir::telemetry::metrics::Registry;
use weir_abi::{BufferKind, MapKind};

use crate::hostile::text::{every_import, exporting};
use crate::made_up;

/// Little of everything, so that many have their turn.
const CONFIG: &str = r#"
listeners:
  - name: web
    address: "127.0.0.1:0"
    http:
      routes: [ { cluster: up } ]
      filters: [ { plugin: random, cpu: 2ms, start_cpu: 50ms, memory: 16MiB, config: for the plugin } ]
clusters: [ { name: up, endpoints: ["127.0.0.1:1"] } ]
plugins: { directory: plugins }
"#;

/// Bytes that a module is made from, at most.
const BYTES: usize = 8192;

/// What came of some modules.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were refused, by the beginning of the reason.
    pub refused: BTreeMap<String, usize>,
    /// How many did not start.
    pub not_started: usize,
    /// How many saw a stream, and ended in a fault.
    pub faulted: usize,
    /// How many saw a stream to its end.
    pub finished: usize,
    /// The longest time that one took, its compilation included, and its number.
    pub slowest: (Duration, u64),
    /// Instances that are still there.
    pub instances_left: i64,
    /// Memory of instances that is still accounted for, in bytes.
    pub memory_left: i64,
}

impl Tally {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.refused.values().sum::<usize>() + self.not_started + self.faulted + self.finished
    }
}

/// What modules are run in.
struct World {
    engine: PluginEngine,
    compiler: Compiler,
    spec: Arc<FilterSpec>,
    services: Arc<Services>,
    clusters: Arc<BTreeSet<Box<str>>>,
}

impl World {
    fn new() -> Self {
        let engine = PluginEngine::new().expect("an engine");
        let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
        let config = Config::parse(Path::new("weir.yaml"), CONFIG).expect("a configuration").sections;
        let defaults = config.plugins.expect("plugins").defaults;
        let surroundings = Arc::new(Surroundings { node: config.node, metadata: Metadata::default() });
        let Some(Service::Http(http)) = config.listeners.into_iter().next().map(|web| web.service) else {
            panic!("a listener for HTTP");
        };
        let filter = http.filters.first().expect("a filter");
        let spec = Arc::new(FilterSpec::new("web", filter, &defaults, None, surroundings));
        let services = Services::new(Registry::new(0), Arc::clone(engine.pulse()));
        Self { engine, compiler, spec, services, clusters: Arc::new(BTreeSet::from(["up".into()])) }
    }
}

/// Runs so many modules, from a number on.
///
/// # Panics
/// When the host does, or a module takes longer than its budgets allow.
pub fn run(first: u64, count: u64) -> Tally {
    let world = World::new();
    let mut tally = Tally::default();
    for number in first..first + count {
        let named = Named(number);
        let bytes = module(number);
        let began = Instant::now();
        one(&world, &bytes, &mut tally);
        tally.slowest = tally.slowest.max((began.elapsed(), number));
        drop(named);
    }
    drop(world.engine);
    tally
}

/// Tells the number of the module that the host panicked with.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was module {}", self.0);
        }
    }
}

/// The module of a number.
///
/// # Panics
/// Never: wasm-smith makes a module of any bytes.
pub fn module(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let bytes: Vec<u8> = (0..random.usize(64..BYTES)).map(|_| random.u8(..)).collect();
    // One in ten is whatever comes.
    let config = if random.u8(..10) == 0 {
        wasm_smith::Config::default()
    } else {
        let wanted = |name: &str| match name {
            // Most of them trap or refuse there, and would be seen no more.
            "_initialize" | "_start" | "proxy_on_vm_start" | "proxy_on_configure" => random.u8(..16) == 0,
            _ => random.bool(),
        };
        let exports = wat::parse_str(exporting(wanted)).expect("a module");
        wasm_smith::Config {
            available_imports: Some(wat::parse_str(every_import()).expect("a module")),
            exports: Some(exports),
            // What plugins are refused for.
            gc_enabled: false,
            reference_types_enabled: false,
            exceptions_enabled: false,
            threads_enabled: false,
            memory64_enabled: false,
            compact_imports_enabled: false,
            wide_arithmetic_enabled: false,
            // The one that is exported is made beyond this.
            max_memories: 0,
            max_memory32_bytes: 16 << 20,
            max_table_elements: 1000,
            ..wasm_smith::Config::default()
        }
    };
    let mut unstructured = Unstructured::new(&bytes);
    wasm_smith::Module::new(config, &mut unstructured).expect("any bytes make a module").to_bytes()
}

fn one(world: &World, bytes: &[u8], tally: &mut Tally) {
    let digest = Digest::of(bytes);
    let usage = Usage::new(&world.services.registry, digest, &world.spec);
    through(world, bytes, &usage, tally);
    tally.instances_left += usage.instances.value();
    tally.memory_left += usage.memory.value();
}

fn through(world: &World, bytes: &[u8], usage: &Arc<Usage>, tally: &mut Tally) {
    let module = match world.compiler.compile(bytes, &Digest::of(bytes)) {
        Ok(module) => module,
        Err(refusal) => {
            let reason = refusal.to_string().chars().take(48).collect();
            *tally.refused.entry(reason).or_default() += 1;
            return;
        }
    };
    let filters = std::slice::from_ref(&world.spec);
    let parts = Parts::new(filters, std::slice::from_ref(usage), &world.services).expect("a filter");
    let started = Instance::start(&StartCx { module: &module, parts: &parts, clusters: &world.clusters });
    let Ok(mut instance) = started else {
        tally.not_started += 1;
        return;
    };
    match stream(&mut instance, world.spec.cpu) {
        Ok(()) => tally.finished += 1,
        Err(_) => tally.faulted += 1,
    }
}

/// The life of one stream. The root context is 1.
fn stream(instance: &mut Instance, limit: Duration) -> Result<(), Fault> {
    let id = instance.create_stream(1, 0, made_up::http(), limit)?;
    if let Some(context) = instance.stream(id) {
        made_up::fill(context);
        let mut access = Access::default();
        MapKind::ALL.iter().take(4).for_each(|kind| access.grant_map(*kind));
        BufferKind::ALL.iter().take(2).for_each(|kind| access.grant_buffer(*kind));
        context.access = access;
    }
    instance.call(id, limit, |c| &c.proxy_on_request_headers, (id, 3, 0))?;
    instance.call(id, limit, |c| &c.proxy_on_request_body, (id, 10, 1))?;
    instance.call(id, limit, |c| &c.proxy_on_response_headers, (id, 3, 0))?;
    instance.call(id, limit, |c| &c.proxy_on_response_body, (id, 10, 1))?;
    instance.call(1, limit, |c| &c.proxy_on_tick, (1,))?;
    instance.call(id, limit, |c| &c.proxy_on_done, (id,))?;
    instance.call(id, limit, |c| &c.proxy_on_log, (id,))?;
    instance.call(id, limit, |c| &c.proxy_on_delete, (id,))?;
    instance.delete_stream(id);
    instance.take_outgoing();
    Ok(())
}
