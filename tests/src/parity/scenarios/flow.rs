//! Pausing and going on.

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, get, post};

/// A timer that acts once there is a stream.
const TICKING: &str = "configure: proxy_set_tick_period_milliseconds 100\n";

fn ticking(name: &'static str, script: &str) -> Scenario {
    Scenario::new(name, &format!("{TICKING}{script}"))
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        ticking(
            "pause-on-headers",
            r#"request_headers: return 1
               tick streaming: proxy_set_effective_context $stream; proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 0 x-late "1"; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(post("/x", &["one", "two"])),
        ticking(
            "pause-on-headers-without-body",
            r#"request_headers: return 1
               tick streaming: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(get("/x")),
        ticking(
            "pause-on-response-headers",
            r#"response_headers: return 1
               tick streaming: proxy_set_effective_context $stream; proxy_add_header_map_value 2 x-late "1"; proxy_continue_stream 1; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(get("/x"))
        .answer(Answer::body(&["one", "two"])),
        ticking(
            "pause-on-body",
            r#"request_body 1: return 1
               request_body end: proxy_get_buffer_bytes 0 0 100; return 1
               tick ended: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(post("/x", &["one"])),
        ticking(
            "pause-on-trailers",
            r#"request_trailers: return 1
               tick ended: proxy_set_effective_context $stream; proxy_get_header_map_value 1 x-t; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(post("/x", &["one"]).trailer("x-t", "1")),
        ticking(
            "pause-by-two-filters",
            r#"request_headers: return 1
               tick streaming: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .and(Filter::new("two", "request_headers: log \"two is asked\""))
        .send(get("/x")),
        Scenario::new("pause-and-go-on-at-once", "request_headers: proxy_continue_stream 0; return 1").send(get("/")),
        Scenario::new("go-on-without-a-pause", "request_headers: proxy_continue_stream 0; proxy_continue_stream 1; proxy_continue_stream 2; proxy_continue_stream 3; proxy_continue_stream 9").send(get("/")),
        Scenario::new("headers-action-2", "request_headers: return 2").send(post("/", &["body"])),
        ticking(
            "headers-action-3",
            r#"request_headers: return 3
               tick streaming: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(post("/", &["one", "two"])),
        ticking(
            "headers-action-4",
            r#"request_headers: return 4
               tick streaming: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(post("/", &["one", "two"])),
        ticking(
            "headers-action-unknown",
            r#"request_headers: return 77
               tick streaming: proxy_set_effective_context $stream; proxy_continue_stream 0; proxy_set_tick_period_milliseconds 0"#,
        )
        .send(get("/")),
        Scenario::new(
            "stop-iteration-on-headers",
            r#"request_headers: return 1
               request_body more: proxy_get_header_map_value 0 ":path"; return 1
               request_body end: proxy_get_buffer_bytes 0 0 100; proxy_add_header_map_value 0 x-late "1"; return 0"#,
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .send(post("/x", &["one", "two"])),
        Scenario::new(
            "stop-iteration-on-headers-reroutes",
            r#"request_headers: return 1
               request_body end: proxy_replace_header_map_value 0 ":path" "/rerouted""#,
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .and(Filter::new("two", "request_headers: proxy_get_header_map_value 0 \":path\"\nrequest_body: proxy_get_buffer_bytes 0 0 100"))
        .send(post("/x", &["one"])),
        Scenario::new(
            "stop-iteration-on-response-headers",
            r#"response_headers: return 1
               response_body more: return 1
               response_body end: proxy_get_buffer_bytes 1 0 100; proxy_add_header_map_value 2 x-late "1"; proxy_replace_header_map_value 2 ":status" "202""#,
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .send(get("/x"))
        .answer(Answer::body(&["one", "two"])),
        Scenario::new(
            "stop-iteration-on-headers-and-trailers",
            r#"request_headers: return 1
               request_body: return 1
               request_trailers: proxy_add_header_map_value 0 x-late "1""#,
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .send(post("/x", &["one"]).trailer("x-t", "1")),
        Scenario::new(
            "stop-iteration-by-two-filters",
            r#"request_headers: return 1
               request_body more: return 1"#,
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .and(Filter {
            headers_stop_iteration: true,
            ..Filter::new(
                "two",
                r#"request_headers: return 1
                   request_body end: proxy_get_buffer_bytes 0 0 100; proxy_add_header_map_value 0 x-late "2""#,
            )
        })
        .send(post("/x", &["one", "two"])),
        Scenario::new(
            "stop-iteration-behind-a-filter-that-gathers",
            r#"request_body more: return 1
               request_body end: proxy_get_buffer_bytes 0 0 100"#,
        )
        .and(Filter {
            headers_stop_iteration: true,
            ..Filter::new(
                "two",
                r#"request_headers: return 1
                   request_body: proxy_get_buffer_bytes 0 0 100; proxy_add_header_map_value 0 x-late "2""#,
            )
        })
        .send(post("/x", &["one", "two"])),
        Scenario::new("body-gathered-by-the-second-of-two", "request_body: proxy_get_buffer_bytes 0 0 100")
            .and(Filter::new("two", "request_body more: return 1\nrequest_body end: proxy_get_buffer_bytes 0 0 100"))
            .send(post("/x", &["one", "two", "three"])),
        Scenario::new(
            "body-gathered-by-both",
            "request_body 1: return 1\nrequest_body: proxy_get_buffer_bytes 0 0 100",
        )
        .and(Filter::new("two", "request_body more: return 1\nrequest_body end: proxy_get_buffer_bytes 0 0 100"))
        .send(post("/x", &["one", "two", "three"])),
        Scenario::new("close-the-request", "request_headers: proxy_close_stream 0; return 1").send(get("/")),
        Scenario::new("close-the-response", "response_headers: proxy_close_stream 1; return 1").send(get("/")),
        Scenario::new("close-what-is-not-there", "request_headers: proxy_close_stream 2; proxy_close_stream 3; proxy_close_stream 9").send(get("/")),
    ]
}
