//! What a file says of itself before anything of it runs, for `weir plugin inspect`.

use serde::Serialize;
use serde_json::Value as Json;
use wasmparser::{
    Encoding, Export, ExternalKind, Import, KnownCustom, MemoryType, Parser, Payload, ProducersSectionReader,
    TypeRef,
};
use wasmtime::Engine;
use weir_abi::{HOST_MODULE, SDK_SECTION, Version, WASI_MODULES};

use crate::plugin::abi::{CALLBACKS, COMPILER_FUNCTIONS, Function, HOST_FUNCTIONS, WASI_FUNCTIONS};
use crate::plugin::digest::Digest;
use crate::plugin::module::examine;
use crate::plugin::requests::{Requests, SECTION};

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
    /// The name that it gives itself.
    pub name: Option<String>,
    /// The version that it gives itself.
    pub version: Option<String>,
    /// What its configuration may be, as JSON Schema, when it says.
    pub config: Option<Json>,
    /// What it asks for, as it would stand in a filter's `grants`. Only the configuration grants it.
    pub asks_for: Vec<String>,
    /// Its memory.
    pub memory: Option<Memory>,
}

/// The longest description that is read, in bytes.
const LONGEST_DESCRIPTION: usize = 64 << 10;

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
        let refused = examine(engine, bytes).err().map(|refusal| refusal.to_string());
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
            name: None,
            version: None,
            config: None,
            asks_for: match Requests::of(bytes) {
                Ok(requests) => requests.map(|requests| requests.missing(None)).unwrap_or_default(),
                Err(reason) => vec![reason],
            },
            memory: None,
        };
        inspection.read_sections(bytes);
        inspection
    }

    /// Section by section, whether the engine compiles the whole or not.
    fn read_sections(&mut self, bytes: &[u8]) {
        // A file that breaks off says what it says up to there.
        for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
            if let Payload::Version { encoding: Encoding::Component, .. } = payload {
                // The modules within a component are not what would be loaded.
                return;
            } else if let Payload::ImportSection(imports) = payload {
                imports.into_imports().map_while(Result::ok).for_each(|import| self.read_import(&import));
            } else if let Payload::ExportSection(exports) = payload {
                exports.into_iter().map_while(Result::ok).for_each(|export| self.read_export(&export));
            } else if let Payload::MemorySection(memories) = payload {
                let first = memories.into_iter().next().and_then(Result::ok);
                self.memory = self.memory.or(first.map(|memory| Memory::of(&memory)));
            } else if let Payload::CustomSection(section) = payload {
                if section.name() == SDK_SECTION {
                    self.sdk = std::str::from_utf8(section.data()).ok().map(str::to_owned);
                } else if section.name() == SECTION && section.data().len() <= LONGEST_DESCRIPTION {
                    self.read_description(section.data());
                } else if let KnownCustom::Producers(producers) = section.as_known() {
                    self.read_producers(producers);
                }
            }
        }
        // In the order of the contract, as a plugin's life goes.
        let place = |name: &String| CALLBACKS.iter().position(|callback| callback.name == name);
        self.callbacks.sort_by_key(place);
        if self.sdk.is_none() {
            self.sdk = sdk(bytes);
        }
    }

    /// What it says of itself. What it asks for is read by whoever reads grants.
    fn read_description(&mut self, section: &[u8]) {
        let Ok(Json::Object(mut said)) = serde_json::from_slice(section) else { return };
        let text = |key: &str| said.get(key).and_then(Json::as_str).map(str::to_owned);
        (self.name, self.version) = (text("name"), text("version"));
        self.config = said.remove("config");
    }

    /// The fields of its configuration, for people: name, type, whether it must be there, and its description.
    pub fn config_fields(&self) -> Vec<String> {
        let Some(config) = &self.config else { return Vec::new() };
        let required = config.get("required").and_then(Json::as_array);
        let must = |name: &str| required.is_some_and(|all| all.iter().any(|field| field == name));
        let field = |(name, schema): (&String, &Json)| {
            let text = |key| schema.get(key).and_then(Json::as_str);
            let ty = text("type").map(|ty| format!(", {ty}")).unwrap_or_default();
            let need = if must(name) { "mandatory" } else { "optional" };
            let says = text("description").map(|says| format!(": {says}")).unwrap_or_default();
            format!("{name} ({need}{ty}){says}")
        };
        config.get("properties").and_then(Json::as_object).into_iter().flatten().map(field).collect()
    }

    fn read_import(&mut self, import: &Import<'_>) {
        let name = import.name.to_owned();
        let known = |functions: &[Function]| functions.iter().any(|known| known.name == name);
        let (list, shown) = match import.module {
            HOST_MODULE if known(HOST_FUNCTIONS) || known(COMPILER_FUNCTIONS) => {
                (&mut self.host_functions, name)
            }
            module if WASI_MODULES.contains(&module) && known(WASI_FUNCTIONS) => {
                (&mut self.wasi_functions, name)
            }
            module => (&mut self.unknown_imports, format!("{module}.{name}")),
        };
        // Go imports what it needs once for each package that needs it.
        if !list.contains(&shown) {
            list.push(shown);
        }
        if let TypeRef::Memory(memory) = import.ty {
            self.memory = Some(Memory::of(&memory));
        }
    }

    fn read_export(&mut self, export: &Export<'_>) {
        if export.kind != ExternalKind::Func {
            return;
        }
        if let Some(version) = Version::ALL.iter().find(|version| version.marker() == export.name) {
            self.abi = Some(version.to_string());
        }
        if CALLBACKS.iter().any(|callback| callback.name == export.name) {
            self.callbacks.push(export.name.to_owned());
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
        let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
        let bytes = |pages: u64| pages.saturating_mul(page);
        Self { initial: bytes(memory.initial), maximum: memory.maximum.map(bytes) }
    }
}

/// An SDK that leaves no section of its own, by what it leaves in the data: places of its panics, names of its
/// packages.
fn sdk(bytes: &[u8]) -> Option<String> {
    let has = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    let marks = [
        ("github.com/proxy-wasm/proxy-wasm-go-sdk", "proxy-wasm-go-sdk (Go)"),
        ("github.com/tetratelabs/proxy-wasm-go-sdk", "proxy-wasm-go-sdk (Go), of tetratelabs"),
    ];
    rust_sdk(bytes).or_else(|| marks.iter().find(|(mark, _)| has(mark)).map(|(_, name)| (*name).to_owned()))
}

/// The official Rust SDK, as in `proxy-wasm-0.2.4/src/...`.
fn rust_sdk(bytes: &[u8]) -> Option<String> {
    let name = b"proxy-wasm-";
    let at = memchr::memmem::find_iter(bytes, name).find_map(|at| {
        let rest = bytes.get(at + name.len()..)?;
        let version = rest.get(..rest.iter().take(32).position(|&byte| byte == b'/')?)?;
        version.first().is_some_and(u8::is_ascii_digit).then_some(version)
    })?;
    Some(format!("proxy-wasm {} (Rust)", std::str::from_utf8(at).ok()?))
}
