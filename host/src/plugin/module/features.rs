//! What a module asks of WebAssembly that plugins are not given. It is only looked for once the engine has refused
//! to compile the module, so as to say more than the engine does.

use wasmparser::{Validator, WasmFeatures};

use crate::plugin::module::Refusal;

/// Why a module does not compile.
pub fn refusal(bytes: &[u8], reason: String) -> Refusal {
    let validates = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    let all = WasmFeatures::all();
    if !validates(all) {
        return Refusal::Invalid(reason);
    }
    // Without what it needs, and with all the rest, it does not validate.
    let candidates = [
        (WasmFeatures::THREADS, Refusal::Threads),
        (WasmFeatures::MEMORY64, Refusal::Memory64),
        (WasmFeatures::MULTI_MEMORY, Refusal::ManyMemories),
        (WasmFeatures::EXCEPTIONS | WasmFeatures::LEGACY_EXCEPTIONS, Refusal::Exceptions),
        (WasmFeatures::GC, Refusal::GarbageCollector),
        // With all the rest, and without the collector's types, only these are left.
        (WasmFeatures::GC_TYPES, Refusal::References),
    ];
    let needed = candidates.into_iter().find(|(feature, _)| !validates(all.difference(*feature)));
    needed.map_or(Refusal::Unsupported(reason), |(_, refusal)| refusal)
}
