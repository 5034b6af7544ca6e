//! `scheduling: preemptible`: filters whose calls give way.

mod parity;
mod pool;

use std::net::SocketAddr;

use http::StatusCode;
use tokio::task::JoinHandle;
use weir_tests::guests::wat;
use weir_tests::http::{Answer, Client, empty, get, mirror};
use weir_tests::upstream::{Upstream, background};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

/// About a millisecond for a module that counts, on a machine of its time.
const MILLISECOND: u64 = 1_500_000;

/// A module that counts to `count` when it is shown request headers. Each instance says so once, and each stream says
/// when it begins to count and when it is logged. `id` makes it another version.
fn counting(count: u64, id: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module
          (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "at work")
          (data (i32.const 16) "an instance")
          (data (i32.const 32) "it is over")
          (global $worked (mut i32) (i32.const 0))
          (func $say (param $at i32) (param $len i32)
            (drop (call $log (i32.const 2) (local.get $at) (local.get $len))))
          (func $count (param $n i64)
            (block $done (loop $more
              (br_if $done (i64.eqz (local.get $n)))
              (local.set $n (i64.sub (local.get $n) (i64.const 1)))
              (br $more))))
          (func (export "malloc") (param i32) (result i32) i32.const 1024)
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "proxy_on_context_create") (param i32 i32))
          (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $say (i32.const 0) (i32.const 7))
            (if (i32.eqz (global.get $worked)) (then
              (global.set $worked (i32.const 1))
              (call $say (i32.const 16) (i32.const 11))))
            (call $count (i64.const {count}))
            i32.const 0)
          (func (export "proxy_on_log") (param i32) (call $say (i32.const 32) (i32.const 10)))
          (func (export "version") (result i32) i32.const {id}))"#
    ))
}

/// One worker, the filter on one listener, and none on another.
fn config(filter: &str, upstream: &Upstream) -> String {
    format!(
        "runtime: {{ workers: 1 }}\n\
         drain_timeout: 2s\n\
         listeners:\n\
         \x20 - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: busy {filter} }} ], routes: [ {{ cluster: up }} ] }} }}\n\
         \x20 - {{ name: clean, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

fn gateway(filter: &str, count: u64, upstream: &Upstream) -> Gateway {
    Setup::new().plugin_bytes("busy", &counting(count, 0)).config(config(filter, upstream)).start()
}

/// What the filter used of the version that serves.
async fn used(gateway: &Gateway) -> serde_json::Value {
    let plugin = gateway.plugin("busy").await;
    let versions = plugin["versions"].as_array().cloned().unwrap_or_default();
    let serving = versions.into_iter().find(|version| version["state"] == "serving");
    serving.map(|version| version["filters"][0].clone()).unwrap_or_default()
}

async fn with_fault(gateway: &Gateway, fault: &str) -> Answer {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", fault).body(empty()).expect("a request");
    client.call(request).await.expect("an answer")
}

#[tokio::test]
async fn a_filter_that_needs_milliseconds_answers_when_it_gives_way_and_is_ended_when_it_does_not() {
    let mirror = mirror().await;
    let by_right = gateway(", scheduling: preemptible", 20 * MILLISECOND, &mirror);
    for _ in 0..5 {
        assert_eq!(get(by_right.address("web"), "/").await.status, 200, "{}", by_right.log());
    }
    assert!(!by_right.logged("a plugin failed"), "{}", by_right.log());
    let inline = gateway(", scheduling: inline", 20 * MILLISECOND, &mirror);
    assert_eq!(get(inline.address("web"), "/").await.status, 503);
    inline.wait_for_log("it used up its CPU time");
}

#[tokio::test]
async fn neighbours_are_answered_while_a_filter_computes() {
    let mirror = mirror().await;
    let budgets = "cpu: 60s, cpu_per_second: 0s, cpu_per_stream: 0s";
    let gateway = gateway(&format!(", scheduling: preemptible, {budgets}"), 500 * MILLISECOND, &mirror);
    let computing = ask(gateway.address("web"));
    gateway.wait_for_log("at work");
    let (mut client, mut answered) = (Client::h1(gateway.address("clean")).await, 0);
    while !computing.is_finished() {
        assert_eq!(client.get("/").await.status, 200);
        answered += 1;
    }
    assert_eq!(computing.await.expect("it ends"), 200);
    // A worker that the filter had for itself would have answered one, when the filter was done.
    assert!(answered > 20, "{answered} answers while the filter computed");
}

/// Sends a request, and goes on while others block the test's own thread.
fn ask(address: SocketAddr) -> JoinHandle<StatusCode> {
    background().spawn(async move { get(address, "/").await.status })
}

#[tokio::test]
async fn a_loop_is_ended_at_a_hundred_milliseconds_of_cpu_time_and_the_next_request_succeeds() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("busy", &weir_tests::guests::wasm("faulty"));
    let gateway = setup.config(config(", scheduling: preemptible", &mirror)).start();
    let answer = with_fault(&gateway, "loop").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, ""));
    gateway.wait_for_log("it used up its CPU time");
    assert_eq!(with_fault(&gateway, "").await.status, 200, "other instances are there");
    gateway.wait_for_log("a plugin that failed is back");
    until("all four instances", async || (used(&gateway).await["instances"] == 4).then_some(())).await;
    let used = used(&gateway).await;
    let spent = used["cpu_seconds"].as_f64().expect("a number");
    // The instances of the test profile take some of it, too.
    assert!((0.1..0.2).contains(&spent), "{spent} s");
}

