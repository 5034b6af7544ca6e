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

const AROUND: [&str; 32] = [
    "node.id",
    "node.cluster",
    "node.metadata",
    "node.metadata.ENV",
    "node.metadata.ports",
    "node.metadata.ports.1",
    "node.metadata.ports.2",
    "node.locality.zone",
    "node.no_such",
    "listener_metadata",
    "listener_metadata.filter_metadata.ns.text",
    "route_metadata",
    "cluster_metadata",
    "upstream_host_metadata",
    "xds.listener_direction",
    "xds.node.id",
    "xds.node.metadata.ports.1",
    "xds.node.locality.zone",
    "xds.listener_metadata.filter_metadata.ns.yes",
    "xds.cluster_name",
    "xds.route_metadata.filter_metadata.ns.number",
    "xds.route_metadata.filter_metadata.ns.list.0",
    "xds.route_metadata.filter_metadata.ns.inner",
    "xds.route_metadata.filter_metadata.ns.null",
    "xds.route_metadata.filter_metadata.none",
    "xds.route_metadata.no_such",
    "xds.cluster_metadata.filter_metadata.ns.text",
    "xds.upstream_host_metadata",
    "xds.filter_chain_name",
    "metadata",
    "metadata.filter_metadata",
    "metadata.filter_metadata.ns",
];

/// Groups, and what is there in some phases only.
const GROUPS: [&str; 20] = [
    "request",
    "response",
    "connection",
    "source",
    "destination",
    "upstream",
    "filter_state",
    "xds",
    "request.headers.X-Many",
    "request.headers.:path",
    "request.headers.:PATH",
    "request.path.more",
    "response.trailers",
    "response.backend_latency.more",
    "upstream.request_attempt_count",
    "upstream.tls_version",
    "upstream.no_such",
    "connection.termination_details",
    "connection.no_such",
    "connection.transport_failure_reason",
];

/// What TLS tells of either end, and what there is of the upstream besides.
const ENDS: [&str; 33] = [
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.subject_local_certificate",
    "connection.subject_peer_certificate",
    "connection.dns_san_local_certificate",
    "connection.dns_san_peer_certificate",
    "connection.uri_san_local_certificate",
    "connection.uri_san_peer_certificate",
    "connection.sha256_peer_certificate_digest",
    "connection.peer_certificate",
    "upstream.tls_version",
    "upstream.subject_local_certificate",
    "upstream.subject_peer_certificate",
    "upstream.dns_san_local_certificate",
    "upstream.dns_san_peer_certificate",
    "upstream.uri_san_local_certificate",
    "upstream.uri_san_peer_certificate",
    "upstream.sha256_peer_certificate_digest",
    "upstream.peer_certificate",
    "upstream.num_endpoints",
    "upstream.locality",
    "upstream.locality.region",
    "upstream.locality.zone",
    "upstream.locality.no_such",
    "xds.upstream_host_locality_metadata",
    "xds.upstream_host_locality_metadata.filter_metadata",
    "upstream_host_locality_metadata",
    "upstream_filter_state",
    "upstream_filter_state.no_such",
    "filter_state.no_such",
    "upstream.transport_failure_reason",
    "upstream.request_attempt_count",
];

/// Keys of filter state that some part of Envoy knows, with a value of each form.
const KEYS: [&str; 24] = [
    "envoy.tcp_proxy.cluster",
    "envoy.tcp_proxy.disable_tunneling",
    "envoy.tcp_proxy.per_connection_idle_timeout_ms",
    "envoy.tcp_proxy.receive_before_connect",
    "envoy.tcp_proxy.propagate_response_headers",
    "envoy.network.upstream_server_name",
    "envoy.network.application_protocols",
    "envoy.network.upstream_subject_alt_names",
    "envoy.network.transport_socket.original_dst_address",
    "envoy.network.upstream_bind_override.network_namespace",
    "envoy.network.network_namespace",
    "envoy.network.ip",
    "envoy.network.proxy_protocol_options",
    "envoy.network.proxy_protocol.tlv",
    "envoy.filters.listener.original_dst.local_ip",
    "envoy.filters.listener.original_dst.remote_ip",
    "envoy.upstream.dynamic_host",
    "envoy.upstream.dynamic_port",
    "envoy.udp_proxy.cluster",
    "envoy.ratelimit.hits_addend",
    "envoy.string",
    "envoy.hashable_string",
    "envoy.tls.certificate_mappers.on_demand_secret",
    "no.such.key",
];

/// Sets each of them to each of some values.
fn set_keys() -> String {
    let values = ["text", "80", "1.2.3.4", "1.2.3.4:80", ""];
    let message =
        |key: &str, value: &str| format!("\\x0a\\x{:02x}{key}\\x12\\x{:02x}{value}", key.len(), value.len());
    let each = |key: &&str| {
        values.map(|value| {
            format!("proxy_call_foreign_function set_envoy_filter_state \"{}\"", message(key, value))
        })
    };
    KEYS.iter().flat_map(each).collect::<Vec<_>>().join("; ")
}

