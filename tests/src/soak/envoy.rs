//! Envoy as the proxy of a neighbour check: the same listeners, routes and guests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::envoy::{self, free_address};
use crate::hostile::{Hostile, Way, calm};
use crate::soak::neighbours::Addresses;
use crate::soak::process::Process;
use crate::soak::upstream::of_calls;

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(15);

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
        let [hostile, clean, shared] = [(); 3].map(|()| free_address());
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

fn config(way: Way, folder: &Path, addresses: [SocketAddr; 3], upstream: SocketAddr) -> Value {
    let [hostile, clean, shared] = addresses;
    let network = way == Way::Connections;
    let filter = |name: &str, kind: &str| wasm(name, kind, &folder.join(format!("{name}.wasm")));
    let chain = if network {
        vec![filter("hostile", "network"), envoy::tcp_proxy("up")]
    } else {
        vec![http(vec![filter("calm", "http"), filter("hostile", "http")])]
    };
    let calm = || vec![http(vec![filter("calm", "http")])];
    json!({
        "static_resources": {
            "listeners": [
                envoy::listener("hostile", hostile, BUFFER, &chain),
                envoy::listener("clean", clean, BUFFER, &calm()),
                envoy::listener("shared", shared, BUFFER, &calm()),
            ],
            "clusters": [
                envoy::cluster("up", upstream),
                envoy::cluster("calls", of_calls()),
                envoy::cluster_of("grpc", of_calls(), true),
            ],
        },
    })
}

/// What a connection may buffer, in bytes: as much as with Weir.
const BUFFER: usize = 1 << 20;

fn http(filters: Vec<Value>) -> Value {
    let hostile = filters.iter().any(|filter| filter["name"] == "hostile");
    let mut clean = json!({ "match": { "path": "/clean" }, "route": { "cluster": "up" } });
    if hostile {
        clean["typed_per_filter_config"] = json!({
            "hostile": { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true },
        });
    }
    envoy::http(filters, &[clean, json!({ "match": { "prefix": "/" }, "route": { "cluster": "up" } })])
}

fn wasm(name: &str, kind: &str, file: &Path) -> Value {
    let vm_config = json!({
        "vm_id": name,
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": file } },
    });
    let config = [("name", name.into()), ("root_id", name.into()), ("vm_config", vm_config)];
    envoy::wasm(name, kind, config.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
}
