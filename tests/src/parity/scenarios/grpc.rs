//! gRPC calls and streams.

use crate::parity::upstreams::Answer;
use crate::parity::{Scenario, get};

const CALL: &str = r#"proxy_grpc_call other my.Service Method [x-meta=1] "asked" 5000"#;
const STREAM: &str = r#"proxy_grpc_stream other my.Service Stream [x-meta=1]"#;
const ON: &str = "proxy_set_effective_context $stream; proxy_continue_stream 0";

/// What is told of every event.
fn told(then: &str) -> String {
    format!(
        "grpc_receive_initial_metadata: proxy_get_header_map_value 4 content-type; proxy_get_header_map_value 4 x-none; proxy_get_header_map_value 4 x-init\n\
         grpc_receive: proxy_get_buffer_bytes 5 0 100; proxy_get_buffer_status 5; proxy_get_status\n\
         grpc_receive_trailing_metadata: proxy_get_header_map_value 5 grpc-status; proxy_get_header_map_value 5 x-trail\n\
         grpc_close: proxy_get_status\n{then}"
    )
}

fn grpc(name: &'static str, script: &str, status: &'static str) -> Scenario {
    Scenario::new(name, script).send(get("/x")).other(Answer::grpc(status))
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        grpc(
            "grpc-call",
            &told(&format!("request_headers: {CALL}; return 1\ngrpc_receive: proxy_get_buffer_bytes 5 0 100; proxy_get_buffer_status 5; proxy_get_status; {ON}")),
            "0",
        ),
        grpc("grpc-call-fails", &told(&format!("request_headers: {CALL}; return 1\ngrpc_close: proxy_get_status; {ON}")), "5"),
        grpc(
            "grpc-call-to-nobody",
            &told(&format!("request_headers: proxy_grpc_call nowhere s m [] \"asked\" 5000; return 1\ngrpc_close: proxy_get_status; {ON}")),
            "0",
        ),
        Scenario::new(
            "grpc-call-not-answered-in-time",
            &told(&format!("request_headers: proxy_grpc_call other s m [] \"asked\" 300; return 1\ngrpc_close: proxy_get_status; {ON}")),
        )
        .send(get("/x"))
        .other(Answer::silence()),
        grpc(
            "grpc-call-refused",
            r#"request_headers: proxy_grpc_call no-such s m [] "x" 100; proxy_grpc_stream no-such s m []; proxy_grpc_call other s m "broken" "x" 100; proxy_grpc_call @0x7fff0000:9 s m [] "x" 100; proxy_grpc_send 4242 "x" 0; proxy_grpc_close 4242; proxy_grpc_cancel 4242"#,
            "0",
        ),
        grpc(
            "grpc-call-cancelled",
            &told(&format!("request_headers: {CALL}; proxy_grpc_cancel $last; proxy_grpc_cancel $last; proxy_grpc_close $last")),
            "0",
        ),
        grpc("grpc-call-is-no-stream", &told(&format!("request_headers: {CALL}; proxy_grpc_send $last \"more\" 0; proxy_grpc_close $last")), "0"),
        grpc(
            "grpc-call-by-proto",
            // A GrpcService: envoy_grpc (1) with cluster_name (1).
            &told(&format!("request_headers: proxy_grpc_call \"\\x0a\\x07\\x0a\\x05other\" s m [] \"asked\" 5000; return 1\ngrpc_receive: {ON}")),
            "0",
        ),
        grpc(
            "grpc-stream",
            &told(&format!(
                "request_headers: {STREAM}; let t; proxy_grpc_send $t \"one\" 0; proxy_grpc_send $t \"two\" 1; return 1\ngrpc_close: proxy_get_status; {ON}"
            )),
            "0",
        ),
        grpc(
            "grpc-stream-fails",
            &told(&format!("request_headers: {STREAM}; let t; proxy_grpc_send $t \"one\" 1; return 1\ngrpc_close: proxy_get_status; {ON}")),
            "13",
        ),
        grpc(
            "grpc-stream-closed-by-the-guest",
            &told(&format!(
                "request_headers: {STREAM}; let t; proxy_grpc_send $t \"one\" 0; return 1\n\
                 grpc_receive: proxy_get_buffer_bytes 5 0 100; proxy_grpc_close $t\n\
                 grpc_close: proxy_get_status; proxy_grpc_send $t \"late\" 0; {ON}"
            )),
            "0",
        ),
        grpc(
            "grpc-stream-cancelled",
            &told(&format!(
                "request_headers: {STREAM}; let t; proxy_grpc_send $t \"one\" 0; return 1\n\
                 grpc_receive: proxy_grpc_cancel $t; proxy_grpc_send $t \"late\" 0; proxy_grpc_cancel $t; {ON}"
            )),
            "0",
        ),
        grpc(
            "grpc-stream-to-nobody",
            &told(&format!("request_headers: proxy_grpc_stream nowhere s m []; let t; proxy_grpc_send $t \"one\" 0; return 1\ngrpc_close: proxy_get_status; {ON}")),
            "0",
        ),
        Scenario::new(
            "grpc-stream-metadata",
            &told(&format!("request_headers: {STREAM}; let t; proxy_grpc_send $t \"one\" 1; return 1\ngrpc_close: {ON}")),
        )
        .send(get("/x"))
        .other(Answer::grpc("0").header("x-init", "i").trailer("x-trail", "t")),
        Scenario::new(
            "grpc-answered-by-http",
            &told(&format!("request_headers: {CALL}; return 1\ngrpc_close: proxy_get_status; {ON}")),
        )
        .send(get("/x"))
        .other(Answer { grpc_echo: true, status: 503, ..Answer::body(&[]) }),
    ]
}
