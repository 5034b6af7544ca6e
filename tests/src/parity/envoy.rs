//! A scenario in Envoy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gateway::Log;
use crate::guests;
use crate::parity::upstreams::Upstreams;
use crate::parity::{Filter, METADATA, NODE, Scenario, Transcript, client};
use crate::wait::until;

/// An Envoy process.
struct Envoy {
    child: Child,
    log: Arc<Log>,
    _folder: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // One that is gone needs no signal.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs a scenario in the Envoy of this path.
///
/// # Panics
/// When it does not come to its end.
pub async fn run(scenario: &Scenario, envoy: &Path) -> Transcript {
    let upstreams = Upstreams::start(scenario).await;
    let address = free_address();
    let envoy = start(scenario, &upstreams, envoy, address);
    envoy.log.wait_for("starting workers", 1);
    until("Envoy to listen", async || listens(address).then_some(())).await;
    let client = client::run(scenario, address).await;
    until("the end of every stream", async || scenario.is_over(&log(&envoy)).then_some(())).await;
    Transcript::new(client, upstreams.seen(), log(&envoy))
}

/// Whether somebody listens at an address, as the kernel tells it: a connection, to see, would be a stream of its own
/// for network filters.
fn listens(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells of its sockets");
    let listening = format!(":{:04X} 00000000:0000 0A", address.port());
    table.lines().any(|line| line.contains(&listening))
}

/// What guests logged: `filter: line`.
fn log(envoy: &Envoy) -> Vec<String> {
    let line = |line: &str| {
        let (_, said) = line.split_once("] wasm log ")?;
        let (labels, message) = said.split_once(": ")?;
        Some(format!("{}: {message}", labels.split(' ').next()?))
    };
    envoy.log.lines().iter().filter_map(|text| line(text)).collect()
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

fn start(scenario: &Scenario, upstreams: &Upstreams, envoy: &Path, address: SocketAddr) -> Envoy {
    let folder = TempDir::new().expect("a folder");
    let filters: Vec<Value> =
        scenario.filters.iter().map(|filter| wasm(scenario, filter, folder.path())).collect();
    let config = json!({
        "node": NODE.clone(),
        "static_resources": {
            "listeners": [{
                "name": "web",
                "metadata": { "filter_metadata": METADATA.clone() },
                "address": socket_address(address),
                "per_connection_buffer_limit_bytes": scenario.buffer,
                "filter_chains": [{ "filters": if scenario.tcp { network(filters) } else { http(filters) } }],
            }],
            "clusters": [
                cluster("up", upstreams.up.address, false),
                cluster("other", upstreams.other.address, scenario.other.grpc_echo || scenario.other.silent),
                cluster("nowhere", upstreams.nowhere, scenario.other.grpc_echo || scenario.other.silent),
            ],
        },
    });
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    let mut child = Command::new(envoy)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", envoy.display()));
    let log = Log::follow(child.stderr.take().expect("stderr is piped"));
    Envoy { child, log, _folder: folder }
}

fn network(mut filters: Vec<Value>) -> Vec<Value> {
    filters.push(json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "up",
        },
    }));
    filters
}

fn http(mut filters: Vec<Value>) -> Vec<Value> {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    vec![json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "codec_type": "AUTO",
            "http_protocol_options": { "enable_trailers": true },
            "http_filters": filters,
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        { "name": "rerouted", "match": { "prefix": "/rerouted" }, "route": { "cluster": "other" } },
                        {
                            "name": "main",
                            "match": { "prefix": "/" },
                            "route": { "cluster": "up" },
                            "metadata": { "filter_metadata": METADATA.clone() },
                        },
                    ],
                }],
            },
        },
    })]
}

fn wasm(scenario: &Scenario, filter: &Filter, folder: &Path) -> Value {
    let file = folder.join(format!("{}.wasm", filter.guest));
    std::fs::write(&file, guests::wasm(filter.guest)).expect("the folder can be written");
    let text =
        |text: &str| json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": text });
    let variables: serde_json::Map<String, Value> =
        filter.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let mut config = json!({
        "name": filter.name,
        "root_id": filter.name,
        "configuration": text(&filter.script),
        "failure_policy": if filter.fail_open { "FAIL_OPEN" } else { "FAIL_CLOSED" },
        "vm_config": {
            "vm_id": if filter.vm_id.is_empty() { filter.name } else { filter.vm_id },
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": file } },
            "configuration": text(&filter.vm_script),
            "environment_variables": { "key_values": variables },
        },
    });
    if filter.headers_stop_iteration {
        config["allow_on_headers_stop_iteration"] = true.into();
    }
    let kind = if scenario.tcp { "network" } else { "http" };
    json!({
        "name": format!("envoy.filters.{kind}.wasm"),
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.{kind}.wasm.v3.Wasm"),
            "config": config,
        },
    })
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "metadata": { "filter_metadata": METADATA.clone() },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(address) } }] }],
        },
    });
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

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