/// Creates expressions while the plugin starts, which have the ids from 0 on, and evaluates them in a stream.
fn evaluate(expressions: &[&str]) -> String {
    let create = expressions.iter().map(|text| format!("proxy_call_foreign_function expr_create \"{text}\""));
    let evaluate = (0..expressions.len())
        .map(|id| format!("proxy_call_foreign_function expr_evaluate \"\\x{id:02x}\\0\\0\\0\""));
    let joined = |calls: Vec<String>| calls.join("; ");
    format!("configure: {}\nrequest_headers: {}", joined(create.collect()), joined(evaluate.collect()))
}

const EXPRESSIONS: [&str; 27] = [
    "request.path == '/x' && request.method == 'GET'",
    "request.path",
    "request.headers['x-a']",
    "request.headers['x-none']",
    "'x-none' in request.headers",
    "has(request.path)",
    "has(request.no_such)",
    "request.no_such",
    "no_such",
    "1 + 2",
    "2u",
    "1.5",
    "b'ab'",
    "null",
    "['a', 'b']",
    "{'k': 'v'}",
    "1 / 0",
    "'a' + 'b'",
    "request.path.startsWith('/')",
    "request.path.matches('^/[a-z]$')",
    "size(request.path)",
    "string(1)",
    "xds.route_name",
    "plugin_name",
    "xds.listener_metadata.filter_metadata['ns']['text']",
    "xds.node.id",
    "request.size == 0",
];

pub fn scenarios() -> Vec<Scenario> {
    let request = read(&REQUEST);
    let response = read(&RESPONSE);
    let place = read(&PLACE);
    let (around, groups, ends) = (read(&AROUND), read(&GROUPS), read(&ENDS));
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
            "properties-of-node-and-metadata",
            &format!("configure: {around}\nrequest_headers: {around}\nresponse_headers: {around}"),
        )
        .send(get("/")),
        Scenario::new(
            "properties-of-groups",
            &format!("request_headers: {groups}\nresponse_headers: {groups}\nlog: {groups}"),
        )
        .send(get("/").header("x-many", "1").header("x-many", "2")),
        Scenario::new("properties-of-both-ends", &format!("request_headers: {ends}\nresponse_headers: {ends}\nlog: {ends}"))
            .send(get("/")),
        Scenario::new("properties-of-both-ends-with-tls", &format!("request_headers: {ends}\nresponse_headers: {ends}\nlog: {ends}"))
            .send(get("/"))
            .tls(),
        Scenario::new("foreign-filter-state-keys", &format!("request_headers: {}", set_keys())).send(get("/")),
        Scenario::new("foreign-expressions-values", &evaluate(&EXPRESSIONS))
            .send(get("/x").header("x-a", "1")),
        Scenario::new(
            "foreign-expressions-of-own-properties",
            r#"configure: proxy_call_foreign_function declare_property "\x0a\x01t\x18\x01"; proxy_call_foreign_function expr_create "t == 'one'"; proxy_call_foreign_function expr_create "b == b'one'"; proxy_call_foreign_function expr_create "filter_state['wasm.t'] == 'one'"
               request_headers: proxy_call_foreign_function expr_evaluate "\0\0\0\0"; proxy_set_property t one; proxy_set_property b one; proxy_call_foreign_function expr_evaluate "\0\0\0\0"; proxy_call_foreign_function expr_evaluate "\x01\0\0\0"; proxy_call_foreign_function expr_evaluate "\x02\0\0\0"; proxy_call_foreign_function expr_evaluate "\x02\0\0"; proxy_call_foreign_function expr_delete "\x02"; proxy_call_foreign_function expr_delete "\x09\0\0\0"; proxy_call_foreign_function declare_property "\x0a\x01t"; proxy_call_foreign_function declare_property "\x0a\x01u"; proxy_call_foreign_function declare_property "\x0a\x01u""#,
        )
        .send(get("/x")),
        Scenario::new(
            "foreign-functions",
            r#"request_headers: proxy_call_foreign_function no_such "x"; proxy_call_foreign_function clear_route_cache ""; proxy_call_foreign_function uncompress "no zlib"; proxy_call_foreign_function @0x7fff0000:9 "x"; proxy_call_foreign_function compress @0x7fff0000:9; proxy_call_foreign_function compress "hello hello hello hello"; proxy_call_foreign_function uncompress "x\x9c\xcbH\xcd\xc9\xc9W\xc8@'\x01h\x03\x08\xb1"; proxy_call_foreign_function uncompress "x\x9c\xcbH\xcd\xc9\xc9W\xc8@'\x01h\x03\x08\xb1 and more"; proxy_call_foreign_function uncompress "x\x9c\xcbH\xcd"; proxy_call_foreign_function uncompress ""; proxy_call_foreign_function compress ""; proxy_call_foreign_function compress "x" @0:0; proxy_call_foreign_function compress "x" @0x7fff0000:0x7fff0000"#,
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
