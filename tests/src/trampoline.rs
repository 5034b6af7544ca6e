//! A guest that makes the calls that lie in its memory, whatever callback it gets.
//!
//! No SDK and no compiler stands between a test and the host functions: any function can be called with any
//! arguments, out of any context, with an allocator that behaves or does not. Every function of the tables has a row,
//! so that a function that is new is called from the day that it is there.
//!
//! The suite uses it in the process, and so do the fuzz targets in `fuzz/`, which include this file by its path.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use weir::config::Config;
use weir::config::listener::Service;
use weir::config::metadata::Metadata;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::instance::{Fault, Instance, StartCx};
use weir::plugin::module::{Compiler, PluginModule};
use weir::plugin::parts::Parts;
use weir::plugin::services::{Services, Usage};
use weir::plugin::spec::{FilterSpec, Surroundings};
use weir::telemetry::metrics::Registry;

/// What a parameter is, by the names of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the tables say what the names mean")]
pub enum Kind {
    Int,
    Long,
    Delta,
    Ptr,
    Len,
    OutInt,
    OutLong,
    OutPtr,
    OutLen,
}

impl Kind {
    fn wasm(self) -> &'static str {
        match self {
            Self::Long | Self::Delta => "i64",
            Self::Int
            | Self::Ptr
            | Self::Len
            | Self::OutInt
            | Self::OutLong
            | Self::OutPtr
            | Self::OutLen => "i32",
        }
    }
}

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// The module that it is imported from.
    pub module: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Kind],
}

impl Signature {
    /// Whether it is a function of Proxy-Wasm and answers with a status; else it is one of WASI.
    pub fn is_host(&self) -> bool {
        self.module == weir_abi::HOST_MODULE
    }
}

const WASI: &str = weir_abi::WASI_MODULES[0];

macro_rules! host_rows {
    ($($(#[$doc:meta])* $topic:ident::$name:ident($($arg:ident: $ty:ident),* $(,)?);)*) => {
        const HOST_ROWS: &[Signature] = &[$(Signature {
            module: weir_abi::HOST_MODULE, name: stringify!($name), params: &[$(Kind::$ty),*],
        },)*];
    };
}

macro_rules! wasi_rows {
    ($($name:ident($($arg:ident: $ty:ident),* $(,)?);)*) => {
        const WASI_ROWS: &[Signature] =
            &[$(Signature { module: WASI, name: stringify!($name), params: &[$(Kind::$ty),*] },)*];
    };
}

weir_abi::host_functions!(host_rows);
weir_abi::wasi_functions!(wasi_rows);

/// Every function that a guest may call and that returns: those of Proxy-Wasm, then those of WASI.
pub static FUNCTIONS: LazyLock<Vec<Signature>> = LazyLock::new(|| [HOST_ROWS, WASI_ROWS].concat());

/// The place of a function among [`FUNCTIONS`].
///
/// # Panics
/// When there is none of that name.
pub fn function(name: &str) -> usize {
    FUNCTIONS.iter().position(|f| f.name == name).unwrap_or_else(|| panic!("no function {name}"))
}

/// A call: a function's place among [`FUNCTIONS`], and its arguments.
#[derive(Debug, Clone)]
pub struct Call {
    /// The function.
    pub function: usize,
    /// Its arguments; those that are missing are 0, those that are too many are left out.
    pub args: Vec<u64>,
}

impl Call {
    /// A call of a function by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn new(name: &str, args: &[u64]) -> Self {
        Self { function: function(name), args: args.to_vec() }
    }
}

/// What the guest's allocator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocator {
    /// It gives fresh memory.
    #[default]
    Sound,
    /// It gives this address, whatever is there. 0 is for no memory.
    Gives(u32),
    /// It traps.
    Traps,
    /// It calls the host, with the last of the calls; then it gives fresh memory.
    Calls,
    /// It has the memory grow, and gives the beginning of what is new.
    Grows,
}

/// Where the guest keeps what it is told, up to [`ARENA`]; nobody else is to write there.
pub const MAILBOX: Range<usize> = 0x1000..ARENA;

/// Where the memory begins that nobody needs but the tests.
pub const ARENA: usize = 0x4000;

/// The memory that the guest has at first, in bytes.
pub const MEMORY: usize = 2 << 16;

/// Where fresh memory begins.
const HEAP: u32 = 0x18000;

const COUNT: usize = 0x1000;
const MODE: usize = 0x1004;
const GIVEN: usize = 0x1008;
const NEXT: usize = 0x100c;
const ALLOCATED: usize = 0x1010;
const ALLOCATIONS: usize = 0x1100;
const RECORDS: usize = 0x2000;
const RECORD: usize = 128;

/// The most calls of one callback.
pub const MOST_CALLS: usize = 32;

/// What has been allocated of late is remembered.
const REMEMBERED: u32 = 64;

