//! Weir as the proxy of a neighbour check.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::hostile::{Hostile, Way, calm};
use crate::soak::neighbours::Addresses;
use crate::soak::process::Process;
use crate::soak::upstream::of_calls;

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Weir with a hostile guest on one listener.
#[derive(Debug)]
pub struct Weir {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addresses: Addresses,
    admin: SocketAddr,
    folder: TempDir,
}

impl Weir {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not serve; with its log.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn start(weir: &Path, guest: &Hostile, upstream: SocketAddr) -> Result<Self, String> {
        let folder = TempDir::new().expect("a temporary folder");
        let plugins = folder.path().join("plugins");
        std::fs::create_dir(&plugins).expect("a plugin directory");
        let serves = if guest.way == Way::Copies { calm() } else { guest.wasm() };
        std::fs::write(plugins.join("hostile.wasm"), serves).expect("it can be written");
        std::fs::write(plugins.join("calm.wasm"), calm()).expect("it can be written");
        let file = folder.path().join("weir.yaml");
        std::fs::write(&file, config(guest, upstream)).expect("it can be written");
        let mut command = Command::new(weir);
        command.args(["run", "--config"]).arg(&file).env("XDG_RUNTIME_DIR", folder.path());
        let process = Process::start(&mut command);
        let serves = process.wait_for("ready to serve", PATIENCE);
        serves.ok_or_else(|| process.log())?;
        let address = |text: &str| {
            let line = process.wait_for(text, PATIENCE)?;
            line.rsplit_once("address=")?.1.split(' ').next()?.trim().parse::<SocketAddr>().ok()
        };
        let listener = |name: &str| address(&format!("listening listener=\"{name}\" "));
        let found = || Some((listener("hostile")?, listener("clean")?, listener("shared")?));
        let (hostile, clean, shared) = found().ok_or_else(|| process.log())?;
        let admin = address("the admin API listens address=").ok_or_else(|| process.log())?;
        let shared = if guest.way == Way::Connections { shared } else { hostile };
        Ok(Self { addresses: Addresses { hostile, clean, shared }, admin, folder, process })
    }

    /// Where the hostile plugin lies.
    pub fn place(&self) -> PathBuf {
        self.folder.path().join("plugins/hostile.wasm")
    }

    /// The sum of a metric over all its series that hold some text; 0 when there is none, or when nobody answers.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        metric(self.admin, name, label)
    }
}

/// The sum of a metric over all its series that hold some text, by the admin API at an address; 0 when there is none, or
/// when nobody answers.
pub fn metric(admin: SocketAddr, name: &str, label: &str) -> f64 {
    let text = metrics(admin).unwrap_or_default();
    let own = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn config(guest: &Hostile, upstream: SocketAddr) -> String {
    let calls = of_calls();
    let scheduling = if guest.preemptible { ", scheduling: preemptible" } else { "" };
    // It may make calls: a storm of them that are refused would show nothing.
    let filter = format!("{{ plugin: hostile, grants: {{ clusters: [calls, grpc] }}{scheduling} }}");
    let hostile = if guest.way == Way::Connections {
        format!(
            "{{ name: hostile, address: \"127.0.0.1:0\", filters: [ {filter} ], tcp: {{ cluster: up }} }}"
        )
    } else {
        format!(
            "{{ name: hostile, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: calm }}, {filter} ], \
               routes: [ {{ match: {{ path: /clean }}, cluster: up, filters: {{ hostile: off }} }}, \
               {{ match: {{ path: /large }}, cluster: calls }}, {{ cluster: up }} ] }} }}"
        )
    };
    let calm = |name: &str| {
        format!(
            "{{ name: {name}, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: calm }} ], \
               routes: [ {{ cluster: up }} ] }} }}"
        )
    };
    format!(
        "runtime: {{ workers: 2 }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         plugins: {{ directory: plugins, cache: cache }}\n\
         listeners:\n  - {hostile}\n  - {}\n  - {}\n\
         clusters:\n  - {{ name: up, endpoints: [\"{upstream}\"] }}\n\
         \x20 - {{ name: calls, endpoints: [\"{calls}\"] }}\n\
         \x20 - {{ name: grpc, endpoints: [\"{calls}\"], protocol: http2 }}\n",
        calm("clean"),
        calm("shared")
    )
}
