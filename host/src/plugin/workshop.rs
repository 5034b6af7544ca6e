//! Compiles plugins in a process of its own, which ends at its deadline whatever the module makes of it: wasmtime cannot
//! be told to stop, and does not bound what compiling takes.
//!
//! The process is this same program (`weir plugin compile`). It reads the module from its standard input, and leaves the
//! code in the private cache, from where the parent takes it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use wasmtime::{Engine, Module};

use crate::plugin::code_cache::CodeCache;
use crate::plugin::digest::Digest;
use crate::plugin::engine;
use crate::plugin::module::{MAX_SIZE, Refusal};

/// Where plugins are compiled, and what that may take.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// Where the code is left.
    pub cache: CodeCache,
    /// How long compiling one plugin may take, by the clock.
    pub time: Duration,
    /// Memory that it may take, in bytes.
    pub memory: usize,
    /// Functions that a plugin may have.
    pub functions: u32,
}

/// How often the parent looks whether the child has ended.
const LOOK: Duration = Duration::from_millis(5);

/// This very program, whatever has become of its file since it was started.
const SELF: &str = "/proc/self/exe";

impl Workshop {
    /// Compiles a module in a child process, which leaves the code in the cache. `refusal` names the reason for which
    /// the compiler refuses a module. It takes its time: never call it on a worker.
    ///
    /// # Errors
    /// Why the plugin is refused.
    pub fn compile(&self, bytes: &[u8], refusal: impl FnOnce(String) -> Refusal) -> Result<(), Refusal> {
        let failed = |error: std::io::Error| Refusal::Workshop(error.to_string());
        let mut command = Command::new(SELF);
        command.args(["plugin", "compile", "--cache"]).arg(self.cache.root());
        command.args(["--memory", &self.memory.to_string()]);
        command.args(["--cpu", &(self.time.as_secs() + 1).to_string()]);
        let mut child = command
            .env_clear()
            // The allocator is not to count what it only reserves.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (status, said) = std::thread::scope(|scope| {
            // A child that ends early does not take all of it, and says why.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(bytes)));
            let said = scope.spawn(move || {
                let mut said = String::new();
                // What is no text says nothing.
                let _ = stdout.map(|stdout| stdout.take(MOST_SAID).read_to_string(&mut said));
                said
            });
            let status = self.wait(&mut child);
            (status, said.join().unwrap_or_default())
        });
        match status.map_err(failed)? {
            None => Err(Refusal::TooLong(self.time)),
            Some(status) if status.success() => Ok(()),
            // It says itself what is wrong with the module.
            Some(status) if status.code() == Some(REFUSED.into()) => Err(refusal(said)),
            Some(status) if status.code().is_some() => Err(Refusal::Workshop(format!("{said} ({status})"))),
            // An allocation that fails ends it by a signal, and so does the limit of its CPU time.
            Some(_) => Err(Refusal::TooDear { megabytes: self.memory >> 20 }),
        }
    }

    /// How the child ended; `None` when its time was over.
    fn wait(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if started.elapsed() >= self.time {
                // One that has just ended needs no signal.
                let _ = child.kill();
                return child.wait().map(|_| None);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What a child has to say fits into this many bytes.
const MOST_SAID: u64 = 4096;

/// The exit status of a child that refuses the module.
pub const REFUSED: u8 = 3;

/// The exit status of a child that could not look at it.
pub const FAILED: u8 = 4;

/// What the child does: compiles the module from the standard input into a cache, within so many bytes of memory and
/// seconds of CPU time for each processor. What is returned is why the module is refused, when it is.
///
/// # Errors
/// Why there is no code.
pub fn child(cache: &Path, memory: u64, cpu: u64) -> anyhow::Result<Result<(), String>> {
    limit(memory, cpu).context("the limits of the process cannot be set")?;
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    let cache = CodeCache::open(cache)?;
    let engine: Engine = engine::for_compiling()?;
    match Module::from_binary(&engine, &bytes) {
        Ok(module) => {
            cache.store(&engine, &Digest::of(&bytes), &module);
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(error.root_cause().to_string())),
    }
}

fn limit(memory: u64, cpu: u64) -> rustix::io::Result<()> {
    // Not to outlive the parent.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let to = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    // Writable memory: wasmtime reserves far more than it uses.
    setrlimit(Resource::Data, to(memory))?;
    // Its threads count together. The parent looks at the clock; this is for when there is none any more.
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    setrlimit(Resource::Cpu, to(cpu * processors))?;
    setrlimit(Resource::Core, to(0))
}
