//! The composition root: puts the parts together, and runs them until the end.

mod start;
mod succession;
mod task;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin::{Admin, Wish};
use crate::app::start::{Start, begin};
use crate::app::succession::Succession;
use crate::app::task::{Done, Task};
use crate::config::Config;
use crate::config::problem::Problems;
use crate::net::inherit::Inheritance;
use crate::overload::Overload;
use crate::plugin::directory::SETTLE;
use crate::plugin::engine::PluginEngine;
use crate::plugin::services::Services;
use crate::proxy::worker::{Order, Report, Retired, StartWorker, WorkerHandle};
use crate::reload::config_file::ConfigFile;
use crate::reload::names::{Moved, Names};
use crate::reload::plugins::Shelf;
use crate::reload::rebuild::Rebuilds;
use crate::reload::rollback::note_fault;
use crate::reload::sockets::Sockets;
use crate::reload::status::{Phase, Status, lock};
use crate::reload::watch::Watch;
use crate::reload::{Control, ReloadMetrics, prepare, used_plugins};
use crate::telemetry::metrics::Registry;
use crate::telemetry::sink::Losses;
use crate::upstream::discovery::Discovery;

/// What a process begins with besides its configuration.
#[derive(Debug, Default)]
pub struct Origin {
    /// What Weir's own log has lost.
    pub log: Losses,
    /// What a service manager has passed.
    pub given: Inheritance,
    /// Whether the process that serves the same configuration is asked for its own.
    pub takeover: bool,
}

/// How much less urgent than the workers the threads are that compile, start and try plugins, as `nice` has it: whoever
/// copies plugins in takes no time from requests where processors are short.
const LESS_URGENT: i32 = 5;

/// A thread that does the control plane's long work begins. The processes that compile are its children, and like it.
fn yield_to_workers() {
    // Where that is not allowed it goes on as it is.
    let _ = rustix::process::nice(LESS_URGENT);
}

/// Runs the proxy until it has drained.
///
/// # Errors
/// When it cannot start.
pub fn run(file: &Path, origin: Origin) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(file)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(yield_to_workers)
        .build_local(Default::default())?;
    let ended = runtime.block_on(async {
        // First of all: what is not waited for ends the process.
        let mut signals = Signals::new()?;
        let start = tokio::select! {
            start = App::prepare(config, origin) => start?,
            () = signals.end() => return Ok(()),
        };
        // From here on connections are accepted, and whoever ends the process has it drain.
        let Some(mut app) = start.open(&mut signals).await? else { return Ok(()) };
        app.serve(&mut signals).await;
        app.end().await;
        Ok(())
    });
    // A trial that still runs is not waited for.
    runtime.shutdown_background();
    ended
}

/// The signals that the process takes, from when this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
}

/// What a signal asks for.
enum Told {
    End,
    Reload,
    Reopen,
}

impl Signals {
    /// Takes signals from now on.
    ///
    /// # Errors
    /// When they cannot be received.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits until the process is to end. A reload that is asked for meanwhile stays asked for.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hang_up.recv() => Told::Reload,
            _ = self.reopen.recv() => Told::Reopen,
        }
    }
}

/// A proxy that serves.
pub struct App {
    control: Control,
    reports: mpsc::UnboundedReceiver<Report>,
    moves: mpsc::UnboundedReceiver<Moved>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    succession: Succession,
    rebuilds: Rebuilds,
    watch: Watch,
    /// Accepts for the admin API, until it is aborted.
    admin: Option<JoinHandle<()>>,
    _engine: PluginEngine,
}

impl App {
    /// Prepares everything: plugins are loaded and tried, workers running, sockets bound or asked for. Nothing is accepted.
    ///
    /// # Errors
    /// Everything that is in the way.
    async fn prepare(config: Arc<Config>, origin: Origin) -> anyhow::Result<Start> {
        let engine = PluginEngine::new()?;
        let shelf = Shelf::open(&config, engine.engine())?.map_err(|problem| Problems(vec![problem]))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = config
            .sections
            .runtime
            .workers
            .as_ref()
            .map_or(cores, |workers| usize::from(workers.value.get()));
        let registry = Registry::new(count);
        let status = Status::new();
        // Before the first look, so that nothing is missed in between.
        let watch = Watch::new(&[folder_of(&config.file), shelf.directory()]);
        if let Some(caution) = shelf.caution() {
            tracing::warn!("{caution}");
        }
        shelf.load(&status, &used_plugins(&config)).await?;
        let (reported, reports) = mpsc::unbounded_channel();
        let (retire, retired) = channel();
        std::thread::Builder::new().name("weir-reaper".to_owned()).spawn(move || reap(&retired))?;
        let overload = Overload::new(count);
        let start = |index| {
            let (overload, reports) = (Arc::clone(&overload), reported.clone());
            StartWorker { index, overload, reports, reaper: retire.clone() }.run()
        };
        let workers = (0..count).map(start).collect::<std::io::Result<Vec<WorkerHandle>>>()?;
        let lost = Losses::default();
        lost.expose(&registry, "access");
        origin.log.expose(&registry, "weir");
        let access_log = prepare::access_log(&config, &lost).map_err(|problem| Problems(vec![problem]))?;
        let (moved, moves) = mpsc::unbounded_channel();
        let names = Names::new(Discovery::new(&config.sections.runtime.dns_servers)?, moved);
        let mut control = Control {
            file: ConfigFile::new(&config.file),
            started_with: Arc::clone(&config),
            config,
            shelf,
            services: Services::new(Arc::clone(&registry), Arc::clone(engine.pulse())),
            status,
            workers,
            sockets: Sockets::new(origin.given),
            access_log,
            lost,
            names,
            metrics: reload_metrics(&registry),
            certificates: Default::default(),
            kept: HashMap::new(),
        };
        let (wish, wishes) = mpsc::unbounded_channel();
        let status = Arc::clone(&control.status);
        let admin = Admin { status, registry, wishes: wish };
        let begun = begin(&mut control, admin, origin.takeover).await?;
        let (succession, rebuilds, admin) = Default::default();
        let app =
            Self { wishes, control, reports, moves, succession, rebuilds, watch, admin, _engine: engine };
        Ok(Start { app, begun, overload })
    }

