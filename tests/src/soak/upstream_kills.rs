//! Upstreams that are killed: three processes behind one cluster, one after the other killed by SIGKILL and started again
//! where it was, while a client goes on with requests that may be repeated.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::soak::load::{Load, Measured};
use crate::soak::process::Process;
use crate::soak::upstream::Apart;
use crate::soak::weir::metric;

/// How long a process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any run: the load is stopped.
const ENDLESS: Duration = Duration::from_secs(24 * 3600);

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Kills.
    pub kills: usize,
    /// For how long an upstream is gone, and then all are there.
    pub rhythm: Duration,
    /// Requests in a second.
    pub rate: u32,
    /// Connections of the client.
    pub connections: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Survived {
    /// The client's requests.
    pub requests: Measured,
    /// Requests that were sent to another endpoint as well.
    pub retries: f64,
    /// What Weir says of it, when requests failed.
    pub log: String,
}

/// Runs it. `program` is the runner of soaks, which can be an upstream, too.
///
/// # Panics
/// When something does not start.
pub fn run(weir: &Path, program: &Path, plan: Plan) -> Survived {
    // Each on an address of its own, where nobody else is given its port while it is gone.
    let start = |number: u8| Apart::start(program, "upstream", (Ipv4Addr::new(127, 83, 7, number), 0).into());
    let (mut upstreams, addresses): (Vec<_>, Vec<_>) = (1..=3).map(start).unzip();
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("weir.yaml");
    let endpoints: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let config = format!(
        "runtime: {{ workers: 2 }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [ {} ] }} ]\n",
        endpoints.join(", ")
    );
    std::fs::write(&file, config).expect("it can be written");
    let mut command = Command::new(weir);
    command.args(["run", "--config"]).arg(&file).env("XDG_RUNTIME_DIR", folder.path());
    let process = Process::start(&mut command);
    process.wait_for("ready to serve", PATIENCE).unwrap_or_else(|| panic!("{}", process.log()));
    let address_of = |text: &str| -> SocketAddr {
        let line = process.wait_for(text, PATIENCE).unwrap_or_else(|| panic!("{}", process.log()));
        let address = line.rsplit_once("address=").and_then(|(_, address)| address.trim().parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line}"))
    };
    let (address, admin) = (address_of("listening listener="), address_of("the admin API listens"));
    let Plan { rate, connections, .. } = plan;
    let load = Load { address, path: "/", header: None, rate, connections, per_connection: 100 };
    let running = load.start(ENDLESS);
    for kill in 0..plan.kills {
        // The rhythm of the kills, and no wait for anything.
        std::thread::sleep(plan.rhythm);
        let own = kill % upstreams.len();
        drop(upstreams.remove(own));
        std::thread::sleep(plan.rhythm);
        upstreams.insert(own, Apart::start(program, "upstream", addresses[own]).0);
    }
    std::thread::sleep(plan.rhythm);
    let requests = running.stop();
    let retries = metric(admin, "weir_upstream_retries_total", "cluster=\"up\"");
    Survived { requests, retries, log: process.log() }
}
