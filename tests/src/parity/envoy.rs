//! A scenario in Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::envoy::{self, free_address};
use crate::gateway::Log;
use crate::guests;
use crate::parity::upstreams::Upstreams;
use crate::parity::{Filter, METADATA, NODE, Scenario, Transcript, client, tls};
use crate::wait::until;

/// An Envoy process.
pub(super) struct Envoy {
    child: Child,
    /// What it writes to its standard error.
    pub(super) log: Arc<Log>,
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

impl Envoy {
    /// Starts the one of this path. `folder` is there as long as it runs.
    pub(super) fn start(
        envoy: &Path,
        config: &Value,
        folder: TempDir,
        args: &[&str],
        variables: &[(&str, PathBuf)],
    ) -> Self {
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).expect("the folder can be written");
        let mut child = Command::new(envoy)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"])
            .args(args)
            .arg("-c")
            .arg(&file)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", envoy.display()));
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        Self { child, log, _folder: folder }
    }

    /// Waits until it listens at an address. False when it has ended before.
    pub(super) async fn listens(&mut self, address: SocketAddr) -> bool {
        let listening = async || match self.child.try_wait() {
            Ok(None) => (self.log.lines().iter().any(|line| line.contains("starting workers"))
                && listens(address))
            .then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        };
        until("Envoy to listen", listening).await
    }
}

/// What a line of Envoy's says of a guest's log: the level, the filter's name, and what was logged.
pub(super) fn logged(line: &str) -> Option<(&str, &str, &str)> {
    let (before, said) = line.split_once("] wasm log ")?;
    let (labels, message) = said.split_once(": ")?;
    // `[time][thread][level][logger]`
    let level = before.split(']').nth(2)?.trim_start_matches('[');
    Some((level, labels.split(' ').next()?, message))
}

/// Runs a scenario in the Envoy of this path.
///
/// # Panics
/// When it does not come to its end.
pub async fn run(scenario: &Scenario, envoy: &Path) -> Transcript {
    let upstreams = Upstreams::start(scenario).await;
    let address = free_address();
    let mut envoy = start(scenario, &upstreams, envoy, address);
    assert!(envoy.listens(address).await, "Envoy has ended:\n{}", envoy.log.lines().join("\n"));
    let client = client::run(scenario, address).await;
    until("the end of every stream", async || scenario.is_over(&log(&envoy)).then_some(())).await;
    Transcript::new(client, upstreams.seen().await, log(&envoy))
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
    let lines = envoy.log.lines();
    let told = lines.iter().filter_map(|line| logged(line));
    told.map(|(_, filter, message)| format!("{filter}: {message}")).collect()
}

fn start(scenario: &Scenario, upstreams: &Upstreams, envoy: &Path, address: SocketAddr) -> Envoy {
    let folder = TempDir::new().expect("a folder");
    let filters: Vec<Value> =
        scenario.filters.iter().map(|filter| wasm(scenario.tcp, filter, folder.path())).collect();
    let chain = if scenario.tcp { network(filters) } else { vec![http(filters)] };
    let mut up = cluster("up", upstreams.up.address, false);
    let mut listener = envoy::listener("web", address, scenario.buffer, &chain);
    listener["metadata"] = json!({ "filter_metadata": METADATA.clone() });
    if scenario.tls {
        let put =
            |(name, text)| std::fs::write(folder.path().join(name), text).expect("the folder can be written");
        tls::files().into_iter().for_each(put);
        listener["listener_filters"] = json!([tls::inspector()]);
        (listener["filter_chains"][0]["transport_socket"], up["transport_socket"]) =
            tls::in_envoy(folder.path());
    }
    let config = json!({
        "node": NODE.clone(),
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                up,
                cluster("other", upstreams.other.address, scenario.other.grpc_echo || scenario.other.silent),
                cluster("nowhere", upstreams.nowhere, scenario.other.grpc_echo || scenario.other.silent),
            ],
        },
    });
    Envoy::start(envoy, &config, folder, &[], &[])
}

fn network(mut filters: Vec<Value>) -> Vec<Value> {
    filters.push(envoy::tcp_proxy("up"));
    filters
}

fn http(filters: Vec<Value>) -> Value {
    let routes = [
        json!({ "name": "rerouted", "match": { "prefix": "/rerouted" }, "route": { "cluster": "other" } }),
        json!({
            "name": "main",
            "match": { "prefix": "/" },
            "route": { "cluster": "up" },
            "metadata": { "filter_metadata": METADATA.clone() },
        }),
    ];
    envoy::http(filters, &routes)
}

pub(super) fn wasm(tcp: bool, filter: &Filter, folder: &Path) -> Value {
    let file = folder.join(format!("{}.wasm", filter.guest));
    std::fs::write(&file, guests::wasm(filter.guest)).expect("the folder can be written");
    let text =
        |text: &str| json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": text });
    let variables: Map<String, Value> =
        filter.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let vm_config = json!({
        "vm_id": if filter.vm_id.is_empty() { filter.name } else { filter.vm_id },
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": file } },
        "configuration": text(&filter.vm_script),
        "environment_variables": { "key_values": variables },
    });
    let mut config = Map::from_iter([
        ("name".to_owned(), filter.name.into()),
        ("root_id".to_owned(), filter.name.into()),
        ("configuration".to_owned(), text(&filter.script)),
        ("failure_policy".to_owned(), if filter.fail_open { "FAIL_OPEN" } else { "FAIL_CLOSED" }.into()),
        ("vm_config".to_owned(), vm_config),
    ]);
    if filter.headers_stop_iteration {
        config.insert("allow_on_headers_stop_iteration".to_owned(), true.into());
    }
    let kind = if tcp { "network" } else { "http" };
    envoy::wasm(&format!("envoy.filters.{kind}.wasm"), kind, config)
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let mut cluster = envoy::cluster_of(name, address, http2);
    cluster["metadata"] = json!({ "filter_metadata": METADATA.clone() });
    cluster
}
