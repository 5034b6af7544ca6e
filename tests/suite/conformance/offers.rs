//! Guests that offer room for what they ask for (ADR 0023): what fits is written there, and no allocator is called.

use weir_abi::OFFERS_ROOM;
use weir_tests::guests::wat;
use weir_tests::http::get;
use weir_tests::{Gateway, Setup};

/// What it offers by.
const MARK: &str = OFFERS_ROOM;
/// Where the guest's buffer is, and what its allocator gives.
const ROOM: u32 = 216;
const ALLOCATED: u32 = 1024;
const ALLOCATES: &str = "(i32.const 1024)";
const NEVER_CALLED: &str = "unreachable";

/// A guest that exports `mark`, reads the path into the room of one byte less than `size` that it offers at `at`, and replies with its memory from
/// 200 on: address and length, the status that it got, and its buffer.
fn reading(mark: &str, (at, size): (u32, u32), allocator: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) ":path")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "{mark}"))
        (func (export "malloc") (param i32) (result i32) {allocator})
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.store (i32.const 200) (i32.const {at}))
            (i32.store (i32.const 204) (i32.const {size}))
            (i32.store (i32.const 208)
                (call $get (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 200) (i32.const 204)))
            (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 200) (i32.const 24)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1)))"#
    ))
}

fn gateway(guest: &[u8], scheduling: &str) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], \
           filters: [ {{ plugin: guest, scheduling: {scheduling} }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"127.0.0.1:9\"] }} ]"
    );
    Setup::new().plugin_bytes("guest", guest).config(config).start()
}

/// Address, length and status that the guest got for `/path`, and the beginning of its buffer.
async fn read(guest: &[u8], scheduling: &str) -> (u32, u32, u32, Vec<u8>) {
    let gateway = gateway(guest, scheduling);
    let answer = get(gateway.address("web"), "/path").await;
    assert_eq!(answer.status, 200, "{}", gateway.log());
    let number = |at: usize| u32::from_le_bytes(answer.body[at..at + 4].try_into().expect("four bytes"));
    (number(0), number(4), number(8), answer.body[16..21].to_vec())
}

#[tokio::test]
async fn what_fits_into_the_room_that_is_offered_is_written_there_and_nothing_is_allocated() {
    for scheduling in ["inline", "preemptible"] {
        for size in [6, 7, 0xffff_ffff] {
            let got = read(&reading(MARK, (ROOM, size), NEVER_CALLED), scheduling).await;
            assert_eq!(got, (ROOM, 5, 0, b"/path".to_vec()), "{scheduling}, {size}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_allocated_and_so_is_all_that_a_guest_without_the_mark_asks_for() {
    let cases =
        [(MARK, (ROOM, 5)), (MARK, (ROOM, 0)), (MARK, (0, 100)), ("weir_offers_nothing", (ROOM, 100))];
    for scheduling in ["inline", "preemptible"] {
        for (mark, offer) in cases {
            let got = read(&reading(mark, offer, ALLOCATES), scheduling).await;
            assert_eq!(got, (ALLOCATED, 5, 0, vec![0; 5]), "{scheduling}, {mark}, {offer:?}");
        }
    }
}

#[tokio::test]
async fn room_that_is_not_in_the_guests_memory_is_an_invalid_access() {
    for scheduling in ["inline", "preemptible"] {
        for at in [0xffff_ffff, 0x10000, 0x10000 - 4] {
            let (address, len, status, _) = read(&reading(MARK, (at, 100), NEVER_CALLED), scheduling).await;
            assert_eq!((address, len, status), (0, 0, 6), "{scheduling}, {at:#x}");
        }
    }
}
