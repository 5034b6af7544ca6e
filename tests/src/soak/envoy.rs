//! Envoy as the proxy of a neighbour check: the same listeners, routes and guests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hostile::{Hostile, Way, calm};
use crate::soak::neighbours::Addresses;
use crate::soak::process::Process;

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(15);

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// An Envoy with a hostile guest on one listener.
#[derive(Debug)]
pub struct Envoy {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addresses: Addresses,
    _folder: TempDir,
}

impl Envoy {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not serve; with its log.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn start(envoy: &Path, guest: &Hostile, upstream: SocketAddr) -> Result<Self, String> {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, bytes) in [("hostile", guest.wasm()), ("calm", calm())] {
            std::fs::write(folder.path().join(format!("{name}.wasm")), bytes).expect("it can be written");
        }
        let [hostile, clean, shared] = free_addresses();
        let config = config(guest.way, folder.path(), [hostile, clean, shared], upstream);
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).expect("it can be written");
        let arguments = ["--concurrency", "2", "--disable-hot-restart", "-l", "info", "-c"];
        let process = Process::start(Command::new(envoy).args(arguments).arg(&file));
        process.wait_for("starting workers", PATIENCE).ok_or_else(|| process.log())?;
        let shared = if guest.way == Way::Connections { shared } else { hostile };
        Ok(Self { process, addresses: Addresses { hostile, clean, shared }, _folder: folder })
    }
}

/// Addresses that were free a moment ago.
fn free_addresses() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

fn config(way: Way, folder: &Path, addresses: [SocketAddr; 3], upstream: SocketAddr) -> Value {
    let [hostile, clean, shared] = addresses;
    let network = way == Way::Connections;
    let filter = |name: &str, kind: &str| wasm(name, kind, &folder.join(format!("{name}.wasm")));
    let chain = if network {
        vec![
            filter("hostile", "network"),
            json!({
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": format!("{TYPES}.network.tcp_proxy.v3.TcpProxy"),
                    "stat_prefix": "tcp",
                    "cluster": "up",
                },
            }),
        ]
    } else {
        vec![http(vec![filter("calm", "http"), filter("hostile", "http")])]
    };
    let calm = || vec![http(vec![filter("calm", "http")])];
    json!({
        "static_resources": {
            "listeners": [
                listener("hostile", hostile, &chain),
                listener("clean", clean, &calm()),
                listener("shared", shared, &calm()),
            ],
            "clusters": [{
                "name": "up",
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": {
                    "cluster_name": "up",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(upstream) } }] }],
                },
            }],
        },
    })
}

fn listener(name: &str, address: SocketAddr, filters: &[Value]) -> Value {
    json!({
        "name": name,
        "address": socket_address(address),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [{ "filters": filters }],
    })
}

fn http(mut filters: Vec<Value>) -> Value {
    let hostile = filters.iter().any(|filter| filter["name"] == "hostile");
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.http.router.v3.Router") },
    }));
    let mut clean = json!({ "match": { "path": "/clean" }, "route": { "cluster": "up" } });
    if hostile {
        clean["typed_per_filter_config"] = json!({
            "hostile": { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true },
        });
    }
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
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [clean, { "match": { "prefix": "/" }, "route": { "cluster": "up" } }],
                }],
            },
        },
    })
}

fn wasm(name: &str, kind: &str, file: &Path) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": format!("{TYPES}.{kind}.wasm.v3.Wasm"),
            "config": {
                "name": name,
                "root_id": name,
                "vm_config": {
                    "vm_id": name,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": file } },
                },
            },
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
