//! Plugins are compiled apart: what takes too much is refused, and what serves goes on serving.

use std::time::{Duration, Instant};

use weir_tests::guests::wasm;
use weir_tests::http::{get, mirror};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

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
