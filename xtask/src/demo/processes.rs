//! The Weir processes: started, watched, and ended whatever happens.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::demo::folder::Process;
use crate::demo::{Signals, fetch};
use crate::say;

/// The processes that run. They are killed when this is dropped.
pub struct Processes {
    logs: PathBuf,
    running: JoinSet<(&'static str, std::io::Result<ExitStatus>)>,
    stage: watch::Sender<Stage>,
}

/// What is wanted of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Run,
    Drain,
    Kill,
}

/// How long a process may take to end by itself: its drain (5 s), and a margin.
const DRAIN: Duration = Duration::from_secs(7);

/// How long a process may take to serve.
const START: Duration = Duration::from_secs(60);

/// How much of a log is shown when its process has failed.
const LINES: usize = 30;

impl Processes {
    /// None yet. `logs`: the folder for their logs.
    pub fn new(logs: PathBuf) -> Self {
        Self { logs, running: JoinSet::new(), stage: watch::Sender::new(Stage::Run) }
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, weir: &Path, name: &'static str, config: &Path) -> anyhow::Result<()> {
        let log = self.log(name);
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(weir);
        command.args(["run", "--config"]).arg(config);
        // What the processes leave for their successors goes with the demo's folder.
        command.env("XDG_RUNTIME_DIR", config.parent().unwrap_or(Path::new(".")));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // Ctrl-C goes to the demo alone, which then ends the others in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run {}", weir.display()))?;
        let stage = self.stage.subscribe();
        self.running.spawn(async move { (name, supervise(child, stage).await) });
        Ok(())
    }

    /// Waits until a process serves.
    ///
    /// # Errors
    /// When one of the processes ends instead, or when this one takes too long.
    pub async fn wait_until_ready(&mut self, process: &Process) -> anyhow::Result<()> {
        let ready = async {
            while !matches!(fetch::get(process.admin, process.admin, "/ready").await, Ok((status, _)) if status == 200)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = tokio::select! {
            ready = tokio::time::timeout(START, ready) => ready.is_err(),
            failure = self.failure() => return Err(failure),
        };
        if late {
            return Err(anyhow!(
                "{} does not serve within {START:?}{}",
                process.name,
                self.end_of_log(process.name)
            ));
        }
        Ok(())
    }

    /// Waits until a process ends by itself, and says which, with the end of its log. Without processes it waits
    /// for ever.
    pub async fn failure(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            None => std::future::pending().await,
            Some(Ok((name, ended))) => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                anyhow!("{name} has ended ({how}){}", self.end_of_log(name))
            }
            Some(Err(error)) => anyhow!("a process is not watched any more: {error}"),
        }
    }

    /// Ends all of them: in order, and by force those that take too long, or all when a signal comes.
    pub async fn stop(mut self, signals: &mut Signals) {
        self.stage.send_replace(Stage::Drain);
        let in_order = tokio::select! {
            drained = tokio::time::timeout(DRAIN, wait_for_all(&mut self.running)) => drained.is_ok(),
            () = signals.received() => false,
        };
        if !in_order {
            say("demo: a process does not end by itself and is killed");
            self.stage.send_replace(Stage::Kill);
            wait_for_all(&mut self.running).await;
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn end_of_log(&self, name: &str) -> String {
        let path = self.log(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
        format!("; the end of its log, {}:\n{}", path.display(), end.join("\n"))
    }
}

async fn wait_for_all<T: 'static>(running: &mut JoinSet<T>) {
    while running.join_next().await.is_some() {}
}

/// Waits until a process ends, and tells it to when that is wanted.
async fn supervise(mut child: Child, mut stage: watch::Receiver<Stage>) -> std::io::Result<ExitStatus> {
    loop {
        let changed = tokio::select! {
            status = child.wait() => return status,
            changed = stage.changed() => changed,
        };
        let wanted = if changed.is_ok() { *stage.borrow_and_update() } else { Stage::Kill };
        match wanted {
            Stage::Run => {}
            Stage::Drain => terminate(&child),
            Stage::Kill => {
                child.start_kill()?;
                return child.wait().await;
            }
        }
    }
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended in the meantime needs no signal.
        let _ = kill_process(pid, Signal::TERM);
    }
}
