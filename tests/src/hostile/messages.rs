//! Guests that blow up messages, hold them for ever, or reach for the streams of others.

use crate::hostile::text::{fresh_name, times};
use crate::hostile::{Hostile, Outcome, Text, Way};

/// All of them.
pub fn all() -> Vec<Hostile> {
    let guest = |name: &str, outcome, bodies: &[(&str, String)]| {
        let mut text = Text::default();
        for (callback, body) in bodies {
            text.on(&format!("proxy_on_{callback}"), body);
        }
        Hostile::new(name, Way::Requests, outcome, &text)
    };
    let pause = || "(return (i32.const 1))".to_owned();
    let fresh = fresh_name(0x200);
    let add = |map: u32, len: u32| {
        format!(
            "{fresh} (drop (call $proxy_add_header_map_value (i32.const {map}) (i32.const 0x200) (i32.const 16)
                (i32.const 0x3000) (i32.const {len})))"
        )
    };
    // What is sent as a value: it must be text.
    let fill = "(memory.fill (i32.const 0x3000) (i32.const 120) (i32.const 0x100000))";
    let bomb = |count: usize, len: u32| {
        [("request_headers", 0), ("response_headers", 2)]
            .map(|(callback, map)| (callback, format!("{fill} {}", times(count, &add(map, len)))))
    };
    let grow = |buffer: u32| {
        times(
            64,
            &format!(
                "(drop (call $proxy_set_buffer_bytes (i32.const {buffer}) (i32.const 0x7fffffff) (i32.const 0)
                    (i32.const 0x20000) (i32.const 0x10000)))"
            ),
        )
    };
    vec![
        guest("never-resumes-requests", Outcome::Borne, &[("request_headers", pause())]),
        guest("never-resumes-bodies", Outcome::Borne, &[("request_body", pause())]),
        guest("never-resumes-responses", Outcome::Borne, &[("response_headers", pause())]),
        guest("many-headers", Outcome::Borne, &bomb(500, 100)),
        // As much as it may, which is less in Weir: what is beyond it is refused, and the rest is sent.
        guest("giant-headers", Outcome::Borne, &bomb(32, 0x8000)),
        guest("request-body-growth", Outcome::Borne, &[("request_body", grow(0))]),
        guest("response-body-growth", Outcome::Borne, &[("response_body", grow(1))]),
        guest("forged-contexts", Outcome::Borne, &[("request_headers", forge())]),
    ]
}

/// Reaches for each of the first contexts and does there what would be felt: marks, replies, closes, ends.
fn forge() -> String {
    times(
        500,
        "(if (i32.eqz (call $proxy_set_effective_context (i32.sub (global.get $i) (i32.const 1)))) (then
            (drop (call $proxy_remove_header_map_value (i32.const 0) (i32.const 0x300) (i32.const 5)))
            (drop (call $proxy_send_local_response (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
            (drop (call $proxy_continue_stream (i32.const 0)))
            (drop (call $proxy_close_stream (i32.const 1)))
            (drop (call $proxy_done ))))",
    )
}
