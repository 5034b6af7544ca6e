//! WASI, function by function, under both of its module names: a guest in WebAssembly's own text calls each with
//! good arguments, with those at the edge, and with those that a hostile guest would choose.

use std::collections::BTreeSet;
use std::time::Instant;

use weir::plugin::abi::WASI_FUNCTIONS;
use weir_tests::Setup;
use weir_tests::guests::wat;
use weir_tests::http::{get, mirror};
use weir_tests::wait::until;

use crate::abi::Arg::{N, Out, P};
use crate::abi::{Call, END, OK, RESULTS, assert_statuses, calling, gateway, memory};

const BAD_DESCRIPTOR: u8 = 8;
const FAULT: u8 = 21;
const INVALID: u8 = 28;
const NO_SUCH_FUNCTION: u8 = 52;
const NOT_SUPPORTED: u8 = 58;
const NOT_SEEKABLE: u8 = 70;

/// The guest's memory ends here.
const MEMORY: i64 = 4 << 16;

/// An address far behind it.
const FAR: i64 = 0x7fff_0000;

/// The largest number: as an address, anything behind it wraps.
const MAX: i64 = 0xffff_ffff;

/// Where the guest's memory has what WASI writes. It must be below [`END`], so that it is seen.
const ENVIRONMENT: i64 = 0x4800;
const RANDOM: i64 = 0x4900;
const STAT: i64 = 0x4980;
const FILESTAT: i64 = 0x49c0;
const EVENTS: i64 = 0x4a20;
const READY: i64 = 0x4af0;

/// Half of what the guest has: it is not looked at.
const ROOM: i64 = MEMORY / 2;

/// The first bytes that [`calling`] lays out, at 0x100, and vectors for `fd_write` that point there.
const LINE: &[u8] = b"a line of WASI!\n";
const VECTOR: &[u8] = b"\0\x01\0\0\x10\0\0\0";
const TWO_VECTORS: &[u8] = b"\0\x01\0\0\x07\0\0\0\x07\x01\0\0\x09\0\0\0";
const EMPTY_VECTOR: &[u8] = b"\0\0\0\0\0\0\0\0";
const FAR_VECTOR: &[u8] = b"\0\0\xff\x7f\x10\0\0\0";
const WRAPPING_VECTOR: &[u8] = b"\xf0\xff\xff\xff\xff\xff\0\0";

fn environment() -> Vec<Call> {
    vec![
        ("args_sizes_get", vec![Out, Out], OK),
        ("args_sizes_get", vec![N(FAR), Out], FAULT),
        ("args_sizes_get", vec![Out, N(MAX)], FAULT),
        // There are no arguments, so nothing is written.
        ("args_get", vec![Out, Out], OK),
        ("args_get", vec![N(MAX), N(MAX)], OK),
        ("environ_sizes_get", vec![Out, Out], OK),
        ("environ_sizes_get", vec![N(MEMORY - 3), Out], FAULT),
        ("environ_sizes_get", vec![Out, N(FAR)], FAULT),
        ("environ_get", vec![N(ENVIRONMENT), N(ENVIRONMENT + 64)], OK),
        ("environ_get", vec![N(MEMORY - 8), N(MEMORY - 8 - 17)], OK),
        ("environ_get", vec![N(MEMORY - 4), N(ROOM)], FAULT),
        ("environ_get", vec![N(ROOM), N(MEMORY - 16)], FAULT),
        ("environ_get", vec![N(MAX), N(ROOM)], FAULT),
        ("environ_get", vec![N(ROOM), N(MAX)], FAULT),
    ]
}

fn clocks_and_random_numbers() -> Vec<Call> {
    let mut calls = vec![
        ("clock_res_get", vec![N(4), Out], NOT_SUPPORTED),
        ("clock_res_get", vec![N(MAX), Out], NOT_SUPPORTED),
        ("clock_res_get", vec![N(0), N(MEMORY - 7)], FAULT),
        ("clock_time_get", vec![N(4), N(0), Out], NOT_SUPPORTED),
        ("clock_time_get", vec![N(MAX), N(-1), Out], NOT_SUPPORTED),
        ("clock_time_get", vec![N(0), N(-1), N(MEMORY - 8)], OK),
        ("clock_time_get", vec![N(0), N(0), N(MEMORY - 7)], FAULT),
        ("clock_time_get", vec![N(1), N(0), N(MAX)], FAULT),
        ("random_get", vec![N(RANDOM), N(64)], OK),
        ("random_get", vec![N(RANDOM), N(0)], OK),
        ("random_get", vec![N(MEMORY), N(0)], OK),
        ("random_get", vec![N(MEMORY - 65_536), N(65_536)], OK),
        ("random_get", vec![N(MEMORY - 65_535), N(65_536)], FAULT),
        ("random_get", vec![N(MAX), N(2)], FAULT),
        ("random_get", vec![N(ROOM), N(65_537)], INVALID),
        ("random_get", vec![N(0), N(MAX)], INVALID),
    ];
    for clock in 0..=3 {
        calls.push(("clock_res_get", vec![N(clock), Out], OK));
        calls.push(("clock_time_get", vec![N(clock), N(0), Out], OK));
    }
    calls
}

