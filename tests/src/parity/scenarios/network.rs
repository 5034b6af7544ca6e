//! Network filters.

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, Send};

fn tcp(name: &'static str, script: &str, pieces: &[&str]) -> Scenario {
    let mut scenario = Scenario::new(name, script);
    scenario.tcp = true;
    scenario.answer = Answer::body(&["answer", "more"]);
    let body = pieces.iter().map(|&piece| piece.to_owned()).collect();
    scenario.send(Send { body, ..Send::default() })
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        tcp(
            "tcp",
            "downstream_data: proxy_get_buffer_bytes 2 0 100\nupstream_data: proxy_get_buffer_bytes 3 0 100",
            &["one", "two"],
        ),
        tcp(
            "tcp-changed",
            "downstream_data 1: proxy_set_buffer_bytes 2 0 100 \"changed\"\nupstream_data 1: proxy_set_buffer_bytes 3 0 0 \"before \"",
            &["one", "two"],
        ),
        tcp(
            "tcp-held",
            "downstream_data 1: return 1\ndownstream_data: proxy_get_buffer_bytes 2 0 100",
            &["one", "two"],
        ),
        tcp(
            "tcp-upstream-held",
            "upstream_data 1: return 1\nupstream_data: proxy_get_buffer_bytes 3 0 100",
            &["one", "two"],
        ),
        tcp("tcp-closed-at-the-beginning", "new_connection: proxy_close_stream 2; return 1", &["one"]),
        tcp("tcp-closed-by-data", "downstream_data 2: proxy_close_stream 2; return 1", &["one", "two"]),
        tcp("tcp-upstream-closed", "downstream_data 2: proxy_close_stream 3", &["one", "two"]),
        tcp(
            "tcp-paused-at-the-beginning",
            "configure: proxy_set_tick_period_milliseconds 100\nnew_connection: return 1\ntick streaming: proxy_set_effective_context $stream; proxy_continue_stream 2; proxy_set_tick_period_milliseconds 0",
            &["one"],
        ),
        tcp(
            "tcp-held-and-resumed",
            "configure: proxy_set_tick_period_milliseconds 300\ndownstream_data 1: return 1\ntick streaming: proxy_set_effective_context $stream; proxy_continue_stream 2; proxy_set_tick_period_milliseconds 0",
            &["one"],
        ),
        tcp("tcp-by-two-filters", "downstream_data: log \"one\"\nupstream_data: log \"one\"", &["x"])
            .and(Filter::new("two", "downstream_data: log \"two\"\nupstream_data: log \"two\"")),
        tcp(
            "tcp-http-functions",
            "new_connection: proxy_get_header_map_value 0 \":path\"; proxy_send_local_response 200 \"d\" \"x\" [] -1; proxy_get_buffer_bytes 0 0 1; proxy_continue_stream 0\ndownstream_data: proxy_get_buffer_bytes 3 0 9",
            &["one"],
        ),
        tcp(
            "tcp-properties",
            "new_connection: proxy_get_property plugin_name; proxy_get_property \"connection\\0mtls\"; proxy_get_property \"request\\0path\"; proxy_set_property own \"x\"; proxy_get_property own",
            &["one"],
        ),
    ]
}
