//! Plugins are compiled apart: what takes too much is refused, and what serves goes on serving.

use std::time::{Duration, Instant};

use weir_tests::guests::wasm;
use weir_tests::http::{get, mirror};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

use crate::check::inspect;

/// A module that is small, valid and a Proxy-Wasm plugin, with one function that gives a compiler a lot to do.
fn bomb() -> Vec<u8> {
    // Every step needs all those before it.
    let steps: String = (0..150_000)
        .map(|at| {
            format!("(local.set {0} (i32.add (local.get {0}) (local.get {1})))", at % 97, (at * 31) % 97)
        })
        .collect();
    let locals = "i32 ".repeat(97);
    wat::parse_str(format!(
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\")) \
         (func (export \"malloc\") (param i32) (result i32) (i32.const 1024)) \
         (func (export \"bomb\") (local {locals}) (loop {steps} (br_if 0 (local.get 0)))))"
    ))
    .expect("a module")
}

fn gateway(limits: &str, mirror: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         plugins: {{ directory: plugins, cache: cache, {limits} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", \
           http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    Setup::new().config(config).start()
}

#[tokio::test]
async fn a_plugin_that_takes_too_long_to_compile_is_refused_at_the_deadline_and_traffic_goes_on() {
    let mirror = mirror().await;
    // It takes several times that on any machine.
    let gateway = gateway("compile_time: 1s", &mirror);
    let started = Instant::now();
    gateway.swap_plugin("bomb", &bomb());
    let line = gateway.wait_for_log("compiling it took longer than 1 s");
    assert!(line.contains("bomb"), "{line}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn a_plugin_that_takes_too_much_memory_to_compile_is_refused_and_traffic_goes_on() {
    let mirror = mirror().await;
    let gateway = gateway("compile_memory: 192MiB", &mirror);
    gateway.swap_plugin("bomb", &bomb());
    let line = gateway.wait_for_log("compiling it took more than 192 MiB of memory");
    assert!(line.contains("bomb"), "{line}");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    // A plugin that is good is compiled after it as before.
    gateway.swap_plugin("http-version", &wasm("http-version"));
    gateway.wait_for_log("a new version serves plugin=\"http-version\"");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

/// A plugin with so many functions, all of which do nothing.
fn with_functions(count: usize) -> Vec<u8> {
    let functions = "(func)".repeat(count - 2);
    wat::parse_str(format!(
        "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\")) \
         (func (export \"malloc\") (param i32) (result i32) (i32.const 1024)) {functions})"
    ))
    .expect("a module")
}

#[tokio::test]
async fn a_plugin_with_more_functions_than_are_configured_is_refused_before_it_is_compiled() {
    let mirror = mirror().await;
    let gateway = gateway("compile_functions: 500", &mirror);
    gateway.swap_plugin("many", &with_functions(501));
    let line =
        gateway.wait_for_log("it has 501 functions, and may have 500; raise `plugins.compile_functions`");
    assert!(line.contains("many"), "{line}");
    assert!(!gateway.logged("a plugin is compiled"));
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    gateway.swap_plugin("many", &with_functions(500));
    gateway.wait_for_log("a new version serves plugin=\"many\"");
}

#[test]
fn more_of_anything_than_plugins_may_have_is_refused_by_its_name() {
    let module = |more: String| {
        let own = "(memory (export \"memory\") 1) (func $f (export \"proxy_abi_version_0_2_1\"))";
        wat::parse_str(format!("(module {more} {own})")).expect("a module")
    };
    let repeat = |text: &str| module(text.repeat(100_001));
    let exports = (0..100_001).map(|number| format!("(export \"{number}\" (func $f))")).collect();
    let long = "(nop)".repeat(5 << 20);
    for (reason, bytes) in [
        ("it has 200001 functions, and may have 200000; raise", with_functions(200_001)),
        ("it has 100001 globals, and may have 100000; make it smaller", repeat("(global i32 (i32.const 0))")),
        ("100001 data segments", repeat("(data (i32.const 0) \"\")")),
        ("100001 element segments", repeat("(elem func)")),
        ("100001 types", repeat("(type (func))")),
        ("100001 imports", repeat("(import \"env\" \"f\" (func))")),
        ("exports, and may have 100000", module(exports)),
        (
            "a function in it has 5242882 bytes of code, and may have 4194304",
            module(format!("(func {long})")),
        ),
    ] {
        let (good, json, _) = inspect(&bytes);
        assert!(
            !good && json["refused"].as_str().is_some_and(|told| told.contains(reason)),
            "{reason}: {json:#}"
        );
    }
}
