//! Allocators that do not give the host what it asks for.

use crate::hostile::text::{OUT, forever};
use crate::hostile::{Hostile, Outcome, Text, Way};

/// All of them.
pub fn all() -> Vec<Hostile> {
    let cases = [
        ("allocator-loops", forever("") + "(i32.const 0)", Outcome::Faults),
        ("allocator-traps", "unreachable".to_owned(), Outcome::Faults),
        ("allocator-gives-0", "(i32.const 0)".to_owned(), Outcome::Borne),
        // The texts of the guest, and the places of results.
        ("allocator-overlaps", "(i32.const 0x104)".to_owned(), Outcome::Borne),
        ("allocator-out-of-bounds", "(i32.const 0x7fffff00)".to_owned(), Outcome::Borne),
        ("allocator-wraps", "(i32.const 0xffffffff)".to_owned(), Outcome::Borne),
        // The host is in the middle of a function, and is called again.
        (
            "allocator-calls-back",
            format!(
                "(drop (call $proxy_get_header_map_pairs (i32.const 0) {OUT}))
                 (drop (call $proxy_send_local_response (i32.const 500) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
                 (i32.const 0x20000)"
            ),
            Outcome::Borne,
        ),
    ];
    let guest = |(name, malloc, outcome)| {
        let mut text = Text { malloc, ..Text::default() };
        for (map, callback) in [(0, "proxy_on_request_headers"), (2, "proxy_on_response_headers")] {
            text.on(callback, format!("(drop (call $proxy_get_header_map_pairs (i32.const {map}) {OUT}))"));
        }
        Hostile::new(name, Way::Requests, outcome, &text)
    };
    cases.map(guest).to_vec()
}