    /// What is in force, for those who look on.
    pub fn status(&self) -> &Arc<Status> {
        &self.control.status
    }

    /// Serves until it is told to end, or another process has taken over. What is taken up may take its time to be tried:
    /// meanwhile failed instances are replaced, and whoever wants to end need not wait.
    pub async fn serve(&mut self, signals: &mut Signals) {
        let Self { control, reports, moves, wishes, succession, rebuilds, watch, admin, .. } = self;
        let status = Arc::clone(&control.status);
        let orders: Vec<_> = control.workers.iter().map(|worker| worker.orders.clone()).collect();
        let mut take = move |report: Report| {
            let vm = match report {
                Report::Condemned { worker, vm } => {
                    if let Some(orders) = orders.get(worker) {
                        rebuilds.rebuild(&status, worker, &vm, orders.clone());
                    }
                    vm
                }
                Report::StreamFailed { vm } => vm,
            };
            note_fault(&status, &vm).into_iter().map(Task::RollBack)
        };
        let mut asked = VecDeque::new();
        let mut unsettled = false;
        loop {
            // Another configuration may name others.
            control.certificate_folders().iter().for_each(|folder| watch.add(folder));
            let task = match asked.pop_front() {
                Some(task) => task,
                None => tokio::select! {
                    told = signals.next() => match told {
                        Told::End => return,
                        Told::Reload => Task::Reload(None),
                        Told::Reopen => Task::Reopen,
                    },
                    () = watch.changed(), if !unsettled => Task::Look,
                    () = tokio::time::sleep(SETTLE), if unsettled => Task::Look,
                    Some(wish) = wishes.recv() => match wish {
                        Wish::Drain => return,
                        Wish::Reload(told) => Task::Reload(Some(told)),
                    },
                    Some(moved) = moves.recv() => Task::Endpoints(moved),
                    Some(successor) = succession.next() => Task::HandOver(successor),
                    Some(report) = reports.recv() => {
                        asked.extend(take(report));
                        continue;
                    }
                },
            };
            let mut work = pin!(task.run(control, admin));
            let done = loop {
                tokio::select! {
                    biased;
                    done = &mut work => break done,
                    () = signals.end() => return,
                    Some(report) = reports.recv() => asked.extend(take(report)),
                    Some(wish) = wishes.recv() => match wish {
                        Wish::Drain => return,
                        Wish::Reload(told) => asked.push_back(Task::Reload(Some(told))),
                    },
                }
            };
            match done {
                Done::Settled => unsettled = false,
                Done::Unsettled => unsettled = true,
                Done::Kept => {}
                Done::HandedOver => return succession.leave(),
            }
        }
    }

    /// Drains, and ends.
    pub async fn end(self) {
        let Self { control, wishes, succession, .. } = self;
        *lock(&control.status.phase) = Phase::Draining;
        // Whoever still asks for a reload, or for the sockets, is told so.
        drop((wishes, succession));
        drain(control).await;
    }
}

/// Has the workers drain, and waits until they have.
async fn drain(mut control: Control) {
    let timeout = control.config.sections.drain_timeout;
    tracing::info!(?timeout, "draining");
    // Workers take what waits in a socket before they close it, and have to be the last to do so.
    control.sockets.close();
    for worker in &control.workers {
        // A worker that is gone has nothing to drain.
        let _ = worker.orders.send(Order::Drain(timeout));
    }
    let threads: Vec<_> = control.workers.into_iter().map(|worker| worker.thread).collect();
    let joined =
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    // Workers end by themselves; the margin is for what they do last.
    let _ = tokio::time::timeout(timeout + Duration::from_secs(1), joined).await;
    if let Some(log) = &control.access_log {
        log.flush();
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Drops what workers do not need any more, off the workers.
fn reap(retired: &Receiver<Retired>) {
    while let Ok(retired) = retired.recv() {
        match retired {
            Retired::Snapshot(snapshot) => drop(snapshot),
            Retired::Instance(instance) => drop(instance),
        }
    }
}

fn reload_metrics(registry: &Registry) -> ReloadMetrics {
    let counter = |name, help, result| registry.counter(name, help, &[("result", result)]);
    let config = |result| counter("weir_config_reloads_total", "Configurations taken and refused.", result);
    let plugins = |result| {
        counter("weir_plugin_reloads_total", "Plugin versions taken, refused, and rolled back.", result)
    };
    ReloadMetrics {
        config_taken: config("taken"),
        config_refused: config("refused"),
        plugins_taken: plugins("taken"),
        plugins_refused: plugins("refused"),
        plugins_rolled_back: plugins("rolled_back"),
    }
}
