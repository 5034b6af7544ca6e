//! A proxy under test: its process, its log as far as it is of interest, what it uses of the machine.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::gettid;

/// Lines of a log that are kept from its beginning, and from its end. Some guests write without an end.
const KEPT: usize = 500;

/// Has this thread, and all that it starts, come before the proxy (`SCHED_FIFO`): clients and upstreams elsewhere would not wait for
/// a processor that the proxy is busy on. A higher `nice` was not enough: they waited up to 5 ms all the same. False where
/// that is not allowed, or without `chrt` (util-linux).
pub fn be_urgent() -> bool {
    schedule("--fifo", "1")
}

/// Has this thread, and all that it starts, come no sooner than others.
pub fn be_usual() {
    // Where it could not be urgent it is usual already.
    schedule("--other", "0");
}

/// Has this thread, and all that it starts, run only while nobody else wants to (`SCHED_IDLE`). `nice` 19 was not enough: whoever
/// woke while such a thread ran waited up to 5 ms until the kernel took the processor from it.
pub fn be_last() {
    // Anybody may be less than usual.
    schedule("--idle", "0");
}

fn schedule(policy: &str, priority: &str) -> bool {
    let thread = gettid().as_raw_nonzero().to_string();
    let set = Command::new("chrt").args([policy, "--pid", priority, &thread]).stderr(Stdio::null()).status();
    set.is_ok_and(|status| status.success())
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    first: Vec<String>,
    last: VecDeque<String>,
    over: bool,
}

impl Process {
    /// Starts it, and follows what it says on stderr.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A child is as urgent as the thread that starts it.
        let child = std::thread::scope(|scope| {
            let start = scope.spawn(|| {
                be_usual();
                command.spawn()
            });
            start.join().expect("nobody panics here")
        });
        let mut child = child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let log = Arc::new(Log::default());
        let (own, pipe) = (Arc::clone(&log), child.stderr.take().expect("stderr is piped"));
        std::thread::spawn(move || own.follow(pipe));
        Self { child, log }
    }

    /// Waits for a line of the log's beginning; `None` when the process ends before, or when it takes too long.
    ///
    /// # Panics
    /// Never.
    pub fn wait_for(&self, text: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.log.lines.lock().expect("nobody panics here");
        loop {
            if let Some(line) = lines.first.iter().find(|line| line.contains(text)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.over || left.is_zero() {
                return None;
            }
            lines = self.log.more.wait_timeout(lines, left).expect("nobody panics here").0;
        }
    }

    /// The beginning and the end of the log.
    ///
    /// # Panics
    /// Never.
    pub fn log(&self) -> String {
        let lines = self.log.lines.lock().expect("nobody panics here");
        lines.first.iter().chain(&lines.last).map(|line| format!("{line}\n")).collect()
    }

    /// What it uses now; `None` when it is gone.
    pub fn usage(&self) -> Option<Usage> {
        Usage::of(&self.child.id().to_string())
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end by SIGTERM, and tells how long it took; `None` when it did not end in time.
    pub fn terminate(mut self, patience: Duration) -> Option<Duration> {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        while asked.elapsed() < patience {
            if !self.runs() {
                return Some(asked.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Waits until it has ended, and tells whether that was in order; `None` when it did not end in time.
    pub fn wait_for_end(mut self, patience: Duration) -> Option<bool> {
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.success());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // One that is gone needs no signal.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            self.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Log {
    fn follow(&self, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|len| len > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            let mut lines = self.lines.lock().expect("nobody panics here");
            if lines.first.len() < KEPT {
                lines.first.push(line);
            } else {
                lines.last.push_back(line);
                if lines.last.len() > KEPT {
                    lines.last.pop_front();
                }
            }
            bytes.clear();
            self.more.notify_all();
        }
        self.lines.lock().expect("nobody panics here").over = true;
        self.more.notify_all();
    }
}

/// The CPU time of a process, as `stat` below its folder tells (proc_pid_stat(5)).
fn cpu(folder: &str) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("{folder}/stat")).ok()?;
    // Behind the name, which may hold anything, `utime` is the twelfth field and `stime` the next.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    let ticks: u64 = ticks.sum::<Option<u64>>()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The open descriptors of the process that a folder below `/proc` tells of. Newer kernels (6.2) have their number as the size
/// of `fd`. To count 4,000 of them takes 3 ms, and whoever looks is more urgent than all that are looked at: it was that, and
/// nothing of the proxy's, which neighbours waited for in floods.
fn descriptors(folder: &str) -> Option<usize> {
    let own = format!("{folder}/fd");
    match std::fs::metadata(&own).ok()?.len() {
        0 => Some(std::fs::read_dir(&own).ok()?.count()),
        told => usize::try_from(told).ok(),
    }
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// CPU time of all its threads since it began, in the kernel, too.
    pub cpu: Duration,
}

impl Usage {
    fn of(process: &str) -> Option<Self> {
        let folder = format!("/proc/{process}");
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        let descriptors = descriptors(&folder)?;
        Some(Self { resident: kib * 1024, descriptors, cpu: cpu(&folder)? })
    }

    /// What this process uses.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    pub fn own() -> Self {
        Self::of("self").expect("Linux tells of processes")
    }
}
