//! Each callback, with a loop that never ends, and with a trap.

use crate::hostile::text::forever;
use crate::hostile::{Hostile, Outcome, Text, Way};

// `proxy_on_foreign_function` is not among these: Weir never calls it, and Envoy 1.40 does so in its tests only.

/// Callbacks of an HTTP filter, with what of its requests makes them come.
const HTTP: [&str; 16] = [
    "context_create",
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
    "done",
    "log",
    "delete",
    "tick",
    "queue_ready",
    "http_call_response",
    "grpc_receive_initial_metadata",
    "grpc_receive",
    "grpc_close",
];

/// Callbacks of a network filter.
const NETWORK: [&str; 5] = [
    "new_connection",
    "downstream_data",
    "upstream_data",
    "downstream_connection_close",
    "upstream_connection_close",
];

/// What ends a call badly, and its name.
fn harms() -> [(&'static str, String); 2] {
    [("loop", forever("")), ("trap", "unreachable".to_owned())]
}

/// All of them.
pub fn all() -> Vec<Hostile> {
    let mut all = Vec::new();
    for (harm, body) in harms() {
        for callback in HTTP {
            let name = format!("{harm}-{}", callback.replace('_', "-"));
            all.push(Hostile::new(name, Way::Requests, Outcome::Faults, &harmful(callback, &body)));
        }
        for callback in NETWORK {
            let name = format!("{harm}-{}", callback.replace('_', "-"));
            all.push(Hostile::new(name, Way::Connections, Outcome::Faults, &harmful(callback, &body)));
        }
    }
    all
}

fn harmful(callback: &str, body: &str) -> Text {
    let mut text = Text::default();
    match callback {
        "tick" => {
            text.on("proxy_on_request_headers", tick(1));
        }
        "queue_ready" => {
            let (name, value) = (text.data(b"queue"), text.data(b"value"));
            let body = format!(
                "(drop (call $proxy_register_shared_queue {name} (i32.const 0x100)))
                 (drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 0x100)) {value}))"
            );
            text.on("proxy_on_request_headers", body);
        }
        "http_call_response" => {
            let call = call(&mut text);
            text.on("proxy_on_request_headers", call);
        }
        // Of a call with one message for one message a filter hears the answer, and nothing before and after it.
        "grpc_receive_initial_metadata" | "grpc_close" => {
            let stream = grpc_stream(&mut text);
            text.on("proxy_on_request_headers", stream);
        }
        "grpc_receive" => {
            let call = grpc_call(&mut text);
            text.on("proxy_on_request_headers", call);
        }
        _ => {}
    }
    // The context of the plugin itself is created, too; the harm is for streams.
    let spared = "(if (i32.eqz (local.get 1)) (then (return)))";
    let guard = if callback == "context_create" { spared } else { "" };
    text.on(&format!("proxy_on_{callback}"), format!("{guard}{body}"));
    text
}

/// Sets the timer.
pub fn tick(period: u32) -> String {
    format!("(drop (call $proxy_set_tick_period_milliseconds (i32.const {period})))")
}

/// The code of an HTTP call.
pub fn call(text: &mut Text) -> String {
    let cluster = text.data(b"calls");
    let headers = text.map(&[(":method", "GET"), (":path", "/"), (":authority", "up")]);
    format!(
        "(drop (call $proxy_http_call {cluster} {headers} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 5000) (i32.const 0x100)))"
    )
}

/// The code of a unary gRPC call. Envoy takes the name of a service as a message, Weir takes both.
pub fn grpc_call(text: &mut Text) -> String {
    let service = text.data(SERVICE);
    let (name, method, message) = (text.data(b"service"), text.data(b"method"), text.data(b"message"));
    format!(
        "(drop (call $proxy_grpc_call {service} {name} {method} (i32.const 0) (i32.const 0) {message}
            (i32.const 1000) (i32.const 0x100)))"
    )
}

/// The code of a gRPC stream.
fn grpc_stream(text: &mut Text) -> String {
    let service = text.data(SERVICE);
    let (name, method) = (text.data(b"service"), text.data(b"method"));
    format!(
        "(drop (call $proxy_grpc_stream {service} {name} {method} (i32.const 0) (i32.const 0) (i32.const 0x100)))"
    )
}

/// `envoy.config.core.v3.GrpcService { envoy_grpc { cluster_name: "grpc" } }`
const SERVICE: &[u8] = b"\x0a\x06\x0a\x04grpc";
