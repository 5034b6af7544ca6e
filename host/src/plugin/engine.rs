//! The wasmtime engine: what it may use, and the epoch that interrupts guests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

/// The distance between two epochs: how finely a guest's CPU time is looked at.
pub const EPOCH: Duration = Duration::from_millis(1);

/// How much more urgent than the workers the thread is that moves epochs, as `nice` has it.
const URGENT: i32 = -10;

/// By how much closer epochs are while calls give way: those are what everybody else waits for.
pub const FINER: u32 = 4;

/// How many instances the process may have at a time.
pub const SLOTS: u32 = 1_000;

/// With fewer than these there would be no room for a handful of plugins.
const FEWEST_SLOTS: u32 = 7;

/// Stack that a guest may use.
const GUEST_STACK: usize = 512 * 1024;

/// The engine and the thread that moves its epoch.
#[derive(Debug)]
pub struct PluginEngine {
    engine: Engine,
    pulse: Arc<Pulse>,
}

impl PluginEngine {
    /// Starts an engine. Where address space is short (`ulimit -v`, valgrind), it has room for fewer instances.
    ///
    /// # Errors
    /// When the address space for the slots cannot be had, or the thread cannot be started.
    pub fn new() -> anyhow::Result<Self> {
        let engine = with_slots()?;
        let pulse = Arc::new(Pulse::default());
        let (ticked, own) = (engine.weak(), Arc::clone(&pulse));
        std::thread::Builder::new().name("weir-epoch".to_owned()).spawn(move || own.run(&ticked))?;
        Ok(Self { engine, pulse })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is told when guests run.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

/// An engine with room for [`SLOTS`] instances, or for as many as there is address space for.
fn with_slots() -> anyhow::Result<Engine> {
    let mut slots = SLOTS;
    loop {
        match Engine::new(&config(slots)) {
            Ok(engine) if slots < SLOTS => {
                tracing::warn!(
                    slots,
                    "address space is limited (`ulimit -v`): there is room for fewer plugin instances than {SLOTS}"
                );
                return Ok(engine);
            }
            Err(_) if slots / 2 >= FEWEST_SLOTS => slots /= 2,
            made => return Ok(made?),
        }
    }
}

/// An engine that only compiles: its code is that of [`PluginEngine`], and no guest runs in it.
///
/// # Errors
/// As for [`PluginEngine::new`].
pub fn for_compiling() -> anyhow::Result<Engine> {
    Ok(Engine::new(&config(1))?)
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        self.pulse.stopped.store(true, Ordering::SeqCst);
        self.pulse.wake();
    }
}

/// Whether guests run: without one the epoch stands still, and an idle process does not wake a thousand times in a
/// second.
///
/// A guest that runs while the epoch comes to a stand has seen it move before, so that it marks the pulse itself at
/// its next look, as every call does at its beginning.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Whether a guest has run of late.
    marked: AtomicBool,
    /// Whether the epoch stands still.
    resting: AtomicBool,
    /// Whether a call has given way of late.
    fine: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

/// Epochs without a call after which the epoch stands still.
const REST_AFTER: u32 = 100;

impl Pulse {
    /// A guest runs.
    #[inline]
    pub fn mark(&self) {
        // It almost always is marked, and then nothing is written that other threads would have to fetch.
        if !self.marked.load(Ordering::Relaxed) {
            self.marked.store(true, Ordering::SeqCst);
            if self.resting.load(Ordering::SeqCst) {
                self.wake();
            }
        }
    }

    /// A call gives way: epochs are to be closer for now.
    pub fn refine(&self) {
        self.fine.store(true, Ordering::Relaxed);
    }

    /// How many epochs there are in [`EPOCH`] now.
    pub fn epochs(&self) -> u64 {
        if self.fine.load(Ordering::Relaxed) { FINER.into() } else { 1 }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Moves the epoch while guests run, as long as there is an engine.
    fn run(&self, engine: &EngineWeak) {
        // Where processors are short, everybody waits for whoever computes until this thread has said that an epoch has passed. It
        // is to come before them, where that is allowed.
        let _ = rustix::process::nice(URGENT);
        // There is one such thread for each pulse.
        let _ = self.thread.set(std::thread::current());
        let mut epochs = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(if self.fine.load(Ordering::Relaxed) { EPOCH / FINER } else { EPOCH });
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
            epochs += 1;
            if epochs == REST_AFTER {
                epochs = 0;
                self.fine.store(false, Ordering::Relaxed);
                if !self.marked.swap(false, Ordering::SeqCst) {
                    self.rest();
                }
            }
        }
    }

    /// Waits for a guest. Whoever marks the pulse looks whether the epoch rests after that, and here it is the
    /// other way round: one of the two sees the other.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        while !self.marked.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}

/// What an empty place for an instance may keep of memory, in bytes. A filter writes to some 50 KiB.
const KEPT: usize = 256 << 10;

/// What guests may be made of and how they are run.
///
/// Everything that Proxy-Wasm's compilers emit is allowed; threads, shared memories, components and 64-bit
/// memories are not. Slots reserve 4 GiB of address space each, so that no memory access needs a bounds check;
/// what a filter may really use is set by its limiter.
/// `slots`: how many instances there may be. It changes nothing about the code.
fn config(slots: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots)
        // A call that gives way has one, and another while the host has the guest allocate.
        .total_stacks(2 * slots)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        // Go modules are large.
        .max_core_instance_size(8 << 20)
        .table_elements(100_000)
        .table_keep_resident(8 << 10);
    // What an instance has written to is made as it was by copying, so that the next one in its place has those pages, and
    // faults in none. Where the kernel (before 6.7) does not tell which pages those are, all of what is kept would be
    // copied: there they are given back instead.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT);
    }
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
