//! A thousand server names, fifty endpoints, as each proxy's configuration has them.
//!
//! With a single endpoint a flood of connections would run out of ports: fifty addresses of loopback stand for fifty.

use std::fmt::Write;

use crate::template::Values;

/// The names.
pub const NAMES: usize = 1000;
const ENDPOINTS: usize = 50;

/// The name of the connections that carry much.
pub const BULK: &str = "bulk.bench.internal";

/// A name, by number.
pub fn name(number: usize) -> String {
    format!("service-{number}.bench.internal")
}

fn cluster(number: usize) -> String {
    format!("up-{}", number % ENDPOINTS)
}

fn address(number: usize) -> String {
    format!("127.0.0.{}", 2 + number % ENDPOINTS)
}

/// What stands for them in the configurations.
pub fn values(port: u16) -> Values {
    let text = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).fold(String::new(), |mut text, number| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{}", line(number));
            text
        })
    };
    let endpoint = |number: usize| format!("{}:{port}", address(number));
    let socket = |number: usize| format!("{{ address: {}, port_value: {port} }}", address(number));
    [
        ("map", text(NAMES, &|n| format!("        {} {};", name(n), endpoint(n)))),
        ("backends", text(ENDPOINTS, &|n| format!("backend {}\n    server up {}", cluster(n), endpoint(n)))),
        ("names", text(NAMES, &|n| format!("            {}: {}", name(n), cluster(n)))),
        (
            "clusters",
            text(ENDPOINTS, &|n| format!("  - {{ name: {}, endpoints: [\"{}\"] }}", cluster(n), endpoint(n))),
        ),
        ("chains", text(ENDPOINTS, &chain)),
        ("envoy_clusters", text(ENDPOINTS, &|n| envoy_cluster(&cluster(n), &socket(n)))),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

/// HAProxy reads names from a file.
pub fn haproxy_map() -> String {
    (0..NAMES).fold(String::new(), |text, number| text + &format!("{} {}\n", name(number), cluster(number)))
}

/// Envoy has a chain for each endpoint, and finds it by any of its names.
fn chain(endpoint: usize) -> String {
    let names: Vec<String> = (0..NAMES).filter(|number| number % ENDPOINTS == endpoint).map(name).collect();
    format!(
        "        - filter_chain_match: {{ server_names: [{}] }}\n          filters: [ {{ name: \
         envoy.filters.network.tcp_proxy, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: {} }} }} ]",
        names.join(", "),
        cluster(endpoint)
    )
}

fn envoy_cluster(name: &str, socket: &str) -> String {
    format!(
        "    - name: {name}\n      type: STATIC\n      connect_timeout: 5s\n      circuit_breakers: {{ thresholds: [ {{ \
         max_connections: 1000000 }} ] }}\n      load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ \
         {{ endpoint: {{ address: {{ socket_address: {socket} }} }} }} ] }} ] }}"
    )
}
