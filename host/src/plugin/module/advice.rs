//! What to do about an import that nobody has, by what it tells of the build.

/// The cure for an unknown import.
pub fn advice(module: &str, name: &str) -> &'static str {
    let cxx = ["__cxa_", "_Unwind_", "invoke_", "__resumeException"];
    match module {
        "wbg" => BROWSER,
        _ if module.starts_with("__wbindgen") || module.ends_with(".js") => BROWSER,
        "go" | "gojs" => "it was built for browsers; build Go with `GOOS=wasip1` and `-buildmode=c-shared`",
        "GOT.mem" | "GOT.func" => DYNAMIC,
        _ if module.starts_with("wasi:") || module.contains('/') => {
            "build for wasm32-wasip1 (preview 1), not for a later WASI"
        }
        "wasi" if name.starts_with("thread") => {
            "an instance has one thread; build without threads (no `-pthread`, no target with `threads` in its name)"
        }
        "env" => match name {
            "abort" | "seed" | "trace" | "console.log" => {
                "it is AssemblyScript's; compile with `--use abort=...` (and `seed`, `trace`) to name functions of your own"
            }
            "__memory_base" | "__table_base" | "__stack_pointer" | "__indirect_function_table" => DYNAMIC,
            _ if cxx.iter().any(|prefix| name.starts_with(prefix)) => {
                "it belongs to exceptions of C++; compile with `-fno-exceptions`"
            }
            _ if name.starts_with("emscripten_") || name.starts_with("__syscall_") => {
                "it belongs to Emscripten's JavaScript; link with `-sSTANDALONE_WASM`"
            }
            _ if name.starts_with("proxy_") => {
                "no version of Proxy-Wasm that Weir speaks has it; build with an SDK for 0.2.1 or older"
            }
            _ => "if it is a function of the plugin's own, link what defines it",
        },
        _ => "a filter has the functions of Proxy-Wasm (`env`) and of WASI preview 1",
    }
}

const BROWSER: &str = "it was built for browsers; build for wasm32-wasip1 without wasm-bindgen";
const DYNAMIC: &str =
    "it is a dynamic library; link it as a module that stands alone (no `-fPIC`, no `SIDE_MODULE`)";
