//! One turn: load on one candidate, and what it cost.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::candidates::Candidate;

/// What a turn showed.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Requests in a second.
    pub requests_per_second: f64,
    /// The proxy's CPU time for a request, user and system, in microseconds.
    pub cpu_per_request: f64,
    /// The part of its core that the proxy used. Below about 0.97 it is the load that was measured.
    pub core_used: f64,
}

/// Puts load on a candidate.
///
/// # Errors
/// When a request fails, or `wrk` cannot be run.
pub fn measure(candidate: &Candidate, connections: usize, duration: Duration) -> anyhow::Result<Measured> {
    let before = cpu_time(candidate.pid)?;
    let start = Instant::now();
    let out = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs())])
        .arg(format!("http://127.0.0.1:{}/", candidate.port))
        .output()
        .context("cannot run wrk; install it")?;
    let wall = start.elapsed();
    let spent = cpu_time(candidate.pid)?.saturating_sub(before);
    let text = String::from_utf8_lossy(&out.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") || !out.status.success() {
        bail!("{} failed requests:\n{text}", candidate.name);
    }
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: f64 =
        requests.and_then(|(count, _)| count.parse().ok()).context("wrk tells how many requests")?;
    Ok(Measured {
        requests_per_second: requests / wall.as_secs_f64(),
        cpu_per_request: spent.as_secs_f64() * 1e6 / requests,
        core_used: spent.as_secs_f64() / wall.as_secs_f64(),
    })
}

/// The time that all threads of a process have been running, by the scheduler's own clock.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the candidate is gone")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}
