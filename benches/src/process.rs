//! Processes: started on a core, waited for, measured, stopped.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Processes that end with this.
#[derive(Debug, Default)]
pub struct Processes(Vec<Child>);

impl Processes {
    /// Starts one, and waits until somebody listens on its port.
    ///
    /// # Errors
    /// When it does not start, or ends.
    pub fn start(&mut self, command: &mut Command, port: u16) -> anyhow::Result<u32> {
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {shown}"))?;
        let pid = child.id();
        self.0.push(child);
        // Two hundred plugins take minutes to compile.
        let deadline = Instant::now() + Duration::from_secs(600);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.0.last_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                bail!("{shown} ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("{shown} does not listen on port {port}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(pid)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        while let Some(child) = self.0.pop() {
            stop(child);
        }
    }
}

/// Asks it to end, and waits a while.
pub fn stop(child: Child) {
    end(child, Signal::TERM);
}

/// Ends what was started from a terminal, as it were.
pub fn interrupt(child: Child) {
    end(child, Signal::INT);
}

fn end(mut child: Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // One that is gone needs no signal.
        let _ = kill_process(pid, signal);
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It drains longer than anybody wants to wait here.
    let _ = child.kill();
    let _ = child.wait();
}

/// A command on some cores.
pub fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

/// The only child of a process: the worker of a master. A master listens before it has one.
///
/// # Errors
/// When it gets none.
pub fn worker_of(pid: u32) -> anyhow::Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(child.parse()?);
        }
        if Instant::now() > deadline {
            bail!("process {pid} has no worker");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The time that all threads of a process have been running, by the scheduler's own clock.
///
/// # Errors
/// When it is gone.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the candidate is gone")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// The memory of a process that is its own or shared in part, in bytes (`Pss` of `smaps_rollup`).
///
/// # Errors
/// When it is gone.
pub fn memory(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the candidate is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
