//! HTTP calls.

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, get};

/// A call without a body: several at a time look the same in whatever order they come.
const ASK: &str = r#"proxy_http_call other [:method=GET|:path=/call|:authority=other.internal] "" [] 5000"#;

const CALL: &str =
    r#"proxy_http_call other [:method=POST|:path=/call|:authority=other.internal|x-a=1] "asked" [] 5000"#;

const ANSWERED: &str = r#"http_call_response: proxy_get_header_map_value 6 ":status"; proxy_get_header_map_value 6 x-b; proxy_get_header_map_value 6 x-none; proxy_get_buffer_bytes 4 0 100; proxy_get_header_map_value 7 x-t; proxy_get_status; proxy_set_effective_context $stream; proxy_add_header_map_value 0 x-late "1"; proxy_continue_stream 0"#;

pub fn scenarios() -> Vec<Scenario> {
    let answered = |name, call: &str| {
        Scenario::new(name, &format!("request_headers: {call}; return 1\n{ANSWERED}")).send(get("/x"))
    };
    let refused = |name, call: &str| Scenario::new(name, &format!("request_headers: {call}")).send(get("/x"));
    vec![
        answered("call", CALL).other(Answer::body(&["answered"]).header("x-b", "2")),
        answered("call-answered-with-an-error", CALL).other(Answer::body(&[]).status(503)),
        answered("call-with-trailers", r#"proxy_http_call other [:method=POST|:path=/call|:authority=o] "asked" [x-t=1] 5000"#)
            .other(Answer::body(&["answered"]).trailer("x-t", "2")),
        answered("call-to-nobody", r#"proxy_http_call nowhere [:method=GET|:path=/|:authority=o] "" [] 5000"#),
        answered("call-not-answered-in-time", r#"proxy_http_call other [:method=GET|:path=/|:authority=o] "" [] 200"#)
            .other(Answer::silence()),
        refused("call-to-an-unknown-cluster", r#"proxy_http_call no-such [:method=GET|:path=/|:authority=o] "" [] 100"#),
        refused("call-without-a-method", r#"proxy_http_call other [:path=/|:authority=o] "" [] 100"#),
        refused("call-without-a-path", r#"proxy_http_call other [:method=GET|:authority=o] "" [] 100"#),
        refused("call-without-an-authority", r#"proxy_http_call other [:method=GET|:path=/] "" [] 100"#),
        refused("call-with-a-negative-timeout", r#"proxy_http_call other [:method=GET|:path=/|:authority=o] "" [] -1"#),
        refused("call-with-broken-headers", r#"proxy_http_call other "broken" "" [] 100"#),
        refused("call-with-bad-memory", r#"proxy_http_call @0x7fff0000:9 [:method=GET|:path=/|:authority=o] "" [] 100; proxy_http_call other @0x7fff0000:9 "" [] 100; proxy_http_call other [:method=GET|:path=/|:authority=o] @0x7fff0000:9 [] 100"#),
        Scenario::new(
            "call-from-a-timer",
            &format!("configure: proxy_set_tick_period_milliseconds 100\ntick streaming: {CALL}; proxy_set_tick_period_milliseconds 0\nhttp_call_response: proxy_get_buffer_bytes 4 0 100; log \"answered\""),
        )
        .send(get("/x"))
        .until("answered"),
        Scenario::new(
            "call-answered-after-the-stream",
            &format!("request_headers: {CALL}\nhttp_call_response: proxy_set_effective_context 12345; proxy_set_effective_context $stream; proxy_get_buffer_bytes 4 0 100; log \"answered\""),
        )
        .send(get("/x"))
        .other(Answer::body(&["late"]).late())
        .until("answered"),
        Scenario::new(
            "call-answer-out-of-phase",
            &format!("request_headers: {CALL}; proxy_get_header_map_value 6 \":status\"; proxy_get_buffer_bytes 4 0 100; proxy_get_status; return 1\n{ANSWERED}\nresponse_headers: proxy_get_header_map_value 6 \":status\"; proxy_get_buffer_bytes 4 0 100"),
        )
        .send(get("/x")),
        Scenario::new(
            "call-that-denies",
            &format!("request_headers: {CALL}; return 1\nhttp_call_response: proxy_set_effective_context $stream; proxy_send_local_response 403 \"d\" \"denied\" [] -1"),
        )
        .and(Filter::new("two", ""))
        .send(get("/x")),
        Scenario::new("two-calls", &format!("request_headers: {ASK}; {ASK}; return 1\nhttp_call_response: log \"one of two\"; proxy_set_effective_context $stream\nhttp_call_response 2: proxy_set_effective_context $stream; proxy_continue_stream 0"))
            .send(get("/x")),
    ]
}
