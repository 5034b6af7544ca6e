//! From the bytes of a plugin to a linked module: inspect, refuse, compile.
//!
//! What is refused is refused here, before anything of it runs, with a sentence that says what to do.

mod advice;
mod counts;
mod features;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Engine, ExternType, InstancePre, Linker, Module};
use weir_abi::{HOST_MODULE, Version, WASI_MODULES};

use crate::plugin::abi::{
    self, ALLOCATORS, CALLBACKS, COMPILER_FUNCTIONS, Entries, Function, HOST_FUNCTIONS, SHORT_HEADERS,
    WASI_FUNCTIONS,
};
use crate::plugin::digest::Digest;
use crate::plugin::module::counts::MOST_FUNCTIONS;
use crate::plugin::vm::Vm;
use crate::plugin::workshop::Workshop;

/// The largest plugin, in bytes.
pub const MAX_SIZE: usize = 64 << 20;

/// Why a plugin is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too large.
    #[error("it is larger than 64 MiB; strip it (`wasm-opt -Os --strip-debug`)")]
    TooLarge,
    /// No WebAssembly at all.
    #[error(
        "it is not a WebAssembly module (it does not begin with `\\0asm`); copy the .wasm that the build wrote"
    )]
    NotWasm,
    /// A component.
    #[error("it is a component; build a module: for Rust, target wasm32-wasip1 and crate-type cdylib")]
    Component,
    /// Machine code.
    #[error(
        "it is precompiled machine code, which is never loaded from here; copy the .wasm that it was made from"
    )]
    Precompiled,
    /// WebAssembly that does not validate.
    #[error("it is not valid WebAssembly, or not all of it: {0}")]
    Invalid(String),
    /// Threads, or memory that is shared.
    #[error(
        "it uses threads (atomic instructions, or a memory that is shared), and an instance has one thread; build it \
         without them (no `-pthread`, no target with `threads` in its name)"
    )]
    Threads,
    /// A memory with 64-bit addresses.
    #[error("its memory has 64-bit addresses; build it for wasm32")]
    Memory64,
    /// Several memories.
    #[error("it has several memories; link it with one")]
    ManyMemories,
    /// Exceptions of WebAssembly.
    #[error("it uses exceptions of WebAssembly; build it without (for C++, `-fno-exceptions`)")]
    Exceptions,
    /// The garbage collector of WebAssembly.
    #[error(
        "it needs WebAssembly's garbage collector, which plugins do not have; use a compiler that brings its own"
    )]
    GarbageCollector,
    /// References to values of a host.
    #[error(
        "it handles values of its host by reference (`externref`), and plugins are given none; build it without          wasm-bindgen, or whatever else is for browsers"
    )]
    References,
    /// Another thing that the engine does not give.
    #[error(
        "it asks for more than plugins are given: {0}; build it for WebAssembly 2.0, with one memory and at most four \
         tables"
    )]
    Unsupported(String),
    /// A memory of the host's.
    #[error("it imports a memory (`{0}`) in the place of its own; link it without `--import-memory`")]
    ImportedMemory(String),
    /// More of something than plugins may have.
    #[error("it has {count} {what}, and may have {most}{}", cure(.what))]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        count: u32,
        /// How many it may have.
        most: u32,
    },
    /// A function with a great deal of code.
    #[error("a function in it has {size} bytes of code, and may have {most}; split what generated it")]
    LargeFunction {
        /// What it has.
        size: usize,
        /// What it may have.
        most: u32,
    },
    /// It takes too long to compile.
    #[error("compiling it took longer than {} s; make it smaller, or split what generated code it has", .0.as_secs())]
    TooLong(Duration),
    /// It takes too much to compile.
    #[error("compiling it took more than {megabytes} MiB of memory, or ended the compiler; make it smaller")]
    TooDear {
        /// What it may take.
        megabytes: usize,
    },
    /// It could not be tried.
    #[error("the process that compiles it failed: {0}")]
    Workshop(String),
    /// No ABI marker.
    #[error(
        "it exports no proxy_abi_version_*, so it is no Proxy-Wasm plugin; build it with a Proxy-Wasm SDK as a library \
         (for Rust, crate-type cdylib)"
    )]
    NoMarker,
    /// Several ABI markers.
    #[error("it exports several proxy_abi_version_* markers; link one SDK only")]
    ManyMarkers,
    /// An import that nobody has.
    #[error("it imports `{module}.{name}`, which Weir does not have; {}", advice::advice(module, name))]
    UnknownImport {
        /// The module.
        module: String,
        /// The name.
        name: String,
    },
    /// An import of another type.
    #[error(
        "it imports `{module}.{name}` with another signature than the contract's; rebuild it with a current SDK"
    )]
    WrongImport {
        /// The module.
        module: String,
        /// The name.
        name: String,
    },
    /// A callback of another type.
    #[error("its export `{0}` has another signature than the contract's; rebuild it with a current SDK")]
    WrongExport(String),
    /// No memory.
    #[error("it exports no memory named `memory`, so the host could not pass it anything; export it")]
    NoMemory,
    /// No allocator.
    #[error(
        "it exports neither `malloc` nor `proxy_on_memory_allocate`, so the host could not pass it anything; export one"
    )]
    NoAllocator,
}

