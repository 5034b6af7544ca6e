//! Allocators that misbehave: the host calls them in the middle of a function, and trusts nothing that they say.

use weir_tests::http::{Client, get, mirror, raw};
use weir_tests::trampoline::{FUNCTIONS, Kind, function};
use weir_tests::{Gateway, Setup};

use super::guest::{self, Case, MEMORY, Value};
use super::{assert_right, pointers, run_http};

/// The good calls by which the guest is given bytes, with the status that they are to have.
pub fn giving(status: u32) -> Vec<Case> {
    let gives = |name: &str, args: &[Value]| {
        let params = FUNCTIONS[function(name)].params;
        // A foreign function gives nothing, and neither does the status of no call.
        let wants = params.iter().zip(args).any(|(kind, arg)| *kind == Kind::OutPtr && *arg == Value::Place);
        wants && !["proxy_call_foreign_function", "proxy_get_status"].contains(&name)
    };
    let calls = pointers::good().into_iter().filter(|(name, _, args, good)| *good == 0 && gives(name, args));
    let cases: Vec<Case> = calls
        .map(|(function, phase, args, _)| Case { phase, function, args, status, out: Vec::new() })
        .collect();
    assert!(cases.len() >= 5, "{cases:?}");
    pointers::with_data(cases)
}

#[tokio::test]
async fn an_allocator_without_memory_is_an_invalid_access_and_so_is_one_that_gives_what_is_not_there() {
    for address in [0, 0xffff_ffff, 0x8000_0000, MEMORY - 1, MEMORY] {
        let wrong = run_http(&giving(6), &format!("(i32.const {address})")).await;
        assert!(wrong.is_empty(), "at {address:#x}: {wrong:?}");
    }
}

#[tokio::test]
async fn an_allocator_may_give_what_is_in_use_already_and_that_is_the_guests_own_affair() {
    // The places of the results, and the beginning of memory but for its null.
    for address in [0x10000, 1] {
        assert_right(&run_http(&giving(0), &format!("(i32.const {address})")).await);
    }
}

#[tokio::test]
async fn an_allocator_may_have_the_memory_grow() {
    assert_right(&run_http(&giving(0), "(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))").await);
}

#[tokio::test]
async fn an_allocator_may_log_and_the_function_that_called_it_goes_on() {
    // What is no level is refused as ever.
    let allocator = format!(
        "(if (call $proxy_log (i32.const 2) (i32.const 0x180) (i32.const 16)) (then unreachable))
         (if (i32.ne (call $proxy_log (i32.const 99) (i32.const 0) (i32.const 0)) (i32.const 2)) (then unreachable)) {}",
        guest::SOUND
    );
    assert_right(&run_http(&giving(0), &allocator).await);
}

#[tokio::test]
async fn what_an_allocator_logs_is_in_the_log() {
    let say = "(drop (call $log (i32.const 2) (i32.const 100) (i32.const 5))) (i32.const 1024)";
    let (gateway, _mirror) = reading(say).await;
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    gateway.wait_for_log("INFO :path plugin=\"guest\"");
}

#[tokio::test]
async fn an_allocator_that_calls_anything_else_is_refused_and_the_function_that_called_it_goes_on() {
    // A function for each topic that could change something, of those that the guest has in any case.
    for call in [
        "(call $proxy_set_tick_period_milliseconds (i32.const 1))",
        "(call $proxy_register_shared_queue (i32.const 0) (i32.const 1) (i32.const 0x100))",
        "(call $proxy_enqueue_shared_queue (i32.const 1) (i32.const 0) (i32.const 1))",
        "(call $proxy_grpc_send (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0))",
    ] {
        let allocator = format!("(if (i32.ne {call} (i32.const 10)) (then unreachable)) {}", guest::SOUND);
        let wrong = run_http(&giving(0), &allocator).await;
        assert!(wrong.is_empty(), "{call}: {wrong:?}");
    }
}

/// A gateway whose guest reads the path of every request, and has this allocator.
async fn reading(allocator: &str) -> (Gateway, weir_tests::upstream::Upstream) {
    let guest = weir_tests::guests::wat(&format!(
        r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) ":path")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) {allocator})
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $get (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 200) (i32.const 204)))
            (i32.const 0)))"#
    ));
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ \
           {{ match: {{ path: /plain }}, cluster: up, filters: {{ guest: off }} }}, {{ cluster: up }} ], \
           filters: [ {{ plugin: guest }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    (Setup::new().plugin_bytes("guest", &guest).config(config).start(), mirror)
}

#[tokio::test]
async fn an_allocator_that_traps_or_never_returns_ends_its_instance_and_no_other_request() {
    for (allocator, kind) in [("unreachable", "kind=\"trap\""), ("(loop (br 0)) unreachable", "kind=\"cpu\"")]
    {
        let (gateway, _mirror) = reading(allocator).await;
        let mut client = Client::h2(gateway.address("web")).await;
        let mut other = Client::h2(gateway.address("web")).await;
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, 503, "{allocator}");
            assert_eq!(other.get("/plain").await.status, 200, "{allocator}");
        }
        gateway.wait_for_log(kind);
        assert_eq!(get(gateway.address("web"), "/plain").await.status, 200);
        let answer =
            raw(gateway.address("web"), "GET /plain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