fn standard_descriptors() -> Vec<Call> {
    vec![
        // First, because of its bytes: see LINE.
        ("fd_write", vec![N(0), P(LINE), N(1), Out], BAD_DESCRIPTOR),
        ("fd_write", vec![N(3), P(VECTOR), N(1), Out], BAD_DESCRIPTOR),
        ("fd_write", vec![N(MAX), P(VECTOR), N(1), Out], BAD_DESCRIPTOR),
        ("fd_write", vec![N(1), P(VECTOR), N(1), Out], OK),
        ("fd_write", vec![N(2), P(TWO_VECTORS), N(2), N(READY + 4)], OK),
        ("fd_write", vec![N(1), P(EMPTY_VECTOR), N(1), Out], OK),
        ("fd_write", vec![N(1), N(0), N(0), Out], OK),
        ("fd_write", vec![N(1), P(VECTOR), N(1025), Out], INVALID),
        ("fd_write", vec![N(1), P(VECTOR), N(MAX), Out], INVALID),
        ("fd_write", vec![N(1), N(MEMORY - 7), N(1), Out], FAULT),
        ("fd_write", vec![N(1), N(MAX), N(1), Out], FAULT),
        ("fd_write", vec![N(1), P(FAR_VECTOR), N(1), Out], FAULT),
        ("fd_write", vec![N(1), P(WRAPPING_VECTOR), N(1), Out], FAULT),
        ("fd_write", vec![N(1), P(VECTOR), N(1), N(FAR)], FAULT),
        ("fd_read", vec![N(0), P(VECTOR), N(1), Out], OK),
        ("fd_read", vec![N(0), P(VECTOR), N(1), N(MAX)], FAULT),
        ("fd_read", vec![N(1), P(VECTOR), N(1), Out], BAD_DESCRIPTOR),
        ("fd_read", vec![N(3), N(MAX), N(MAX), N(MAX)], BAD_DESCRIPTOR),
        ("fd_seek", vec![N(0), N(-1), N(2), Out], NOT_SEEKABLE),
        ("fd_seek", vec![N(2), N(0), N(99), N(MAX)], NOT_SEEKABLE),
        ("fd_seek", vec![N(3), N(0), N(0), Out], BAD_DESCRIPTOR),
        ("fd_tell", vec![N(1), N(MAX)], NOT_SEEKABLE),
        ("fd_tell", vec![N(3), Out], BAD_DESCRIPTOR),
        ("fd_close", vec![N(0)], OK),
        ("fd_close", vec![N(3)], BAD_DESCRIPTOR),
        ("fd_close", vec![N(MAX)], BAD_DESCRIPTOR),
        ("fd_fdstat_get", vec![N(1), N(STAT)], OK),
        ("fd_fdstat_get", vec![N(0), N(STAT + 24)], OK),
        ("fd_fdstat_get", vec![N(2), N(MEMORY - 24)], OK),
        ("fd_fdstat_get", vec![N(2), N(MEMORY - 23)], FAULT),
        ("fd_fdstat_get", vec![N(3), N(MAX)], BAD_DESCRIPTOR),
        ("fd_fdstat_set_flags", vec![N(1), N(4)], OK),
        ("fd_fdstat_set_flags", vec![N(3), N(4)], BAD_DESCRIPTOR),
        ("fd_filestat_get", vec![N(1), N(FILESTAT)], OK),
        ("fd_filestat_get", vec![N(1), N(MEMORY - 55)], FAULT),
        ("fd_filestat_get", vec![N(3), N(MAX)], BAD_DESCRIPTOR),
        ("sched_yield", vec![], OK),
        ("proc_raise", vec![N(9)], NO_SUCH_FUNCTION),
        ("proc_raise", vec![N(MAX)], NO_SUCH_FUNCTION),
    ]
}

