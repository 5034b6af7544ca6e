//! Floods: logs, metrics, shared data, queues, calls, replies.

use crate::hostile::callbacks::{call, grpc_call};
use crate::hostile::text::{forever, fresh_name, times};
use crate::hostile::{Hostile, Outcome, Text, Way};

/// Where a fresh name is written, and the two arguments that are it.
const NAME: (usize, &str) = (0x200, "(i32.const 0x200) (i32.const 16)");
/// 64 KiB of memory, as a value.
const LARGE: &str = "(i32.const 0x20000) (i32.const 0x10000)";

/// All of them.
pub fn all() -> Vec<Hostile> {
    let on_request = |name: &str, outcome, body: &dyn Fn(&mut Text) -> String| {
        let mut text = Text::default();
        let body = body(&mut text);
        text.on("proxy_on_request_headers", body);
        Hostile::new(name, Way::Requests, outcome, &text)
    };
    let fresh = fresh_name(NAME.0);
    let name = NAME.1;
    let define = format!(
        "{fresh} (drop (call $proxy_define_metric (i32.const 0) {name} (i32.const 0x100)))
         (drop (call $proxy_increment_metric (i32.load (i32.const 0x100)) (i64.const 1)))"
    );
    let store = format!("{fresh} (drop (call $proxy_set_shared_data {name} {LARGE} (i32.const 0)))");
    let queues = format!("{fresh} (drop (call $proxy_register_shared_queue {name} (i32.const 0x100)))");
    let enqueue = format!("(drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 0x100)) {LARGE}))");
    let log =
        |text: &mut Text| format!("(drop (call $proxy_log (i32.const 2) {}))", text.data(&[b'x'; 1000]));
    vec![
        on_request("log-flood", Outcome::Borne, &|text| times(100, &log(text))),
        on_request("log-flood-for-ever", Outcome::Faults, &|text| forever(&log(text))),
        on_request("metric-flood", Outcome::Borne, &|_| times(50, &define)),
        // Each instance defines as many as it may, and makes way for the next.
        on_request("metric-flood-reborn", Outcome::Faults, &|_| times(1000, &define) + "unreachable"),
        on_request("shared-data-flood", Outcome::Borne, &|_| times(10, &store)),
        on_request("queue-flood", Outcome::Borne, &|_| times(10, &format!("{queues} {enqueue}"))),
        on_request("one-queue-flood", Outcome::Borne, &|text| {
            let name = text.data(b"queue");
            format!("(drop (call $proxy_register_shared_queue {name} (i32.const 0x100)))")
                + &times(20, &enqueue)
        }),
        on_request("call-storm", Outcome::Borne, &|text| times(100, &call(text))),
        on_request("grpc-call-storm", Outcome::Borne, &|text| times(100, &grpc_call(text))),
        on_request("local-reply-storm", Outcome::Borne, &|text| {
            let body = text.data(&[b'x'; 4000]);
            times(
                1000,
                &format!(
                "(drop (call $proxy_send_local_response (i32.const 418) (i32.const 0) (i32.const 0) {body}
                    (i32.const 0) (i32.const 0) (i32.const -1)))"
            ),
            )
        }),
        on_request("property-flood", Outcome::Borne, &|_| {
            times(100, &format!("{fresh} (drop (call $proxy_set_property {name} {LARGE}))"))
        }),
    ]
}
