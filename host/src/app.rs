//! The composition root: puts the parts together, and runs them until the end.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, Admin, Wish};
use crate::config::Config;
use crate::config::problem::Problems;
use crate::net::listen;
use crate::overload::{Gauges, Overload};
use crate::plugin::directory::SETTLE;
use crate::plugin::engine::PluginEngine;
use crate::plugin::services::Services;
use crate::proxy::worker::{Order, Report, Retired, StartWorker, WorkerHandle};
use crate::reload::config_file::ConfigFile;
use crate::reload::names::{Moved, Names};
use crate::reload::plugins::Shelf;
use crate::reload::rebuild::Rebuilds;
use crate::reload::rollback::{Failing, note_fault};
use crate::reload::status::{Phase, Status, lock};
use crate::reload::watch::Watch;
use crate::reload::{Control, ReloadMetrics, prepare, shed, used_plugins};
use crate::telemetry::metrics::Registry;
use crate::upstream::discovery::Discovery;

/// Runs the proxy until it has drained.
///
/// # Errors
/// When it cannot start.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(file)?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let ended = runtime.block_on(async {
        // First of all: what is not waited for ends the process.
        let mut signals = Signals::new()?;
        let mut app = tokio::select! {
            app = App::start(config) => app?,
            () = signals.end() => return Ok(()),
        };
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
}

/// What a signal asks for.
enum Told {
    End,
    Reload,
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
        }
    }
}

/// A proxy that serves.
pub struct App {
    control: Control,
    reports: mpsc::UnboundedReceiver<Report>,
    moves: mpsc::UnboundedReceiver<Moved>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    rebuilds: Rebuilds,
    watch: Watch,
    _engine: PluginEngine,
}

impl App {
    /// Starts everything: plugins are loaded and tried, sockets bound, workers running.
    ///
    /// # Errors
    /// Everything that is in the way.
    pub async fn start(config: Arc<Config>) -> anyhow::Result<Self> {
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
        let access_log = prepare::access_log(&config).map_err(|problem| Problems(vec![problem]))?;
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
            access_log,
            names,
            metrics: reload_metrics(&registry),
            certificates: Default::default(),
            kept: HashMap::new(),
        };
        let (wish, wishes) = mpsc::unbounded_channel();
        let status = Arc::clone(&control.status);
        serve_admin(&control.config, Admin { status, registry, wishes: wish })?;
        control.start().await?;
        *lock(&control.status.phase) = Phase::Serving;
        let orders = control.workers.iter().map(|worker| worker.orders.clone()).collect();
        let gauges = Gauges::new(&control.services.registry);
        tokio::task::spawn_local(shed::run(Arc::clone(&control.status), overload, gauges, orders));
        tracing::info!(workers = count, "ready to serve");
        Ok(Self { wishes, control, reports, moves, rebuilds: Rebuilds::default(), watch, _engine: engine })
    }

    /// What is in force, for those who look on.
    pub fn status(&self) -> &Arc<Status> {
        &self.control.status
    }

    /// Serves until it is told to end. What is taken up may take its time to be tried: meanwhile failed instances are
    /// replaced, and whoever wants to end need not wait.
    pub async fn serve(&mut self, signals: &mut Signals) {
        let Self { control, reports, moves, wishes, rebuilds, watch, .. } = self;
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
                    },
                    () = watch.changed(), if !unsettled => Task::Look,
                    () = tokio::time::sleep(SETTLE), if unsettled => Task::Look,
                    Some(wish) = wishes.recv() => match wish {
                        Wish::Drain => return,
                        Wish::Reload(told) => Task::Reload(Some(told)),
                    },
                    Some(moved) = moves.recv() => Task::Endpoints(moved),
                    Some(report) = reports.recv() => {
                        asked.extend(take(report));
                        continue;
                    }
                },
            };
            let mut work = pin!(task.run(control, unsettled));
            unsettled = loop {
                tokio::select! {
                    biased;
                    unsettled = &mut work => break unsettled,
                    () = signals.end() => return,
                    Some(report) = reports.recv() => asked.extend(take(report)),
                    Some(wish) = wishes.recv() => match wish {
                        Wish::Drain => return,
                        Wish::Reload(told) => asked.push_back(Task::Reload(Some(told))),
                    },
                }
            };
        }
    }

    /// Drains, and ends.
    pub async fn end(self) {
        *lock(&self.control.status.phase) = Phase::Draining;
        let timeout = self.control.config.sections.drain_timeout;
        tracing::info!(?timeout, "draining");
        // Whoever still asks for a reload is told so.
        drop(self.wishes);
        for worker in &self.control.workers {
            // A worker that is gone has nothing to drain.
            let _ = worker.orders.send(Order::Drain(timeout));
        }
        let threads: Vec<_> = self.control.workers.into_iter().map(|worker| worker.thread).collect();
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        // Workers end by themselves; the margin is for what they do last.
        let _ = tokio::time::timeout(timeout + Duration::from_secs(1), joined).await;
        if let Some(log) = &self.control.access_log {
            log.flush();
        }
    }
}

/// What the control plane takes up.
enum Task {
    /// Whatever has changed.
    Look,
    /// Everything, because somebody asks, who may want to hear how it went.
    Reload(Option<oneshot::Sender<Result<(), String>>>),
    /// Other endpoints of a cluster.
    Endpoints(Moved),
    /// A new version that keeps failing.
    RollBack(Failing),
}

impl Task {
    /// Does it. True when something is still being written; `unsettled`: whether something was before.
    async fn run(self, control: &mut Control, unsettled: bool) -> bool {
        match self {
            Self::Look => {
                let config = control.look_at_config().await;
                let certificates = control.look_at_certificates().await;
                control.look_at_plugins().await || config || certificates
            }
            Self::Reload(told) => {
                // What is wrong with it is logged, too.
                let reloaded = control.reload_config().await.map_err(|problems| problems.to_string());
                let reloaded = reloaded.and_then(|()| control.certificates_are_good());
                let unsettled = control.look_at_plugins().await;
                if let Some(told) = told {
                    // Whoever asked may have stopped waiting.
                    let _ = told.send(reloaded);
                }
                unsettled
            }
            Self::RollBack(failing) => {
                control.roll_back(failing).await;
                unsettled
            }
            Self::Endpoints(moved) => {
                control.take_endpoints(&moved).await;
                unsettled
            }
        }
    }
}

/// Starts the admin API, when there is to be one.
fn serve_admin(config: &Config, admin: Admin) -> anyhow::Result<()> {
    let Some(section) = &config.sections.admin else { return Ok(()) };
    let bound = listen::bind(section.address.value, 1);
    let bound =
        bound.map_err(|error| Problems(vec![config.problem(&section.address.place, error.to_string())]))?;
    if let Some(socket) = bound.into_iter().next() {
        tracing::info!(address = %socket.local_addr()?, "the admin API listens");
        tokio::task::spawn_local(admin::serve(Rc::new(admin), socket));
    }
    Ok(())
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