/// Whatever asks for a file, a directory or a socket is told that there is none, whatever it asks: as the Go runtime
/// looks for its directories, from descriptor 3 on.
fn no_descriptors(called: &BTreeSet<&str>) -> Vec<Call> {
    // `proc_exit` ends the guest: it has tests of its own.
    let rest = WASI_FUNCTIONS.iter().filter(|f| !called.contains(f.name) && f.name != "proc_exit");
    let with = |name: &'static str, params: usize, number: i64| {
        (name, (0..params).map(|_| N(number)).collect::<Vec<_>>(), BAD_DESCRIPTOR)
    };
    rest.flat_map(|f| [0, 3, -1].map(|number| with(f.name, f.params.len(), number))).collect()
}

/// A subscription of one of the layouts: a number of the guest's own, the kind, and what it is about.
fn subscription(unstable: bool, own: u8, kind: u8, about: u8) -> Vec<u8> {
    let mut bytes = vec![0; if unstable { 56 } else { 48 }];
    (bytes[0], bytes[7], bytes[8]) = (own, own, kind);
    let clock = kind == 0;
    bytes[if unstable && clock { 24 } else { 16 }] = about;
    if clock {
        // An hour, in nanoseconds: whoever waited for it would be noticed.
        let hour = 3_600_000_000_000_u64.to_le_bytes();
        let at = if unstable { 32 } else { 24 };
        bytes[at..at + 8].copy_from_slice(&hour);
    }
    bytes
}

fn polls(unstable: bool) -> Vec<Call> {
    let all = [(1, 0, 1), (2, 0, 9), (3, 1, 0), (4, 2, 1), (5, 2, 7)];
    let all: Vec<u8> =
        all.iter().flat_map(|&(own, kind, about)| subscription(unstable, own, kind, about)).collect();
    let (all, unknown): (&[u8], &[u8]) = (all.leak(), subscription(unstable, 6, 3, 0).leak());
    let stride = if unstable { 56 } else { 48 };
    vec![
        ("poll_oneoff", vec![P(all), N(EVENTS), N(5), N(READY)], OK),
        ("poll_oneoff", vec![N(0), N(0), N(0), Out], OK),
        ("poll_oneoff", vec![P(unknown), N(ROOM), N(1), Out], INVALID),
        ("poll_oneoff", vec![N(ROOM), N(ROOM), N(1025), Out], INVALID),
        ("poll_oneoff", vec![N(ROOM), N(ROOM), N(MAX), Out], INVALID),
        ("poll_oneoff", vec![N(MEMORY - stride + 1), N(ROOM), N(1), Out], FAULT),
        ("poll_oneoff", vec![P(all), N(MEMORY - 159), N(5), Out], FAULT),
        ("poll_oneoff", vec![P(all), N(MAX), N(1), Out], FAULT),
        ("poll_oneoff", vec![P(all), N(ROOM), N(1), N(FAR)], FAULT),
    ]
}

#[tokio::test]
async fn every_function_of_wasi_answers_good_odd_and_hostile_arguments_under_both_module_names() {
    let mirror = mirror().await;
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let mut calls = standard_descriptors();
        calls.extend(environment());
        calls.extend(clocks_and_random_numbers());
        calls.extend(polls(module == "wasi_unstable"));
        calls.extend(no_descriptors(&calls.iter().map(|(name, ..)| *name).collect()));
        let gateway = gateway(&calling(module, WASI_FUNCTIONS, &calls), &mirror);
        let memory = memory(&gateway).await;
        assert_statuses(&memory, &calls);
        let at = |address: i64, len: usize| {
            let start = (address - RESULTS) as usize;
            assert!(address + len as i64 <= END, "that is not in the answer");
            &memory[start..start + len]
        };
        assert_eq!(at(ENVIRONMENT + 64, 17), b"NAME=value\0TWO=2\0");
        let places: Vec<u32> = at(ENVIRONMENT, 8).chunks(4).map(number).collect();
        assert_eq!(places, [ENVIRONMENT as u32 + 64, ENVIRONMENT as u32 + 64 + 11]);
        assert!(at(RANDOM, 64).iter().any(|byte| *byte != 0), "sixty-four zeros are not random");
        // A character device that may be written, and one that may be read.
        assert_eq!(
            (at(STAT, 9), at(STAT + 24, 9)),
            (&[2, 0, 0, 0, 0, 0, 0, 0, 64][..], &[2, 0, 0, 0, 0, 0, 0, 0, 2][..])
        );
        assert_eq!(at(FILESTAT + 16, 1), [2]);
        assert_eq!(number(at(READY + 4, 4)), 16, "both vectors were written");
        gateway.wait_for_log("INFO a line of WASI! plugin=\"guest\"");
        gateway.wait_for_log("ERROR a line of WASI! plugin=\"guest\"");
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[tokio::test]
async fn a_poll_for_an_hour_is_over_at_once_and_every_subscription_has_its_event() {
    let mirror = mirror().await;
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let calls: Vec<Call> = polls(module == "wasi_unstable").into_iter().take(1).collect();
        let gateway = gateway(&calling(module, WASI_FUNCTIONS, &calls), &mirror);
        let start = Instant::now();
        let memory = memory(&gateway).await;
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
        assert_statuses(&memory, &calls);
        assert_eq!(number(&memory[(READY - RESULTS) as usize..]), 5);
        let events = &memory[(EVENTS - RESULTS) as usize..];
        // The guest's own number, the error, the kind, the bytes that can be had, and whether the other end is gone.
        let told: Vec<_> =
            events.chunks(32).take(5).map(|e| (e[0], e[7], e[8], e[10], number(&e[16..]), e[24])).collect();
        let not_supported = NOT_SUPPORTED;
        assert_eq!(
            told,
            [
                (1, 1, 0, 0, 0, 0),
                (2, 2, not_supported, 0, 0, 0),
                (3, 3, 0, 1, 0, 1),
                (4, 4, 0, 2, 65_536, 0),
                (5, 5, BAD_DESCRIPTOR, 2, 0, 0),
            ]
        );
    }
}

