//! What is no plugin is refused before anything of it runs, with a sentence that says what to do: when it is dropped
//! into the directory, and when `weir plugin inspect` looks at it.

use weir_tests::guests::wat;
use weir_tests::http::get;
use weir_tests::{Gateway, Setup};

use crate::check::inspect;

/// What a module must have to be a plugin, in pieces.
const MARKER: &str = "(func (export \"proxy_abi_version_0_2_1\"))";
const MEMORY: &str = "(memory (export \"memory\") 1)";
const MALLOC: &str = "(func (export \"malloc\") (param i32) (result i32) (i32.const 64))";

fn module(pieces: &[&str]) -> Vec<u8> {
    wat(&format!("(module {})", pieces.join(" ")))
}

/// Everything that a plugin needs, and one thing more.
fn whole(more: &str) -> Vec<u8> {
    module(&[more, MARKER, MEMORY, MALLOC])
}

fn import(module: &str, name: &str) -> Vec<u8> {
    whole(&format!("(import \"{module}\" \"{name}\" (func))"))
}

/// A module, and what is said of it.
type Case = (&'static str, Vec<u8>);

fn cases() -> Vec<Case> {
    [not_whole(), imports(), exports(), features()].concat()
}

/// What is no module, or lacks what a plugin must have.
fn not_whole() -> Vec<Case> {
    vec![
        ("copy the .wasm that the build wrote", b"#!/bin/sh\nexit 0\n".to_vec()),
        ("is not valid WebAssembly, or not all of it", b"\0asm\x01\0".to_vec()),
        ("is not valid WebAssembly, or not all of it", whole("")[..20].to_vec()),
        ("it is larger than 64 MiB; strip it", [b"\0asm\x01\0\0\0".to_vec(), vec![0; 64 << 20]].concat()),
        (
            "it is precompiled machine code, which is never loaded from here; copy the .wasm",
            precompiled(&whole("")),
        ),
        ("is a component; build a module", wat("(component)")),
        (
            "is a component; build a module",
            wat(&format!("(component (core module {MARKER} {MEMORY} {MALLOC}))")),
        ),
        ("no proxy_abi_version_*, so it is no Proxy-Wasm plugin; build it with", module(&[MEMORY, MALLOC])),
        (
            "several proxy_abi_version_* markers; link one SDK only",
            whole("(func (export \"proxy_abi_version_0_2_0\"))"),
        ),
        (
            "no memory named `memory`, so the host could not pass it anything; export it",
            module(&[MARKER, MALLOC]),
        ),
        ("no memory named `memory`", module(&[MARKER, MALLOC, "(memory (export \"mem\") 1)"])),
        (
            "no memory named `memory`",
            module(&[MARKER, MALLOC, "(global (export \"memory\") i32 (i32.const 0))"]),
        ),
        ("neither `malloc` nor `proxy_on_memory_allocate`, so the host could not", module(&[MARKER, MEMORY])),
        (
            "neither `malloc` nor `proxy_on_memory_allocate`",
            module(&[MARKER, MEMORY, "(func (export \"malloc\") (param i64) (result i32) (i32.const 64))"]),
        ),
    ]
}

fn imports() -> Vec<Case> {
    vec![
        (
            "imports `env.helper`, which Weir does not have; if it is a function of the plugin's own, link",
            import("env", "helper"),
        ),
        (
            "`env.proxy_no_such`, which Weir does not have; no version of Proxy-Wasm",
            import("env", "proxy_no_such"),
        ),
        ("`wasi_snapshot_preview1.no_such`", import("wasi_snapshot_preview1", "no_such")),
        (
            "`wasi:clocks/wall-clock@0.2.0.now`, which Weir does not have; build for wasm32-wasip1",
            import("wasi:clocks/wall-clock@0.2.0", "now"),
        ),
        (
            "built for browsers; build for wasm32-wasip1 without wasm-bindgen",
            import("./plugin_bg.js", "__wbindgen_throw"),
        ),
        ("build Go with `GOOS=wasip1` and `-buildmode=c-shared`", import("gojs", "runtime.wasmExit")),
        ("it is AssemblyScript's; compile with `--use abort=...`", import("env", "abort")),
        ("exceptions of C++; compile with `-fno-exceptions`", import("env", "__cxa_throw")),
        ("link with `-sSTANDALONE_WASM`", import("env", "emscripten_resize_heap")),
        (
            "it is a dynamic library; link it as a module that stands alone",
            whole("(import \"env\" \"__memory_base\" (global i32))"),
        ),
        (
            "build without threads",
            whole("(import \"wasi\" \"thread-spawn\" (func (param i32) (result i32)))"),
        ),
        (
            "imports `env.proxy_log` with another signature than the contract's; rebuild it",
            import("env", "proxy_log"),
        ),
        ("`env.proxy_log` with another signature", whole("(import \"env\" \"proxy_log\" (global i32))")),
        ("`wasi_unstable.fd_write` with another signature", import("wasi_unstable", "fd_write")),
        ("`env.pthread_equal` with another signature", import("env", "pthread_equal")),
        (
            "imports a memory (`env.memory`) in the place of its own; link it without `--import-memory`",
            module(&[
                "(import \"env\" \"memory\" (memory 1)) (export \"memory\" (memory 0))",
                MARKER,
                MALLOC,
            ]),
        ),
    ]
}

fn exports() -> Vec<Case> {
    vec![
        (
            "its export `proxy_on_request_headers` has another signature than the contract's; rebuild it",
            whole("(func (export \"proxy_on_request_headers\") (param i32) (result i32) (i32.const 0))"),
        ),
        (
            "its export `proxy_on_tick` has another signature",
            whole("(global (export \"proxy_on_tick\") i32 (i32.const 0))"),
        ),
        (
            "its export `_initialize` has another signature",
            whole("(func (export \"_initialize\") (param i32))"),
        ),
        (
            "its export `_start` has another signature",
            whole("(func (export \"_start\") (result i32) (i32.const 0))"),
        ),
    ]
}

/// What WebAssembly can do and plugins are not given.
fn features() -> Vec<Case> {
    vec![
        (
            "it uses threads (atomic instructions, or a memory that is shared)",
            module(&["(memory (export \"memory\") 1 2 shared)", MARKER, MALLOC]),
        ),
        (
            "it uses threads",
            module(&[
                "(import \"env\" \"memory\" (memory 1 2 shared)) (export \"memory\" (memory 0))",
                MARKER,
                MALLOC,
            ]),
        ),
        (
            "and an instance has one thread; build it without them",
            whole("(func (drop (i32.atomic.load (i32.const 0))))"),
        ),
        ("it uses threads", whole("(func (atomic.fence))")),
        (
            "its memory has 64-bit addresses; build it for wasm32",
            module(&["(memory (export \"memory\") i64 1)", MARKER, MALLOC]),
        ),
        ("it has several memories; link it with one", whole("(memory 1)")),
        ("it uses exceptions of WebAssembly; build it without", whole("(tag $e) (func (throw $e))")),
        (
            "it needs WebAssembly's garbage collector",
            whole("(type $s (struct)) (func (drop (struct.new $s)))"),
        ),
        ("it needs WebAssembly's garbage collector", whole("(func (param anyref))")),
        (
            "it handles values of its host by reference (`externref`), and plugins are given none",
            whole("(table 1 externref)"),
        ),
        ("by reference (`externref`)", whole("(func (param externref))")),
        ("by reference (`externref`)", whole("(func (drop (ref.null extern)))")),
        (
            "it asks for more than plugins are given",
            whole(
                "(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)",
            ),
        ),
    ]
}

fn precompiled(module: &[u8]) -> Vec<u8> {
    wasmtime::Engine::default().precompile_module(module).expect("a module that compiles")
}

#[test]
fn inspect_gives_the_reason_for_every_refusal() {
    for (reason, bytes) in cases() {
        let (good, json, text) = inspect(&bytes);
        assert!(!good && json["loadable"] == false, "{reason}: {json:#}");
        assert!(json["refused"].as_str().is_some_and(|told| told.contains(reason)), "{reason}: {json:#}");
        assert!(text.contains(reason), "{text}");
    }
}

fn gateway() -> Gateway {
    let config = "listeners: [ { name: web, address: \"127.0.0.1:0\", http: { filters: [ { plugin: it } ], \
                    routes: [ { respond: { status: 200, body: served } } ] } } ]";
    let good = wat(&format!("(module {MARKER} {MEMORY} {MALLOC})"));
    Setup::new().plugin_bytes("it", &good).config(config).start()
}

#[tokio::test]
async fn what_is_dropped_into_the_directory_is_refused_with_the_same_reason_and_the_old_version_serves() {
    let gateway = gateway();
    for (at, (reason, bytes)) in cases().into_iter().enumerate() {
        gateway.swap_plugin("it", &bytes);
        let line = gateway.wait_for_log_count("a version is refused: ", at + 1);
        assert!(line.contains(reason) && line.contains("plugin=\"it\""), "{reason}: {line}");
        assert_eq!(get(gateway.address("web"), "/").await.text(), "served", "{reason}");
    }
}

/// Modules that load, and end themselves as they start.
fn that_fail_to_start() -> Vec<Case> {
    let module = |memory: &str, more: &str| wat(&format!("(module {more} {MARKER} {memory} {MALLOC})"));
    let exit = "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))";
    vec![
        ("the start function failed: ", module(MEMORY, "(func $start unreachable) (start $start)")),
        ("_initialize failed: ", module(MEMORY, "(func (export \"_initialize\") unreachable)")),
        (
            "the plugin exited with status 7",
            module(MEMORY, &format!("{exit} (func (export \"_start\") (call $exit (i32.const 7)))")),
        ),
        (
            "main failed: ",
            module(
                MEMORY,
                "(func (export \"_initialize\")) (func (export \"main\") (param i32 i32) (result i32) unreachable)",
            ),
        ),
        (
            "it begins with more memory than the 67108864 bytes of the filter's `memory`; raise that",
            module("(memory (export \"memory\") 2000)", ""),
        ),
    ]
}

#[tokio::test]
async fn what_loads_and_fails_to_start_is_refused_with_the_place_where_it_failed_and_the_old_version_serves()
{
    let gateway = gateway();
    for (at, (reason, bytes)) in that_fail_to_start().into_iter().enumerate() {
        let (good, json, _) = inspect(&bytes);
        assert!(good, "nothing of it runs when it is only looked at: {json:#}");
        gateway.swap_plugin("it", &bytes);
        gateway.wait_for_log_count("a version is refused: ", at + 1);
        gateway.wait_for_log(reason);
        assert_eq!(get(gateway.address("web"), "/").await.text(), "served", "{reason}");
    }
}

#[test]
fn inspect_lists_what_a_module_uses_though_it_is_refused() {
    let bytes = wat(&format!(
        "(module (import \"env\" \"memory\" (memory 2 3 shared)) (export \"memory\" (memory 0))
           (import \"env\" \"proxy_log\" (func (param i32 i32 i32) (result i32)))
           (import \"wasi_unstable\" \"sched_yield\" (func (result i32)))
           (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))
           (import \"wasi\" \"thread-spawn\" (func (param i32) (result i32)))
           {MALLOC} {MARKER}
           (func (export \"proxy_on_log\") (param i32))
           (func (export \"proxy_on_tick\") (param i32)))"
    ));
    let (good, json, _) = inspect(&bytes);
    assert!(!good);
    assert_eq!(json["abi"], "0.2.1");
    assert_eq!(json["callbacks"], serde_json::json!(["proxy_on_tick", "proxy_on_log"]));
    assert_eq!(json["host_functions"], serde_json::json!(["proxy_log"]));
    assert_eq!(json["wasi_functions"], serde_json::json!(["sched_yield"]), "each of them once");
    assert_eq!(json["unknown_imports"], serde_json::json!(["env.memory", "wasi.thread-spawn"]));
    assert_eq!(json["memory"], serde_json::json!({ "initial": 2 << 16, "maximum": 3 << 16 }));
}
