//! Takeovers under load: one process after the other takes the sockets over, each with another number of workers, while
//! clients go on, some on connections that they keep, some on a new one for each request.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::soak::load::{Load, Measured, Running};
use crate::soak::process::Process;

/// How long a process may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any run: loads are stopped.
const ENDLESS: Duration = Duration::from_secs(24 * 3600);

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Takeovers.
    pub takeovers: usize,
    /// Requests in a second of each of the two loads.
    pub rate: u32,
    /// Connections of each.
    pub connections: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Survived {
    /// The requests on connections that were kept.
    pub kept: Measured,
    /// The requests with a connection each.
    pub fresh: Measured,
    /// From the start of a process until it serves alone, the longest and all together.
    pub took: [Duration; 2],
    /// What must not have been.
    pub breaches: Vec<String>,
}

/// Runs them.
///
/// # Panics
/// When files cannot be written, or no process serves.
pub fn run(weir: &Path, plan: Plan, upstream: SocketAddr) -> Survived {
    let folder = TempDir::new().expect("a temporary folder");
    let mut running = serve(weir, &folder, 0, upstream, false).unwrap_or_else(|log| panic!("{log}"));
    let address =
        address_of(&running).unwrap_or_else(|| panic!("it does not say where it listens: {}", running.log()));
    let load = |per_connection: usize| -> Running {
        let Plan { rate, connections, .. } = plan;
        Load { address, path: "/", header: None, rate, connections, per_connection }.start(ENDLESS)
    };
    let (kept, fresh) = (load(1_000_000), load(1));
    let mut breaches = Vec::new();
    let mut took = [Duration::ZERO; 2];
    for number in 1..=plan.takeovers {
        let began = Instant::now();
        let next = match serve(weir, &folder, number, upstream, true) {
            Ok(next) => next,
            Err(log) => {
                breaches.push(format!("process {number} does not serve: {log}"));
                break;
            }
        };
        took = [took[0].max(began.elapsed()), took[1] + began.elapsed()];
        let old = std::mem::replace(&mut running, next);
        match old.wait_for_end(PATIENCE) {
            Some(true) => {}
            other => breaches.push(format!("process {} did not end in order: {other:?}", number - 1)),
        }
    }
    let (kept, fresh) = (kept.stop(), fresh.stop());
    for (what, measured) in [("kept", &kept), ("fresh", &fresh)] {
        if measured.failed() > 0 {
            breaches.push(format!(
                "on {what} connections {} requests failed: {:?}",
                measured.failed(),
                measured.failures
            ));
        }
    }
    Survived { kept, fresh, took, breaches }
}

/// Starts a process; the number of its workers goes by its own number.
fn serve(
    weir: &Path,
    folder: &TempDir,
    number: usize,
    upstream: SocketAddr,
    takeover: bool,
) -> Result<Process, String> {
    let file = folder.path().join("weir.yaml");
    let workers = [2, 1, 3][number % 3];
    let config = format!(
        "runtime: {{ workers: {workers} }}\ndrain_timeout: 20s\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]\n"
    );
    std::fs::write(&file, config).expect("it can be written");
    let mut command = Command::new(weir);
    command.arg("run").args(takeover.then_some("--takeover")).arg("--config").arg(&file);
    command.env("XDG_RUNTIME_DIR", folder.path());
    let process = Process::start(&mut command);
    match process.wait_for("ready to serve", PATIENCE) {
        Some(_) => Ok(process),
        None => Err(process.log()),
    }
}

fn address_of(process: &Process) -> Option<SocketAddr> {
    let line = process.wait_for("listening listener=", PATIENCE)?;
    line.rsplit_once("address=")?.1.trim().parse().ok()
}