#[tokio::test]
async fn a_filter_that_loops_again_and_again_opens_its_breaker_and_takes_a_tenth_of_a_worker_at_most() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("busy", &weir_tests::guests::wasm("faulty"));
    let gateway = setup.config(config(", scheduling: preemptible, cpu_per_second: 0s", &mirror)).start();
    let mut loops = 0;
    while !gateway.logged("a plugin fails too often") {
        assert_eq!(with_fault(&gateway, "loop").await.status, 503);
        loops += 1;
        assert!(loops < 10, "{}", gateway.log());
    }
    assert!(loops > 1, "one that gives way is not put out for one failure");
    assert_eq!(with_fault(&gateway, "").await.status, 503);
    gateway.wait_for_access("filter_breaker_open");
    assert_eq!(get(gateway.address("clean"), "/").await.status, 200);
}

#[tokio::test]
async fn a_trap_ends_the_streams_of_its_instance_and_no_others() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("busy", &weir_tests::guests::wasm("faulty"));
    let gateway = setup.config(config(", scheduling: preemptible", &mirror)).start();
    for fault in ["trap", "memory", "exit", "late-trap"] {
        let answer = with_fault(&gateway, fault).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, ""), "{fault}");
        assert_eq!(with_fault(&gateway, "").await.status, 200, "after {fault}");
    }
}

#[tokio::test]
async fn a_filter_that_may_fail_is_done_without_for_the_stream_that_it_failed() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("busy", &weir_tests::guests::wasm("faulty"));
    let gateway = setup.config(config(", scheduling: preemptible, on_failure: open", &mirror)).start();
    assert_eq!(with_fault(&gateway, "trap").await.status, 200);
    gateway.wait_for_log("a plugin failed");
    // The request that it has edited is on its way, and what fails is the response.
    assert_eq!(with_fault(&gateway, "edit-late-trap").await.status, 200);
    // What it has edited is not whole without it.
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", "edit-trap").body(empty()).expect("a request");
    assert!(client.call(request).await.is_err(), "it is reset");
}

#[tokio::test]
async fn a_message_that_waits_for_its_turn_for_too_long_is_answered_with_504() {
    let mirror = mirror().await;
    let filter =
        ", scheduling: preemptible, cpu: 60s, cpu_per_second: 0s, cpu_per_stream: 0s, pause_timeout: 100ms";
    let gateway = gateway(filter, 2_000 * MILLISECOND, &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 504);
    assert_eq!(gateway.wait_for_access("pause_timeout")["status"], 504);
    // The call itself is not cut: the guest hears of the stream's end.
    gateway.wait_for_log("it is over");
    assert!(!gateway.logged("a plugin failed"));
}