/// A compiled trampoline with what its instances are started with.
pub struct World {
    engine: PluginEngine,
    module: PluginModule,
    specs: Vec<Arc<FilterSpec>>,
    clusters: Arc<BTreeSet<Box<str>>>,
}

/// The two filters that live in each instance.
const CONFIG: &str = r#"
listeners:
  - name: web
    address: "127.0.0.1:0"
    http:
      routes: [ { cluster: up } ]
      filters:
        - { plugin: trampoline, name: one, root_id: one, vm_id: vm, vm_config: for the VM, config: for the plugin,
            cpu: 5s, environment: { A: "1", LONGER: value }, grants: &all { clusters: [up], shared_data: [b.example],
            foreign_functions: [set_envoy_filter_state, expr_create, expr_evaluate, expr_delete] } }
        - { plugin: trampoline, name: two, root_id: two, vm_id: vm, cpu: 5s, grants: *all }
clusters: [ { name: up, endpoints: ["127.0.0.1:1"] } ]
plugins: { directory: plugins }
"#;

/// The root contexts of an instance.
pub const ROOTS: [u32; 2] = [1, 2];

/// The environment that the guest sees.
pub const ENVIRONMENT: [&str; 2] = ["A=1\0", "LONGER=value\0"];

impl World {
    /// Compiles the trampoline.
    ///
    /// # Panics
    /// When it is no good: a mistake of this file.
    pub fn new() -> Self {
        let engine = PluginEngine::new().expect("an engine");
        let wasm = wat::parse_str(text()).expect("a module");
        let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
        let module = compiler.compile(&wasm, &Digest::of(&wasm)).expect("a plugin");
        let config = Config::parse(Path::new("weir.yaml"), CONFIG).expect("a configuration").sections;
        let defaults = config.plugins.expect("plugins").defaults;
        let surroundings = Arc::new(Surroundings { node: config.node, metadata: Metadata::default() });
        let Some(Service::Http(http)) = config.listeners.into_iter().next().map(|web| web.service) else {
            panic!("a listener for HTTP");
        };
        let spec =
            |filter| Arc::new(FilterSpec::new("web", filter, &defaults, None, Arc::clone(&surroundings)));
        let clusters = Arc::new(BTreeSet::from(["up".into()]));
        Self { engine, module, specs: http.filters.iter().map(spec).collect(), clusters }
    }

