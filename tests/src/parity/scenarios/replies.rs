//! Local replies, from every phase.

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, get, post};

const REPLY: &str =
    r#"proxy_send_local_response 418 "details" "from the filter" [x-own=1|content-type=text/x] -1"#;

fn in_phase(name: &'static str, phase: &str, after: &str) -> Scenario {
    Scenario::new(name, &format!("{phase}: {REPLY}; {after}"))
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        in_phase("reply-to-headers", "request_headers", "return 1").send(get("/")),
        in_phase("reply-to-headers-and-continue", "request_headers", "return 0").send(get("/")),
        in_phase("reply-to-body", "request_body", "return 1").send(post("/", &["one", "two"])),
        in_phase("reply-to-trailers", "request_trailers", "return 1").send(post("/", &["one"]).trailer("x-t", "1")),
        in_phase("reply-in-response-headers", "response_headers", "return 1").send(get("/")),
        in_phase("reply-in-response-headers-and-continue", "response_headers", "return 0").send(get("/")),
        in_phase("reply-in-response-body", "response_body 2", "return 1").send(get("/")).answer(Answer::body(&["one", "two"])),
        in_phase("reply-in-response-trailers", "response_trailers", "return 1").send(get("/").h2()).answer(Answer::body(&["one"]).trailer("x-t", "1")),
        in_phase("reply-when-done", "done", "return 1").send(get("/")),
        in_phase("reply-when-logging", "log", "return 0").send(get("/")),
        Scenario::new(
            "reply-twice",
            &format!("request_headers: {REPLY}; proxy_send_local_response 500 \"second\" \"second\" [] -1; return 1"),
        )
        .send(get("/")),
        Scenario::new(
            "reply-from-a-timer",
            &format!(
                "configure: proxy_set_tick_period_milliseconds 100\nrequest_headers: return 1\n\
                 tick streaming: proxy_set_effective_context $stream; {REPLY}; proxy_set_tick_period_milliseconds 0"
            ),
        )
        .send(get("/")),
        Scenario::new(
            "reply-passes-response-filters",
            "response_headers: proxy_get_header_map_value 2 \":status\"; proxy_add_header_map_value 2 x-one 1\n\
             response_body: proxy_get_buffer_bytes 1 0 100",
        )
        .and(Filter::new("two", &format!("request_headers: {REPLY}; return 1\nresponse_headers: proxy_get_header_map_value 2 x-own\nresponse_body: proxy_get_buffer_bytes 1 0 100")))
        .and(Filter::new("three", "request_headers: log \"never\""))
        .send(get("/")),
        Scenario::new("reply-to-grpc", "request_headers: proxy_send_local_response 403 \"d\" \"no way\" [x-own=1] 7; return 1")
            .send(post("/s/m", &[]).header("content-type", "application/grpc").h2()),
        Scenario::new("reply-to-grpc-by-http-status", "request_headers: proxy_send_local_response 403 \"d\" \"no way\" [] -1; return 1")
            .send(post("/s/m", &[]).header("content-type", "application/grpc").h2()),
        Scenario::new("reply-with-grpc-status-to-http", "request_headers: proxy_send_local_response 403 \"d\" \"no\" [] 7; return 1").send(get("/")),
        Scenario::new("reply-without-body", "request_headers: proxy_send_local_response 204 \"d\" \"\" [] -1; return 1").send(get("/")),
        Scenario::new("reply-with-a-status-that-is-none", "request_headers: proxy_send_local_response 999 \"d\" \"x\" [] -1; return 1").send(get("/")),
        Scenario::new("reply-with-broken-headers", "request_headers: proxy_send_local_response 200 \"d\" \"x\" \"broken\" -1; return 1").send(get("/")),
        Scenario::new("reply-with-bad-memory", "request_headers: proxy_send_local_response 200 @0x7fff0000:9 \"x\" [] -1; proxy_send_local_response 200 \"d\" @0x7fff0000:9 [] -1; proxy_send_local_response 200 \"d\" \"x\" @0x7fff0000:9 -1").send(get("/")),
        Scenario::new("reply-details", &format!("request_headers: {REPLY}; return 1\nlog: proxy_get_property \"response\\0code\"; proxy_get_property \"response\\0code_details\"")).send(get("/")),
    ]
}
