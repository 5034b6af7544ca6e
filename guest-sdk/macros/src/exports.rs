//! Which callbacks a filter's methods need of the host.

use crate::methods::Methods;

/// The callbacks to export, by the names of `weir_sdk`'s `export_http_callback!`.
pub(crate) fn of(names: &[String], methods: &Methods) -> Vec<&'static str> {
    let has = |name: &str| names.iter().any(|known| known == name);
    let awaits = methods.awaiting_bits() != 0;
    // Whoever awaits a body must hear of its end, and trailers are one.
    let reads = |whole: &str, body: &str| methods.awaits(whole) || methods.awaits(body);
    let wanted = [
        ("request_headers", has("on_request") || has("on_request_headers")),
        ("request_body", has("on_request") || has("on_request_body")),
        ("request_trailers", has("on_request_trailers") || reads("on_request", "on_request_body")),
        ("response_headers", has("on_response") || has("on_response_headers")),
        ("response_body", has("on_response") || has("on_response_body")),
        ("response_trailers", has("on_response_trailers") || reads("on_response", "on_response_body")),
        ("log", has("on_log")),
        ("tick", has("on_tick") || awaits),
        ("http_call", awaits),
        ("grpc_call", awaits),
        ("queue", awaits),
    ];
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}