fn cure(what: &str) -> &'static str {
    match what {
        "functions" => "; raise `plugins.compile_functions`, or split the plugin",
        _ => "; make it smaller, or split it",
    }
}

/// A module that can be instantiated.
#[derive(Clone)]
pub struct PluginModule {
    /// The ABI that it speaks.
    pub version: Version,
    /// Whether `proxy_on_request_headers` and `proxy_on_response_headers` are not told whether the message ends, as in
    /// 0.1. Binaries for 0.1 have either form: the real export decides.
    pub short_headers: [bool; 2],
    /// The module with its imports resolved.
    pub pre: InstancePre<Vm>,
    /// Where it exports what the host enters.
    pub entries: Entries,
    /// What compiled it.
    pub compiler: Compiler,
    /// The same for instances whose calls run on fibers.
    pub on_fibers: InstancePre<Vm>,
}

/// The host functions.
struct Linkers {
    inline: Linker<Vm>,
    on_fibers: Linker<Vm>,
}

/// Compiles plugins, or finds them compiled.
#[derive(Clone)]
pub struct Compiler {
    linkers: Arc<Linkers>,
    workshop: Option<Workshop>,
}

impl Compiler {
    /// A compiler for an engine. Without a workshop it compiles in this process, whatever that takes.
    ///
    /// # Errors
    /// When the host functions cannot be linked; a mistake of ours.
    pub fn new(engine: &Engine, workshop: Option<Workshop>) -> anyhow::Result<Self> {
        let (mut linker, mut fiber_linker) = (Linker::new(engine), Linker::new(engine));
        abi::link(&mut linker)?;
        abi::link_on_fibers(&mut fiber_linker)?;
        Ok(Self { linkers: Arc::new(Linkers { inline: linker, on_fibers: fiber_linker }), workshop })
    }

    /// Compiles a plugin, unless it is in the cache. It takes its time: never call it on a worker.
    ///
    /// # Errors
    /// Why the plugin is refused.
    pub fn compile(&self, bytes: &[u8], digest: &Digest) -> Result<PluginModule, Refusal> {
        refuse_by_header(bytes)?;
        counts::check(bytes, self.workshop.as_ref().map_or(MOST_FUNCTIONS, |workshop| workshop.functions))?;
        let engine = self.linkers.inline.engine();
        let module = match self.workshop.as_ref().and_then(|workshop| workshop.cache.load(engine, digest)) {
            Some(module) => {
                tracing::debug!(%digest, "compiled code is taken from the cache");
                module
            }
            None => {
                let started = Instant::now();
                let module = match &self.workshop {
                    Some(workshop) => compile_apart(engine, bytes, digest, workshop)?,
                    None => compile(engine, bytes)?,
                };
                tracing::info!(%digest, took = ?started.elapsed(), "a plugin is compiled");
                module
            }
        };
        let version = check(&module)?;
        let link =
            |linker: &Linker<Vm>| linker.instantiate_pre(&module).map_err(|e| Refusal::Invalid(reason(&e)));
        let (pre, on_fibers) = (link(&self.linkers.inline)?, link(&self.linkers.on_fibers)?);
        let short = |short: &Function| module.get_export(short.name).is_some_and(|ty| short.fits(&ty));
        let short_headers = SHORT_HEADERS.each_ref().map(short);
        let entries = Entries::of(&module);
        Ok(PluginModule { version, short_headers, pre, entries, on_fibers, compiler: self.clone() })
    }
}

