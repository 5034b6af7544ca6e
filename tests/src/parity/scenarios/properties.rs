//! Properties and foreign functions.

use crate::parity::upstreams::Answer;
use crate::parity::{Scenario, get, post};

/// Reads properties by their dotted names.
fn read(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("proxy_get_property \"{}\"", name.replace('.', "\\0")))
        .collect::<Vec<_>>()
        .join("; ")
}

const REQUEST: [&str; 13] = [
    "request.path",
    "request.url_path",
    "request.query",
    "request.host",
    "request.scheme",
    "request.method",
    "request.protocol",
    "request.referer",
    "request.useragent",
    "request.headers.x-a",
    "request.headers.x-none",
    "request.no-such",
    "request.size",
];

const RESPONSE: [&str; 9] = [
    "response.code",
    "response.code_details",
    "response.flags",
    "response.grpc_status",
    "response.headers.x-b",
    "response.headers.x-none",
    "response.trailers.x-t",
    "response.size",
    "response.no-such",
];

const PLACE: [&str; 13] = [
    "route_name",
    "cluster_name",
    "plugin_name",
    "plugin_root_id",
    "plugin_vm_id",
    "listener_direction",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.uri_san_peer_certificate",
    "upstream.transport_failure_reason",
    "no_such",
    "xds.route_name",
];

pub fn scenarios() -> Vec<Scenario> {
    let request = read(&REQUEST);
    let response = read(&RESPONSE);
    let place = read(&PLACE);
    let ask = || get("/a/b?c=d").header("x-a", "1").header("referer", "r").header("user-agent", "u");
    vec![
        Scenario::new("properties-of-the-request", &format!("request_headers: {request}")).send(ask()),
        Scenario::new("properties-of-the-request-later", &format!("response_headers: {request}\nlog: {request}")).send(post("/x", &["body"]).header("x-a", "1")),
        Scenario::new("properties-of-the-response", &format!("request_headers: {response}\nresponse_headers: {response}\nlog: {response}"))
            .send(get("/").h2())
            .answer(Answer::body(&["body"]).header("x-b", "1").trailer("x-t", "2")),
        Scenario::new("properties-of-the-place", &format!("request_headers: {place}\nresponse_headers: {place}\nlog: {place}")).send(get("/")),
        Scenario::new(
            "properties-in-the-root-context",
            &format!("configure: {place}; proxy_get_property \"request\\0path\"; proxy_set_property \"own\" \"x\"; proxy_get_property \"own\""),
        )
        .send(get("/")),
        Scenario::new(
            "properties-set-by-the-guest",
            r#"request_headers: proxy_get_property own; proxy_set_property own "one"; proxy_get_property own; proxy_get_property "own\0"; proxy_get_property "wasm\0own"; proxy_get_property "filter_state\0wasm.own"; proxy_set_property "a\0b" "two"; proxy_get_property "a\0b"; proxy_set_property "request\0path" "/evil"; proxy_get_property "request\0path"; proxy_set_property own "three"
               response_headers: proxy_get_property own
               log: proxy_get_property own"#,
        )
        .send(get("/x")),
        Scenario::new(
            "properties-refused",
            r#"request_headers: proxy_get_property ""; proxy_get_property "\0"; proxy_get_property "request"; proxy_get_property @0x7fff0000:9; proxy_set_property @0x7fff0000:9 "x"; proxy_set_property x @0x7fff0000:9; proxy_set_property "" "x"; proxy_get_property "request\0path" @0x7fff0000:0x7fff0000"#,
        )
        .send(get("/x")),
        Scenario::new(
            "properties-as-maps",
            r#"response_headers: proxy_set_header_map_pairs 2 [:status=200|x-a=1|x-b=2]; proxy_get_property "response\0headers"; proxy_get_property "response\0headers\0x-a""#,
        )
        .send(get("/x")),
        Scenario::new(
            "foreign-functions",
            r#"request_headers: proxy_call_foreign_function no_such "x"; proxy_call_foreign_function clear_route_cache ""; proxy_call_foreign_function uncompress "no zlib"; proxy_call_foreign_function @0x7fff0000:9 "x"; proxy_call_foreign_function compress @0x7fff0000:9; proxy_call_foreign_function compress "hello hello hello hello"; proxy_call_foreign_function uncompress "x\x9c\xcbH\xcd\xc9\xc9W\xc8@'\x00i\x9a\x08\xb5""#,
        )
        .send(get("/x")),
        Scenario::new(
            "foreign-declare-property",
            // DeclarePropertyArguments: name 1, readonly 2, type 3 (1: string), span 5.
            r#"configure: proxy_call_foreign_function declare_property "\x0a\x03own\x10\x01\x18\x01"; proxy_call_foreign_function declare_property "\x0a\x03own"; proxy_call_foreign_function declare_property "\xff"
               request_headers: proxy_set_property own "one"; proxy_get_property own; proxy_set_property own "two"; proxy_get_property own"#,
        )
        .send(get("/x")),
        Scenario::new(
            "foreign-filter-state",
            // SetEnvoyFilterStateArguments: path 1, value 2, span 3.
            r#"request_headers: proxy_call_foreign_function set_envoy_filter_state "\x0a\x0fenvoy.string.no\x12\x01x"; proxy_call_foreign_function set_envoy_filter_state "\xff"; proxy_call_foreign_function set_envoy_filter_state "\x0a\x17envoy.tcp_proxy.cluster\x12\x05other"; proxy_get_property "filter_state\0envoy.tcp_proxy.cluster""#,
        )
        .send(get("/x")),
        Scenario::new(
            "foreign-expressions",
            r#"request_headers: proxy_call_foreign_function expr_create "request.path == '/x' && request.method == 'GET'"; proxy_call_foreign_function expr_evaluate "\x01\0\0\0"; proxy_call_foreign_function expr_create "request.path"; proxy_call_foreign_function expr_evaluate "\x02\0\0\0"; proxy_call_foreign_function expr_create "syntax error ("; proxy_call_foreign_function expr_evaluate "\x09\0\0\0"; proxy_call_foreign_function expr_delete "\x01\0\0\0"; proxy_call_foreign_function expr_evaluate "\x01\0\0\0"; proxy_call_foreign_function expr_delete "\x01\0\0\0""#,
        )
        .send(get("/x")),
    ]
}
