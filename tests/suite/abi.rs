//! The contract, function by function: each is imported and called by a guest in WebAssembly's own text, so that no
//! SDK stands in between, and answers with the status that the contract gives it.

use std::collections::BTreeSet;
use std::fmt::Write;

use weir::plugin::abi::{Function, HOST_FUNCTIONS};
use weir_tests::guests::wat;
use weir_tests::http::{get, mirror, raw};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

/// An argument of a call.
pub enum Arg {
    /// A number.
    N(i64),
    /// The address of some bytes, and how many they are.
    S(&'static [u8]),
    /// The address of some bytes.
    P(&'static [u8]),
    /// A place for eight bytes of result.
    Out,
}

use Arg::{N, Out, P, S};

/// A call, and the status that it must answer with.
pub type Call = (&'static str, Vec<Arg>, u8);

pub const OK: u8 = 0;
const NOT_FOUND: u8 = 1;
const BAD_ARGUMENT: u8 = 2;
const INVALID_MEMORY: u8 = 6;
const CAS: u8 = 8;
const PARSE_FAILURE: u8 = 4;

/// What a filter calls in its request headers callback, in this order. The id of the first metric is 1.
fn host_calls() -> Vec<Call> {
    vec![
        ("proxy_log", vec![N(2), S(b"a line of the guest")], OK),
        ("proxy_log", vec![N(99), S(b"x")], BAD_ARGUMENT),
        ("proxy_log", vec![N(2), N(0x7fff_0000), N(100)], INVALID_MEMORY),
        ("proxy_log", vec![N(2), N(0xffff_fff0), N(0xffff)], INVALID_MEMORY),
        ("proxy_get_log_level", vec![Out], OK),
        ("proxy_get_log_level", vec![N(0x7fff_0000)], INVALID_MEMORY),
        ("proxy_get_current_time_nanoseconds", vec![Out], OK),
        ("proxy_set_tick_period_milliseconds", vec![N(0)], OK),
        ("proxy_get_buffer_bytes", vec![N(0), N(0), N(10), Out, Out], NOT_FOUND),
        ("proxy_get_buffer_bytes", vec![N(99), N(0), N(10), Out, Out], BAD_ARGUMENT),
        ("proxy_get_buffer_bytes", vec![N(0), N(5), N(0xffff_ffff), Out, Out], BAD_ARGUMENT),
        ("proxy_set_buffer_bytes", vec![N(0), N(0), N(0), S(b"x")], NOT_FOUND),
        ("proxy_set_buffer_bytes", vec![N(99), N(0), N(0), S(b"x")], BAD_ARGUMENT),
        ("proxy_get_buffer_status", vec![N(0), Out, Out], NOT_FOUND),
        ("proxy_get_header_map_size", vec![N(0), Out], OK),
        ("proxy_get_header_map_size", vec![N(99), Out], BAD_ARGUMENT),
        ("proxy_get_header_map_pairs", vec![N(0), Out, Out], OK),
        ("proxy_set_header_map_pairs", vec![N(2), S(b"\0\0\0\0")], BAD_ARGUMENT),
        ("proxy_set_header_map_pairs", vec![N(0), S(b"\x01\0\0\0broken")], BAD_ARGUMENT),
        ("proxy_get_header_map_value", vec![N(0), S(b":path"), Out, Out], OK),
        ("proxy_get_header_map_value", vec![N(0), S(b"no-such"), Out, Out], NOT_FOUND),
        ("proxy_get_header_map_value", vec![N(2), S(b":status"), Out, Out], BAD_ARGUMENT),
        ("proxy_add_header_map_value", vec![N(0), S(b"x-added"), S(b"1")], OK),
        ("proxy_add_header_map_value", vec![N(0), S(b"x-added"), S(b"a\r\nb: c")], BAD_ARGUMENT),
        ("proxy_add_header_map_value", vec![N(0), S(b"x y"), S(b"1")], BAD_ARGUMENT),
        ("proxy_add_header_map_value", vec![N(2), S(b"x-added"), S(b"1")], BAD_ARGUMENT),
        ("proxy_replace_header_map_value", vec![N(0), S(b":path"), S(b"/other")], OK),
        ("proxy_replace_header_map_value", vec![N(0), S(b":path"), S(b"other")], BAD_ARGUMENT),
        ("proxy_remove_header_map_value", vec![N(0), S(b"x-added")], OK),
        ("proxy_remove_header_map_value", vec![N(0), S(b":path")], BAD_ARGUMENT),
        ("proxy_continue_stream", vec![N(0)], OK),
        ("proxy_continue_stream", vec![N(99)], BAD_ARGUMENT),
        ("proxy_close_stream", vec![N(99)], BAD_ARGUMENT),
        ("proxy_continue_request", vec![], OK),
        ("proxy_continue_response", vec![], OK),
        ("proxy_clear_route_cache", vec![], OK),
        ("proxy_set_effective_context", vec![N(424_242)], BAD_ARGUMENT),
        ("proxy_done", vec![], NOT_FOUND),
        ("proxy_get_status", vec![Out, Out, Out], OK),
        ("proxy_http_call", vec![S(b"nobody"), S(b"\0\0\0\0"), S(b""), S(b""), N(100), Out], BAD_ARGUMENT),
        ("proxy_grpc_call", vec![S(b"nobody"), S(b"s"), S(b"m"), S(b""), S(b""), N(100), Out], PARSE_FAILURE),
        ("proxy_grpc_stream", vec![S(b"nobody"), S(b"s"), S(b"m"), S(b""), Out], PARSE_FAILURE),
        ("proxy_grpc_send", vec![N(1), S(b""), N(0)], NOT_FOUND),
        ("proxy_grpc_cancel", vec![N(1)], NOT_FOUND),
        ("proxy_grpc_close", vec![N(1)], NOT_FOUND),
        ("proxy_get_shared_data", vec![S(b"none"), Out, Out, Out], NOT_FOUND),
        ("proxy_set_shared_data", vec![S(b"key"), S(b"value"), N(0)], OK),
        ("proxy_get_shared_data", vec![S(b"key"), Out, Out, Out], OK),
        ("proxy_set_shared_data", vec![S(b"key"), S(b"value"), N(77)], CAS),
        ("proxy_register_shared_queue", vec![S(b"queue"), Out], OK),
        ("proxy_resolve_shared_queue", vec![S(b""), S(b"queue"), Out], OK),
        ("proxy_enqueue_shared_queue", vec![N(1), S(b"x")], OK),
        ("proxy_dequeue_shared_queue", vec![N(1), Out, Out], OK),
        ("proxy_define_metric", vec![N(0), S(b"counter"), Out], OK),
        ("proxy_define_metric", vec![N(99), S(b"counter"), Out], BAD_ARGUMENT),
        ("proxy_record_metric", vec![N(1), N(5)], OK),
        ("proxy_increment_metric", vec![N(1), N(3)], OK),
        ("proxy_increment_metric", vec![N(1), N(-3)], BAD_ARGUMENT),
        ("proxy_increment_metric", vec![N(99), N(3)], NOT_FOUND),
        ("proxy_get_metric", vec![N(1), Out], OK),
        ("proxy_get_metric", vec![N(99), Out], NOT_FOUND),
        ("proxy_get_property", vec![S(b"plugin_name"), Out, Out], OK),
        ("proxy_get_property", vec![S(b"request\0path\0"), Out, Out], OK),
        ("proxy_get_property", vec![S(b"no\0such"), Out, Out], NOT_FOUND),
        ("proxy_set_property", vec![S(b"noted"), S(b"1")], OK),
        ("proxy_get_property", vec![S(b"noted"), Out, Out], OK),
        ("proxy_get_configuration", vec![Out, Out], OK),
        ("proxy_call_foreign_function", vec![S(b"no_such"), S(b""), Out, Out], NOT_FOUND),
        (
            "proxy_call_foreign_function",
            vec![S(b"set_envoy_filter_state"), S(b"\xff"), N(0), N(0)],
            BAD_ARGUMENT,
        ),
        ("proxy_send_local_response", vec![N(999), S(b""), S(b""), S(b""), N(-1)], OK),
    ]
}

/// Where the guest's memory has what: the bytes of its arguments, results, statuses.
const TEXTS: usize = 0x100;
pub const RESULTS: i64 = 0x2000;
const STATUSES: i64 = 0x4000;
pub const END: i64 = 0x4b00;

/// A guest that makes these calls when request headers come, and replies with its memory from [`RESULTS`] to [`END`].
pub fn calling(module: &str, table: &[Function], calls: &[Call]) -> Vec<u8> {
    let mut texts = Vec::new();
    let mut results = 0;
    let mut imports = BTreeSet::new();
    let mut body = String::new();
    for (at, (name, args, _)) in calls.iter().enumerate() {
        let function =
            table.iter().find(|f| f.name == *name).unwrap_or_else(|| panic!("no {name} in the table"));
        let mut flat = Vec::new();
        for arg in args {
            match arg {
                N(number) => flat.push(*number),
                Out => {
                    flat.push(RESULTS + results * 8);
                    results += 1;
                }
                S(bytes) | P(bytes) => {
                    flat.push((TEXTS + texts.len()) as i64);
                    texts.extend_from_slice(bytes);
                    flat.extend(matches!(arg, S(_)).then_some(bytes.len() as i64));
                }
            }
        }
        assert_eq!(flat.len(), function.params.len(), "the arguments of {name}");
        let ty = |size: &usize| if *size == 8 { "i64" } else { "i32" };
        let params: Vec<&str> = function.params.iter().map(ty).collect();
        imports.insert(format!(
            "(import \"{module}\" \"{name}\" (func ${name} (param {}) (result i32)))",
            params.join(" ")
        ));
        let given: Vec<String> =
            params.iter().zip(&flat).map(|(ty, n)| format!("({ty}.const {n})")).collect();
        let place = STATUSES + at as i64;
        writeln!(body, "(i32.store8 (i32.const {place}) (call ${name} {}))", given.join(" "))
            .expect("a string");
    }
    assert!(TEXTS + texts.len() < RESULTS as usize && RESULTS + results * 8 < STATUSES, "there is room");
    imports.insert(
        "(import \"env\" \"proxy_send_local_response\" \
           (func $proxy_send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"
            .to_owned(),
    );
    let reply = |status: u32, start: i64, len: i64| {
        format!(
            "(drop (call $proxy_send_local_response (i32.const {status}) (i32.const 0) (i32.const 0) (i32.const {start}) \
               (i32.const {len}) (i32.const 0) (i32.const 0) (i32.const -1)))"
        )
    };
    let data: String = texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
    // The reply goes first: of several the first counts, and its body is the memory as it is then. So the calls come
    // with the request's headers, and the reply with its body.
    wat(&format!(
        "(module {} (memory (export \"memory\") 4) (global $heap (mut i32) (i32.const 65536))
           (data (i32.const {TEXTS}) \"{data}\")
           (func (export \"proxy_abi_version_0_2_1\"))
           (func (export \"malloc\") (param $len i32) (result i32) (local $at i32)
             (local.set $at (global.get $heap))
             (global.set $heap (i32.add (local.get $at) (local.get $len)))
             (local.get $at))
           (func (export \"proxy_on_context_create\") (param i32 i32))
           (func (export \"proxy_on_vm_start\") (param i32 i32) (result i32) (i32.const 1))
           (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) {body} (i32.const 0))
           (func (export \"proxy_on_request_body\") (param i32 i32 i32) (result i32) {} (i32.const 1))
           (func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) (i32.const 0)))",
        imports.into_iter().collect::<Vec<_>>().join("\n"),
        reply(200, RESULTS, END - RESULTS),
    ))
}

pub fn gateway(guest: &[u8], upstream: &Upstream) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], filters: [ \
           {{ plugin: guest, config: hello, environment: {{ NAME: value, TWO: \"2\" }} }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().plugin_bytes("guest", guest).config(config).start()
}

/// Has the guest make its calls, and returns its memory from [`RESULTS`] on.
pub async fn memory(gateway: &Gateway) -> Vec<u8> {
    let mut client = weir_tests::http::Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/path").body(weir_tests::http::full("body")).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.body.len() as i64), (200, END - RESULTS), "{}", gateway.log());
    answer.body.to_vec()
}

pub fn assert_statuses(memory: &[u8], calls: &[Call]) {
    let statuses = &memory[(STATUSES - RESULTS) as usize..];
    let wrong: Vec<String> = calls
        .iter()
        .zip(statuses)
        .enumerate()
        .filter(|(_, ((_, _, expected), status))| expected != *status)
        .map(|(at, ((name, _, expected), status))| {
            format!("call {at}, {name}: {status} instead of {expected}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_function_of_proxy_wasm_can_be_called_and_answers_with_its_status() {
    let mut calls = host_calls();
    let called: BTreeSet<&str> = calls.iter().map(|(name, ..)| *name).collect();
    let missing: Vec<&str> =
        HOST_FUNCTIONS.iter().map(|f| f.name).filter(|name| !called.contains(name)).collect();
    assert!(missing.is_empty(), "of the contract, but not called here: {missing:?}");
    // That a reply with an impossible status is taken, too, is seen by a guest of its own: it ends the exchange.
    calls.retain(|(name, ..)| *name != "proxy_send_local_response");
    let mirror = mirror().await;
    let gateway = gateway(&calling("env", HOST_FUNCTIONS, &calls), &mirror);
    assert_statuses(&memory(&gateway).await, &calls);
    gateway.wait_for_log("a line of the guest plugin=\"guest\" filter=\"guest\"");
}

#[tokio::test]
async fn a_reply_that_cannot_be_sent_as_it_is_is_taken_and_mended() {
    let calls: Vec<Call> =
        host_calls().into_iter().filter(|(name, ..)| *name == "proxy_send_local_response").collect();
    let mirror = mirror().await;
    let gateway = gateway(&calling("env", HOST_FUNCTIONS, &calls), &mirror);
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, ""));
    gateway.wait_for_log("a reply (status 999) cannot be sent as it is, and is mended");
}

#[tokio::test]
async fn another_context_is_resumed_from_the_timer() {
    // It holds every request, and lets the last one go from its timer.
    let guest = wat(r#"(module
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
        (memory (export "memory") 1)
        (global $held (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $grown (i32.const 0)) (drop (call $tick (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $held (local.get 0)) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (if (global.get $held) (then
                (drop (call $effective (global.get $held)))
                (drop (call $continue (i32.const 0)))
                (global.set $held (i32.const 0))))))"#);
    let mirror = mirror().await;
    let gateway = gateway(&guest, &mirror);
    for _ in 0..5 {
        assert!(get(gateway.address("web"), "/held").await.text().starts_with("GET /held "));
    }
}

#[tokio::test]
async fn a_stream_is_done_logged_and_deleted_in_this_order_whether_it_ends_well_or_not() {
    let guest = wat(r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "created done    logged  deleted ")
        (func $say (param i32) (drop (call $log (i32.const 2) (local.get 0) (i32.const 8))))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_context_create") (param i32 i32)
            (if (local.get 1) (then (call $say (i32.const 100)))))
        (func (export "proxy_on_done") (param i32) (result i32) (call $say (i32.const 108)) (i32.const 1))
        (func (export "proxy_on_log") (param i32) (call $say (i32.const 116)))
        (func (export "proxy_on_delete") (param i32) (call $say (i32.const 124))))"#);
    let order = ["created", "done", "logged", "deleted"];
    let lines = |gateway: &Gateway| -> Vec<String> {
        let ours = |line: &str| {
            order.iter().find(|word| line.contains(&format!("INFO {word} "))).map(|w| w.to_string())
        };
        gateway.log().lines().filter_map(ours).collect()
    };
    let mirror = mirror().await;
    let gateway = gateway(&guest, &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    gateway.wait_for_log_count("INFO deleted ", 1);
    assert_eq!(lines(&gateway), order);
    // A client that breaks off in the middle of its body.
    let mut socket = tokio::net::TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let half = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    tokio::io::AsyncWriteExt::write_all(&mut socket, half.as_bytes()).await.expect("the gateway takes it");
    gateway.wait_for_log_count("INFO created ", 2);
    drop(socket);
    gateway.wait_for_log_count("INFO deleted ", 2);
    assert_eq!(lines(&gateway)[4..], order);
    assert!(
        raw(gateway.address("web"), "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .contains("200")
    );
}