/// A guest that prints `count` times a text, when request headers come, and then does `then`.
fn printing(text: &str, count: u32, then: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\40\00\00\00{}")
        (data (i32.const 64) "{text}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $left i32)
            (local.set $left (i32.const {count}))
            (loop $again
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            {then} (i32.const 0)))"#,
        u32::try_from(text.len()).expect("short").to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat(),
    ))
}

#[tokio::test]
async fn a_line_is_logged_when_it_ends_however_many_writes_it_takes() {
    let mirror = mirror().await;
    // The first eight bytes become the vector of a piece that ends the line.
    let end = r#"(i64.store (i32.const 0) (i64.const 0x2_0000_0060))
                 (i32.store16 (i32.const 0x60) (i32.const 0x0a0d))
                 (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))"#;
    let gateway = gateway(&printing("abc", 3, end), &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    gateway.wait_for_log("INFO abcabcabc plugin=\"guest\"");
}

#[tokio::test]
async fn a_line_without_end_is_cut_at_8_kib_and_its_rest_is_logged_with_the_instance() {
    let mirror = mirror().await;
    // Few and long, so that a slow machine prints them all within the budget of a call.
    let piece = "0123456789abcdef".repeat(16);
    let gateway = gateway(&printing(&piece, 38, ""), &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    // Another version takes its place, and the instance ends.
    gateway.swap_plugin("guest", &printing("another", 1, ""));
    let (first, rest) = (gateway.wait_for_log(&piece), gateway.wait_for_log_count(&piece, 2));
    assert_eq!((first.matches(&piece).count(), rest.matches(&piece).count()), (32, 6));
}

#[tokio::test]
async fn what_was_printed_without_an_end_of_line_is_logged_when_the_guest_exits() {
    let mirror = mirror().await;
    for (status, shown) in [("0", "0"), ("-1", "4294967295")] {
        let exit = format!("(call $exit (i32.const {status}))");
        let gateway = gateway(&printing("a last word", 1, &exit), &mirror);
        assert_eq!(get(gateway.address("web"), "/").await.status, 503);
        gateway.wait_for_log(&format!("the plugin exited with status {shown}"));
        gateway.wait_for_log("INFO a last word plugin=\"guest\"");
        // The next instance lives until it exits in its turn.
        until("a second exit", async || {
            get(gateway.address("web"), "/").await;
            (gateway.log().matches("INFO a last word").count() > 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_guest_of_an_older_cpp_or_emscripten_finds_what_these_import_beside_the_contract() {
    let guest = wat(r#"(module
        (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
        (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $grown (i32.const 0))
            (i32.and (call $equal (i32.const 7) (i32.const 7))
                     (i32.eqz (call $equal (i32.const 7) (i32.const 8))))))"#);
    let mirror = mirror().await;
    // It would refuse its configuration if the answers were wrong, and nothing would start.
    let gateway = gateway(&guest, &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn a_guest_prints_while_its_start_function_runs_before_its_memory_is_known() {
    // What was written is told in the place of the vector itself, as a small runtime may have it.
    let guest = wat(r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\40\00\00\00\0b\00\00\00")
        (data (i32.const 64) "it starts!\0a")
        (func $start (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0))))
        (start $start)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096)))"#);
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: guest }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("guest", &guest).config(config).start();
    gateway.wait_for_log("INFO it starts! plugin=\"guest\"");
}
