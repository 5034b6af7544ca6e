//! Two workers beside one.

use std::process::Command;
use std::time::Duration;

use crate::lab::{Built, Lab};
use crate::machine::{self, LOAD, PROXY};
use crate::report::Report;
use crate::rounds::{Candidate, Plan, REQUEST, compare};
use crate::tools::Tools;
use crate::workloads::growth::{Config, path, write};
use crate::workloads::loads::{output, wrk_on};

/// Connections: enough that each worker has its share.
const CONNECTIONS: usize = 64;

/// With four cores, twice the workers are to do nearly twice the work. With fewer there is no core left for the load: then
/// what a request takes must not grow, and the workers must not wait for each other.
pub fn run(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let has_room = machine::cores() >= 4;
    let (proxies, load): (&str, &[&str]) = if has_room { ("0,2", &["1", "3"]) } else { ("0,1", &[LOAD]) };
    let mut candidates = Vec::new();
    for (name, workers, cores) in [("weir, one worker", 1, PROXY), ("weir, two workers", 2, proxies)] {
        let (file, port) = write(&mut lab, &Config { workers, ..Config::default() })?;
        let pid = lab.weir(&file, cores, port)?;
        let base = (workers > 1).then_some(0);
        candidates.push(Candidate { name: name.to_owned(), pid, port, is_peer: false, base });
    }
    let url =
        |candidate: &Candidate| format!("http://127.0.0.1:{}{}", candidate.port, path(&Config::default()));
    let mut report = compare(report, plan, REQUEST, &candidates, &|candidate, duration| {
        Ok(wrk_on(load, &url(candidate), CONNECTIONS, duration)?.requests)
    })?;
    if !has_room {
        report.notes.push(
            "Fewer than four cores: the load shares the second worker's, so that the rates say nothing."
                .into(),
        );
    }
    for candidate in &candidates {
        report.notes.push(
            match waits(candidate.pid, || {
                Ok(wrk_on(load, &url(candidate), CONNECTIONS, Duration::from_secs(2))?.requests)
            })? {
                Some((waits, requests)) => {
                    format!("{}: {waits} futex calls for {requests:.0} requests (strace).", candidate.name)
                }
                None => "`apt-get install strace` to count how often workers wait for a lock.".into(),
            },
        );
    }
    Ok(report)
}

/// How often any thread of a process waited for a lock, or woke one that did, during some load.
fn waits(pid: u32, load: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<Option<(u64, f64)>> {
    if output(Command::new("strace").arg("-V")).is_err() {
        return Ok(None);
    }
    let file = tempfile::NamedTempFile::new()?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=futex", "-p", &pid.to_string(), "-o"]).arg(file.path());
    let child = strace.stderr(std::process::Stdio::null()).spawn()?;
    let requests = load();
    crate::process::interrupt(child);
    let text = std::fs::read_to_string(file.path())?;
    // `100.00    0.000012           6         2           futex`
    let line = text.lines().find(|line| line.trim_end().ends_with(" futex"));
    let calls = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0);
    Ok(Some((calls, requests?)))
}
