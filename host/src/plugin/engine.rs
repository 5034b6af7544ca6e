//! The wasmtime engine: what it may use, and the epoch that interrupts guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails};

/// The distance between two epochs: how finely a guest's CPU time is looked at.
pub const EPOCH: Duration = Duration::from_millis(1);

/// How many instances the process may have at a time.
const SLOTS: u32 = 1_000;

/// Stack that a guest may use.
const GUEST_STACK: usize = 512 * 1024;

/// The engine and the thread that moves its epoch.
#[derive(Debug)]
pub struct PluginEngine {
    engine: Engine,
    stopped: Arc<AtomicBool>,
}

impl PluginEngine {
    /// Starts an engine.
    ///
    /// # Errors
    /// When the address space for the slots cannot be had, or the thread cannot be started.
    pub fn new() -> anyhow::Result<Self> {
        let engine = Engine::new(&config())?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (ticked, stop) = (engine.weak(), Arc::clone(&stopped));
        std::thread::Builder::new().name("weir-epoch".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(EPOCH);
                match ticked.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })?;
        Ok(Self { engine, stopped })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// What guests may be made of and how they are run.
///
/// Everything that Proxy-Wasm's compilers emit is allowed; threads, shared memories, components and 64-bit
/// memories are not. Slots reserve 4 GiB of address space each, so that no memory access needs a bounds check;
/// what a filter may really use is set by its limiter.
fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(SLOTS)
        .total_memories(SLOTS)
        .total_tables(SLOTS)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        // Go modules are large.
        .max_core_instance_size(8 << 20)
        .table_elements(100_000)
        .linear_memory_keep_resident(128 << 10)
        .table_keep_resident(8 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(GUEST_STACK)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