    /// Starts an instance, with shared data and metrics of its own.
    ///
    /// # Panics
    /// When there is no room for one.
    pub fn start(&self) -> Trampoline {
        let services = Services::new(Registry::new(0), Arc::clone(self.engine.pulse()));
        let digest = Digest::of(b"the guest");
        let usages: Vec<_> =
            self.specs.iter().map(|spec| Usage::new(&services.registry, digest, spec)).collect();
        let parts = Parts::new(&self.specs, &usages, &services).expect("filters");
        let instance =
            Instance::start(&StartCx { module: &self.module, parts: &parts, clusters: &self.clusters });
        Trampoline { instance: instance.expect("an instance") }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// An instance of the guest.
pub struct Trampoline {
    /// The instance.
    pub instance: Instance,
}

impl Trampoline {
    /// Has the guest make these calls, in the name of a context, and tells what each answered.
    ///
    /// # Errors
    /// When the instance ended.
    ///
    /// # Panics
    /// When they are more than [`MOST_CALLS`].
    pub fn make(&mut self, context: u32, allocator: Allocator, calls: &[Call]) -> Result<Vec<u32>, Fault> {
        let count = self.stage(allocator, calls);
        let limit = Duration::from_secs(5);
        self.instance.call(context, limit, |callbacks| &callbacks.proxy_on_tick, (context,))?;
        Ok(self.answers(count))
    }

    /// Puts the calls into the guest's memory, for its next `proxy_on_tick`. Returns how many it makes by itself.
    ///
    /// # Panics
    /// When they are more than [`MOST_CALLS`].
    pub fn stage(&mut self, allocator: Allocator, calls: &[Call]) -> usize {
        assert!(calls.len() <= MOST_CALLS, "there is room for so many");
        let (mode, given) = match allocator {
            Allocator::Sound => (0, 0),
            Allocator::Gives(address) => (1, address),
            Allocator::Traps => (2, 0),
            Allocator::Calls => (3, 0),
            Allocator::Grows => (4, 0),
        };
        // The allocator's own call is kept back.
        let count = if allocator == Allocator::Calls { calls.len().saturating_sub(1) } else { calls.len() };
        let memory = self.memory();
        for (place, value) in
            [(COUNT, count as u32), (MODE, mode), (GIVEN, given), (NEXT, HEAP), (ALLOCATED, 0)]
        {
            put(memory, place, &value.to_le_bytes());
        }
        for (at, call) in calls.iter().enumerate() {
            let record = RECORDS + at * RECORD;
            put(memory, record, &(call.function as u64).to_le_bytes());
            for place in 0..FUNCTIONS[call.function].params.len() {
                let arg = call.args.get(place).copied().unwrap_or(0);
                put(memory, record + 8 + place * 8, &arg.to_le_bytes());
            }
        }
        count
    }

    /// What the first of the calls answered that were made last.
    pub fn answers(&mut self, count: usize) -> Vec<u32> {
        let memory = self.memory();
        (0..count).map(|at| int(memory, RECORDS + at * RECORD + 4)).collect()
    }

    /// The guest's memory.
    ///
    /// # Panics
    /// Never: the guest has one.
    pub fn memory(&mut self) -> &mut [u8] {
        self.instance.memory().expect("a memory")
    }

    /// The ranges that the allocator gave during the last callback; `None` when they were too many to be remembered.
    pub fn allocated(&mut self) -> Option<Vec<(u32, u32)>> {
        let memory = self.memory();
        let count = int(memory, ALLOCATED);
        let places = (0..count as usize).map(|at| ALLOCATIONS + at * 8);
        (count <= REMEMBERED).then(|| places.map(|at| (int(memory, at), int(memory, at + 4))).collect())
    }
}

fn put(memory: &mut [u8], at: usize, bytes: &[u8]) {
    memory[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A number in a guest's memory.
///
/// # Panics
/// When it is not there.
pub fn int(memory: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(memory[at..at + 4].try_into().expect("four bytes"))
}

/// The module.
fn text() -> String {
    let (mut imports, mut calls, mut names) = (String::new(), String::new(), String::new());
    for (at, Signature { module, name, params }) in FUNCTIONS.iter().enumerate() {
        let types: Vec<&str> = params.iter().map(|kind| kind.wasm()).collect();
        let ty = types.join(" ");
        writeln!(imports, "(import \"{module}\" \"{name}\" (func $f{at} (param {ty}) (result i32)))")
            .expect("a string");
        let load =
            |(place, ty): (usize, &&str)| format!("({ty}.load offset={} (local.get 0))", 8 + place * 8);
        let args: String = types.iter().enumerate().map(load).collect();
        writeln!(calls, "(func $c{at} (type $call) (call $f{at} {args}))").expect("a string");
        write!(names, "$c{at} ").expect("a string");
    }
    let last = RECORDS + (MOST_CALLS - 1) * RECORD;
    format!(
        r#"(module {imports}
        (type $call (func (param i32) (result i32)))
        (memory (export "memory") 2 16)
        (table funcref (elem {names}))
        {calls}
        (func (export "proxy_abi_version_0_2_1"))
        (func $do (param $record i32)
            (i32.store offset=4 (local.get $record)
                (call_indirect (type $call) (local.get $record) (i32.load (local.get $record)))))
        (func $run (local $at i32) (local $count i32)
            (local.set $count (i32.load (i32.const {COUNT})))
            (block $done (loop $next
                (br_if $done (i32.ge_u (local.get $at) (local.get $count)))
                (call $do (i32.add (i32.const {RECORDS}) (i32.mul (local.get $at) (i32.const {RECORD}))))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br $next))))
        (func $fresh (param $len i32) (result i32) (local $at i32)
            (local.set $at (i32.load (i32.const {NEXT})))
            (i32.store (i32.const {NEXT}) (i32.add (local.get $at) (local.get $len)))
            (block $room (loop $grow
                (br_if $room (i32.le_u (i32.add (local.get $at) (local.get $len)) (i32.mul (memory.size) (i32.const 65536))))
                (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
                (return (i32.const 0))))
            (local.get $at))
        (func $allocate (param $len i32) (result i32) (local $mode i32)
            (local.set $mode (i32.load (i32.const {MODE})))
            (if (i32.eq (local.get $mode) (i32.const 1)) (then (return (i32.load (i32.const {GIVEN})))))
            (if (i32.eq (local.get $mode) (i32.const 2)) (then (unreachable)))
            (if (i32.eq (local.get $mode) (i32.const 3)) (then (call $do (i32.const {last}))))
            (if (i32.eq (local.get $mode) (i32.const 4)) (then
                (return (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))))
            (call $fresh (local.get $len)))
        (func (export "malloc") (param $len i32) (result i32) (local $at i32) (local $entry i32)
            (local.set $at (call $allocate (local.get $len)))
            (local.set $entry (i32.add (i32.const {ALLOCATIONS})
                (i32.mul (i32.rem_u (i32.load (i32.const {ALLOCATED})) (i32.const {REMEMBERED})) (i32.const 8))))
            (i32.store (local.get $entry) (local.get $at))
            (i32.store offset=4 (local.get $entry) (local.get $len))
            (i32.store (i32.const {ALLOCATED}) (i32.add (i32.load (i32.const {ALLOCATED})) (i32.const 1)))
            (local.get $at))
        (func (export "proxy_on_tick") (param i32) (call $run)))"#
    )
}