/// Compiles a file only to look at it.
///
/// # Errors
/// Why it would be refused.
pub fn examine(engine: &Engine, bytes: &[u8]) -> Result<(), Refusal> {
    refuse_by_header(bytes)?;
    counts::check(bytes, MOST_FUNCTIONS)?;
    check(&compile(engine, bytes)?).map(drop)
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Module, Refusal> {
    Module::from_binary(engine, bytes).map_err(|error| features::refusal(bytes, reason(&error)))
}

/// Compiles in a process of its own, where a module that takes too much ends nothing else.
fn compile_apart(
    engine: &Engine,
    bytes: &[u8],
    digest: &Digest,
    workshop: &Workshop,
) -> Result<Module, Refusal> {
    workshop.compile(bytes, |reason| features::refusal(bytes, reason))?;
    // Where the cache cannot be written, it is known now that compiling does no harm.
    workshop.cache.load(engine, digest).map_or_else(|| compile(engine, bytes), Ok)
}

/// Refuses a module whose imports or exports do not fit, and tells its version.
fn check(module: &Module) -> Result<Version, Refusal> {
    check_imports(module)?;
    let exports = |name: &str| module.get_export(name).is_some();
    let mut versions = Version::ALL.iter().copied().filter(|version| exports(version.marker()));
    let version = versions.next().ok_or(Refusal::NoMarker)?;
    if versions.next().is_some() {
        return Err(Refusal::ManyMarkers);
    }
    check_exports(module, version)?;
    Ok(version)
}

/// What the first bytes tell.
fn refuse_by_header(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() > MAX_SIZE {
        return Err(Refusal::TooLarge);
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(Refusal::Precompiled);
    }
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(()),
        // The layer of a component (component-model, Binary.md).
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Err(Refusal::Component),
        [0, b'a', b's', b'm', ..] => {
            Err(Refusal::Invalid("its header is cut off, or of another version".into()))
        }
        _ => Err(Refusal::NotWasm),
    }
}

fn check_imports(module: &Module) -> Result<(), Refusal> {
    for import in module.imports() {
        let name = || (import.module().to_owned(), import.name().to_owned());
        let known = match import.module() {
            HOST_MODULE => HOST_FUNCTIONS.iter().chain(COMPILER_FUNCTIONS).find(|f| f.name == import.name()),
            module if WASI_MODULES.contains(&module) => {
                WASI_FUNCTIONS.iter().find(|f| f.name == import.name())
            }
            _ => None,
        };
        let Some(known) = known else {
            let (module, name) = name();
            if let ExternType::Memory(_) = import.ty() {
                return Err(Refusal::ImportedMemory(format!("{module}.{name}")));
            }
            return Err(Refusal::UnknownImport { module, name });
        };
        if !known.fits(&import.ty()) {
            let (module, name) = name();
            return Err(Refusal::WrongImport { module, name });
        }
    }
    Ok(())
}

fn check_exports(module: &Module, version: Version) -> Result<(), Refusal> {
    for callback in CALLBACKS {
        let fits = |ty: &ExternType| {
            let short = SHORT_HEADERS.iter().find(|short| short.name == callback.name);
            callback.fits(ty) || (version == Version::V0_1_0 && short.is_some_and(|short| short.fits(ty)))
        };
        if module.get_export(callback.name).is_some_and(|ty| !fits(&ty)) {
            return Err(Refusal::WrongExport(callback.name.to_owned()));
        }
    }
    // One with parameters would not be called, and nobody would know why nothing works.
    for name in ["_initialize", "_start"] {
        let start = Function { name, params: &[], returns: false };
        if module.get_export(name).is_some_and(|ty| !start.fits(&ty)) {
            return Err(Refusal::WrongExport(name.to_owned()));
        }
    }
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(Refusal::NoMemory);
    }
    let exports = |function: &Function| module.get_export(function.name).is_some_and(|ty| function.fits(&ty));
    if !ALLOCATORS.iter().any(exports) {
        return Err(Refusal::NoAllocator);
    }
    Ok(())
}

/// The innermost reason of an error, which is the one that helps.
fn reason(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}
