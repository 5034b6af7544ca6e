//! Weir under callgrind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a dump may take. An idle process looks about once in a second whether one is wanted.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether valgrind is there. Where it is not, and this is root on Debian, as on a machine for CI, it is installed.
pub fn is_there() -> bool {
    let works = || {
        let version = Command::new("valgrind").arg("--version").output();
        version.is_ok_and(|out| out.status.success())
    };
    if works() {
        return true;
    }
    if rustix::process::geteuid().is_root() {
        crate::say("installing valgrind by apt-get");
        let apt = |args: &[&str]| {
            let status = Command::new("apt-get").args(["-q", "-y"]).args(args).stdout(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        // Lists that are there may do, when new ones cannot be had.
        let _ = apt(&["update"]);
        let _ = apt(&["install", "--no-install-recommends", "valgrind"]);
    }
    works()
}

/// A program under valgrind, with options for that.
pub fn command(options: &[&str], program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.env_remove("VALGRIND_OPTS").arg("--quiet").args(options).arg(program);
    command
}

/// Weir under callgrind, until this is dropped.
#[derive(Debug)]
pub struct Counted {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Counted {
    /// Starts it, with the configuration in a folder, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not serve; with its log.
    pub fn start(weir: &Path, folder: &Path) -> anyhow::Result<Self> {
        let out = format!("--callgrind-out-file={}", folder.join("out").display());
        let mut command = command(&["--tool=callgrind", "--separate-threads=yes", &out], weir);
        command.args(["run", "--config"]).arg(folder.join("weir.yaml")).env("WEIR_LOG", "info");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take().context("it is piped")?;
        match served(BufReader::new(log)) {
            Ok(address) => Ok(Self { address, child, folder: folder.to_owned() }),
            Err(log) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                bail!("Weir does not serve under valgrind:\n{log}")
            }
        }
    }

    /// Has it write down what it has counted since the last time. That is asked for by way of what valgrind itself looks
    /// at: no right to trace another process is needed.
    ///
    /// # Errors
    /// When it does not.
    pub fn dump(&self) -> anyhow::Result<()> {
        let mut command = Command::new("vgdb");
        command.arg(format!("--pid={}", self.child.id())).args(["--max-invoke-ms=0", "dump"]);
        let mut asking = command.stderr(Stdio::null()).spawn().context("vgdb is a part of valgrind")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match asking.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{command:?} failed: {status}"),
                None if Instant::now() > deadline => {
                    // It may have ended by itself.
                    let _ = asking.kill();
                    let _ = asking.wait();
                    bail!("{command:?} had no answer within {PATIENCE:?}");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The instructions of the thread that had the most of them between the last two dumps: the worker.
    ///
    /// # Errors
    /// When there is no such dump.
    pub fn busiest_of_last_dump(&self) -> anyhow::Result<u64> {
        let mut most = None;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // `out.NUMBER-THREAD`; the first is of what was before.
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("out.2-")) {
                most = most.max(Some(total(&fs::read_to_string(&path)?).context("a dump has a total")?));
            }
        }
        most.context("callgrind has written no second dump")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn total(dump: &str) -> Option<u64> {
    dump.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// Where it listens, from its log, once it is ready. What it logs after that is thrown away.
///
/// # Errors
/// With the log, when that ends before.
fn served(mut log: impl BufRead + Send + 'static) -> Result<SocketAddr, String> {
    let (mut text, mut address, mut line) = (String::new(), None, String::new());
    while log.read_line(&mut line).is_ok_and(|len| len > 0) {
        let told = line.split_once("listening listener=\"web\" address=").map(|(_, told)| told);
        address = told.and_then(|told| told.split_whitespace().next()?.parse().ok()).or(address);
        let ready = line.contains("ready to serve");
        text.push_str(&line);
        line.clear();
        if let Some(address) = address.filter(|_| ready) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while log.read(&mut buffer).is_ok_and(|len| len > 0) {}
            });
            return Ok(address);
        }
    }
    Err(text)
}
