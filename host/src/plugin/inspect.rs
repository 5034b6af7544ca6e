//! What a file says of itself before anything of it runs, for `weir plugin inspect`.

use serde::Serialize;
use wasmparser::{KnownCustom, Parser, Payload, ProducersSectionReader};
use wasmtime::{Engine, ExternType, MemoryType, Module};
use weir_abi::{HOST_MODULE, SDK_SECTION, Version};

use crate::plugin::abi::{CALLBACKS, COMPILER_FUNCTIONS, HOST_FUNCTIONS};
use crate::plugin::digest::Digest;
use crate::plugin::module::examine;

/// What is known of a file.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Bytes.
    pub size: usize,
    /// SHA-256.
    pub digest: Digest,
    /// Whether Weir would load it.
    pub loadable: bool,
    /// Why not.
    pub refused: Option<String>,
    /// The Proxy-Wasm version that it is marked with.
    pub abi: Option<String>,
    /// The SDK that it was built with, when it can be told.
    pub sdk: Option<String>,
    /// The compilers and languages that it names (the `producers` section of WebAssembly's tool conventions).
    pub producers: Vec<String>,
    /// The callbacks that it exports: what it will be called for.
    pub callbacks: Vec<String>,
    /// The functions of Proxy-Wasm that it may call.
    pub host_functions: Vec<String>,
    /// The functions of WASI that it may call.
    pub wasi_functions: Vec<String>,
    /// What else it imports: nobody has it.
    pub unknown_imports: Vec<String>,
    /// Its memory.
    pub memory: Option<Memory>,
}

/// A memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What it begins with.
    pub initial: u64,
    /// What it may grow to by its own declaration; a filter's `memory` budget holds as well.
    pub maximum: Option<u64>,
}

impl Inspection {
    /// Looks at the bytes of a file, the way a start would.
    pub fn of(engine: &Engine, bytes: &[u8]) -> Self {
        let (module, refused) = match examine(engine, bytes) {
            Ok((module, refusal)) => (Some(module), refusal),
            Err(refusal) => (None, Some(refusal)),
        };
        let refused = refused.map(|refusal| refusal.to_string());
        let mut inspection = Self {
            size: bytes.len(),
            digest: Digest::of(bytes),
            loadable: refused.is_none(),
            refused,
            abi: None,
            sdk: None,
            producers: Vec::new(),
            callbacks: Vec::new(),
            host_functions: Vec::new(),
            wasi_functions: Vec::new(),
            unknown_imports: Vec::new(),
            memory: None,
        };
        inspection.read_sections(bytes);
        if let Some(module) = module {
            inspection.read_module(&module);
        }
        inspection
    }

    fn read_module(&mut self, module: &Module) {
        let marked = Version::ALL.iter().find(|version| module.get_export(version.marker()).is_some());
        self.abi = marked.map(ToString::to_string);
        let exported = CALLBACKS.iter().filter(|callback| module.get_export(callback.name).is_some());
        self.callbacks = exported.map(|callback| callback.name.to_owned()).collect();
        for import in module.imports() {
            let name = import.name().to_owned();
            let known =
                |name: &str| HOST_FUNCTIONS.iter().chain(COMPILER_FUNCTIONS).any(|known| known.name == name);
            match import.module() {
                HOST_MODULE if known(&name) => self.host_functions.push(name),
                module if weir_abi::WASI_MODULES.contains(&module) => self.wasi_functions.push(name),
                module => self.unknown_imports.push(format!("{module}.{name}")),
            }
        }
        if let Some(ExternType::Memory(memory)) = module.get_export("memory") {
            self.memory = Some(Memory::of(&memory));
        }
    }

    /// What stands beside the code: which tools made it.
    fn read_sections(&mut self, bytes: &[u8]) {
        // A file that breaks off says what it says up to there.
        for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
            let Payload::CustomSection(section) = payload else { continue };
            if section.name() == SDK_SECTION {
                self.sdk = std::str::from_utf8(section.data()).ok().map(str::to_owned);
            } else if let KnownCustom::Producers(producers) = section.as_known() {
                self.read_producers(producers);
            }
        }
        if self.sdk.is_none() {
            self.sdk = rust_sdk(bytes);
        }
    }

    fn read_producers(&mut self, producers: ProducersSectionReader<'_>) {
        for field in producers.into_iter().map_while(Result::ok) {
            for value in field.values.into_iter().map_while(Result::ok) {
                let text = format!("{} {}", value.name, value.version);
                self.producers.push(text.trim().to_owned());
            }
        }
    }
}

impl Memory {
    fn of(memory: &MemoryType) -> Self {
        let bytes = |pages: u64| pages.saturating_mul(memory.page_size());
        Self { initial: bytes(memory.minimum()), maximum: memory.maximum().map(bytes) }
    }
}

/// The official Rust SDK leaves no mark, but the places of its panics are in the data: `proxy-wasm-0.2.4/src/...`.
fn rust_sdk(bytes: &[u8]) -> Option<String> {
    let name = b"proxy-wasm-";
    let at = memchr::memmem::find_iter(bytes, name).find_map(|at| {
        let rest = bytes.get(at + name.len()..)?;
        let version = rest.get(..rest.iter().take(32).position(|&byte| byte == b'/')?)?;
        version.first().is_some_and(u8::is_ascii_digit).then_some(version)
    })?;
    Some(format!("proxy-wasm {} (Rust)", std::str::from_utf8(at).ok()?))
}
