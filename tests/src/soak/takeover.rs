//! Takeovers under load: one process after the other takes the sockets over, each with another number of workers, while
//! clients go on, some on connections that they keep, some on a new one for each request, some over HTTP/2.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::http::{Client, empty};
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
    /// Requests in a second of each of the three loads.
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
    /// The requests over HTTP/2.
    pub streams: Measured,
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
    let streams = Streams::start(address, plan);
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
    let (kept, fresh, streams) = (kept.stop(), fresh.stop(), streams.stop());
    for (what, measured) in [("kept", &kept), ("fresh", &fresh), ("HTTP/2", &streams)] {
        if measured.failed() > 0 {
            breaches.push(format!(
                "on {what} connections {} requests failed: {:?}",
                measured.failed(),
                measured.failures
            ));
        }
    }
    Survived { kept, fresh, streams, took, breaches }
}

/// Clients of HTTP/2, each with a connection that it keeps until it is told to go away.
struct Streams {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Measured>,
}

impl Streams {
    fn start(address: SocketAddr, plan: Plan) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                let between = Duration::from_secs(1) * plan.connections / plan.rate;
                for _ in 0..plan.connections {
                    clients.spawn(client(address, between, Arc::clone(&told)));
                }
                let mut all = Measured::default();
                while let Some(own) = clients.join_next().await {
                    let own = own.expect("a client");
                    all.latencies.extend(own.latencies);
                    for (reason, count) in own.failures {
                        *all.failures.entry(reason).or_default() += count;
                    }
                }
                all.latencies.sort();
                all
            })
        });
        Self { over, thread }
    }

    fn stop(self) -> Measured {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients")
    }
}

async fn client(address: SocketAddr, between: Duration, over: Arc<AtomicBool>) -> Measured {
    let mut measured = Measured::default();
    // The rhythm of the load.
    let mut rhythm = tokio::time::interval(between);
    let mut client = Client::h2(address).await;
    while !over.load(Ordering::Relaxed) {
        rhythm.tick().await;
        let began = Instant::now();
        let answer = loop {
            let request = client.request("GET", "/").body(empty()).expect("a request");
            match client.call(request).await {
                Err(error) if was_not_taken(&error) => client = Client::h2(address).await,
                other => break other,
            }
        };
        match answer {
            Ok(answer) if answer.status == 200 => measured.latencies.push(began.elapsed()),
            Ok(answer) => *measured.failures.entry(answer.status.to_string()).or_default() += 1,
            Err(error) => {
                *measured.failures.entry(format!("{error:?}")).or_default() += 1;
                client = Client::h2(address).await;
            }
        }
    }
    measured
}

/// Whether a request was not sent, or not taken: a GOAWAY that is no error names the last stream that is (RFC 9113 section
/// 6.8), and whoever has sent another one in that moment is to send it again elsewhere.
fn was_not_taken(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_closed()
        || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)")
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
