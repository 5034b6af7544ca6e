//! What configurations of Envoy are made of, wherever Weir is compared with it.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Map, Value, json};

/// Where the types of Envoy's filters begin.
const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// An address that was free a moment ago.
///
/// # Panics
/// When there is none.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// An address as Envoy writes it.
pub fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A listener with one chain of network filters, and a limit to what it buffers, in bytes.
pub fn listener(name: &str, address: SocketAddr, buffer: usize, filters: &[Value]) -> Value {
    json!({
        "name": name,
        "address": socket_address(address),
        "per_connection_buffer_limit_bytes": buffer,
        "filter_chains": [{ "filters": filters }],
    })
}

/// The network filter that relays to a cluster.
pub fn tcp_proxy(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{TYPES}.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "tcp",
            "cluster": cluster,
        },
    })
}

/// The network filter that speaks HTTP, with these filters before the router.
pub fn http(mut filters: Vec<Value>, routes: &[Value]) -> Value {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.http.router.v3.Router") },
    }));
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http",
            "codec_type": "AUTO",
            "http_protocol_options": { "enable_trailers": true },
            "http_filters": filters,
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }],
            },
        },
    })
}

/// A filter in Wasm. `kind` is `http` or `network`; what of the plugin is its own is in `config`, beside its `vm_config`.
pub fn wasm(name: &str, kind: &str, config: Map<String, Value>) -> Value {
    json!({
        "name": name,
        "typed_config": { "@type": format!("{TYPES}.{kind}.wasm.v3.Wasm"), "config": config },
    })
}

/// A cluster of one endpoint.
pub fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(address) } }] }],
        },
    })
}

/// A cluster that is spoken to in HTTP/2, or in HTTP/1 with trailers.
pub fn cluster_of(name: &str, address: SocketAddr, http2: bool) -> Value {
    let mut cluster = cluster(name, address);
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let options = if http2 { json!({}) } else { json!({ "enable_trailers": true }) };
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { protocol: options },
        },
    });
    cluster
}
