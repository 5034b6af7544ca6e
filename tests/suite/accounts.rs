//! Who pays for what the host does on behalf of a filter.

use std::collections::VecDeque;

use serde_json::Value;
use weir_tests::guests::wat;
use weir_tests::http::{Client, asking, full, get, mirror};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// Calls that a request makes.
const CALLS: usize = 50;

/// It makes calls on request headers, and does not want to hear of their answers.
fn calling() -> Vec<u8> {
    wat(&format!(
        r#"(module
          (import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 64) "up")
          (data (i32.const 128) "\03\00\00\00\07\00\00\00\04\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\02\00\00\00"
            ":method\00POST\00:path\00/\00:authority\00up\00")
          (global $left (mut i32) (i32.const 0))
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "malloc") (param i32) (result i32) i32.const 1024)
          (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $left (i32.const {CALLS}))
            (loop $again
              (drop (call $call (i32.const 64) (i32.const 2) (i32.const 128) (i32.const 63)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 60000) (i32.const 32)))
              (global.set $left (i32.sub (global.get $left) (i32.const 1)))
              (br_if $again (global.get $left)))
            i32.const 0))"#
    ))
}

/// Calls into the guest, and the CPU time that it is billed for, in seconds.
async fn billed(gateway: &Gateway) -> (u64, f64) {
    let plugin = gateway.plugin("calling").await;
    let used: &Value = &plugin["versions"][0]["filters"][0];
    (used["calls"].as_u64().expect("a count"), used["cpu_seconds"].as_f64().expect("a time"))
}

/// One worker, and a filter on it that makes calls to `up`; on `/quiet` it is off.
fn calling_gateway(filter: &str, up: &Upstream, mirror: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
           filters: [ {{ plugin: calling, grants: {{ clusters: [up] }} {filter} }} ], \
           routes: [ {{ match: {{ path: /quiet }}, cluster: mirror, filters: {{ calling: off }} }}, \
             {{ cluster: mirror }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: mirror, endpoints: [\"{}\"] }} ]",
        up.address, mirror.address
    );
    Setup::new().plugin_bytes("calling", &calling()).config(config).start()
}

#[tokio::test]
async fn a_burst_of_calls_is_on_its_way_by_a_few_at_a_time_and_all_of_them_are_sent() {
    let ((up, mut asked), mirror) = (asking().await, mirror().await);
    let gateway = calling_gateway(", calls_at_once: 4", &up, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.status, 200);
    let mut answers = VecDeque::new();
    for _ in 0..4 {
        answers.push_back(soon("a call", asked.recv()).await.expect("a call").1);
    }
    for sent in 4..CALLS {
        for _ in 0..3 {
            assert_eq!(client.get("/quiet").await.status, 200, "others go on");
        }
        assert!(asked.try_recv().is_err(), "after {sent}: no more than four at a time");
        let answer = answers.pop_front().expect("one of four");
        answer.send(http::Response::new(full("yes"))).expect("the upstream waits");
        answers.push_back(soon("the next call", asked.recv()).await.expect("a call").1);
    }
}

#[tokio::test]
async fn what_the_host_does_for_the_calls_of_a_filter_is_billed_to_the_filter() {
    let ((up, mut asked), mirror) = (asking().await, mirror().await);
    let gateway = calling_gateway("", &up, &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let mut answers = Vec::new();
    for _ in 0..CALLS {
        answers.push(soon("a call", asked.recv()).await.expect("a call").1);
    }
    let (calls, before) = billed(&gateway).await;
    for answer in answers {
        answer.send(http::Response::new(full("x".repeat(256 << 10)))).expect("the upstream waits");
    }
    let after = until("the answers to be billed", async || {
        let (_, now) = billed(&gateway).await;
        (now > before + 0.001).then_some(now)
    })
    .await;
    assert_eq!(billed(&gateway).await.0, calls, "the guest was not called: {before} s, then {after} s");
}

/// It computes for so many microseconds, by the host's clock, when it is shown request headers.
fn computing(microseconds: u64) -> Vec<u8> {
    wat(&format!(
        r#"(module
          (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "malloc") (param i32) (result i32) i32.const 1024)
          (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (local $end i64)
            (drop (call $time (i32.const 64)))
            (local.set $end (i64.add (i64.load (i32.const 64)) (i64.const {microseconds}000)))
            (loop $more
              (drop (call $time (i32.const 64)))
              (br_if $more (i64.lt_u (i64.load (i32.const 64)) (local.get $end))))
            i32.const 0))"#
    ))
}

/// One worker, and a filter on it that computes in its calls.
fn computing_gateway(microseconds: u64, filter: &str, up: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
           filters: [ {{ plugin: computing {filter} }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        up.address
    );
    Setup::new().plugin_bytes("computing", &computing(microseconds)).config(config).start()
}

#[tokio::test]
async fn a_filter_whose_calls_hold_others_up_is_throttled_long_before_it_has_used_its_share_of_a_second() {
    let up = mirror().await;
    let gateway = computing_gateway(1_500, "", &up);
    let mut client = Client::h1(gateway.address("web")).await;
    until("its long calls to be too many", async || (client.get("/").await.status == 503).then_some(()))
        .await;
    assert_eq!(gateway.wait_for_access("filter_throttled")["status"], 503);
    gateway.wait_for_log("set its `scheduling: preemptible`");
    let used = gateway.plugin("computing").await["versions"][0]["filters"][0]["cpu_seconds"].as_f64();
    assert!(used.is_some_and(|used| used < 0.4), "it has used less than a second's share: {used:?}");
    assert!(!gateway.logged("a plugin failed"), "it is throttled, not killed");
    until("it to be let in again", async || (client.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn short_calls_are_not_throttled_and_long_ones_are_not_where_the_operator_has_said_that_they_may() {
    let up = mirror().await;
    for (microseconds, filter) in [(100, ""), (1_500, ", cpu: 100ms"), (1_500, ", long_calls_per_second: 0s")]
    {
        let gateway = computing_gateway(microseconds, filter, &up);
        let mut client = Client::h1(gateway.address("web")).await;
        for _ in 0..100 {
            assert_eq!(client.get("/").await.status, 200, "{microseconds} us {filter}");
        }
    }
}
