//! The composition root: puts the parts together, and runs them until the end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::config::problem::Problems;
use crate::plugin::engine::PluginEngine;
use crate::plugin::library::SETTLE;
use crate::plugin::services::Services;
use crate::proxy::worker::{Order, Report, Retired, StartWorker, WorkerHandle};
use crate::reload::names::{Moved, Names};
use crate::reload::plugins::Shelf;
use crate::reload::rebuild::Rebuilds;
use crate::reload::watch::Watch;
use crate::reload::{Control, ReloadMetrics, Status, prepare};
use crate::telemetry::metrics::Registry;
use crate::upstream::discovery::Discovery;

/// Runs the proxy until it has drained.
///
/// # Errors
/// When it cannot start.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(file)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let mut app = App::start(config).await?;
        app.serve().await?;
        app.end().await;
        Ok(())
    })
}

/// A proxy that serves.
pub struct App {
    control: Control,
    reports: mpsc::UnboundedReceiver<Report>,
    moves: mpsc::UnboundedReceiver<Moved>,
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
        let count = config.sections.runtime.workers.as_ref().map_or(cores, |workers| usize::from(workers.value));
        let registry = Registry::new(count);
        let status = Status::new();
        // Before the first look, so that nothing is missed in between.
        let watch = Watch::new(&[folder_of(&config.file), shelf.directory()]);
        shelf.load_all(&status).await?;
        let (reported, reports) = mpsc::unbounded_channel();
        let (retire, retired) = channel();
        std::thread::Builder::new().name("weir-reaper".to_owned()).spawn(move || reap(&retired))?;
        let start = |index| StartWorker { index, reports: reported.clone(), reaper: retire.clone() }.run();
        let workers = (0..count).map(start).collect::<std::io::Result<Vec<WorkerHandle>>>()?;
        let access_log = prepare::access_log(&config).map_err(|problem| Problems(vec![problem]))?;
        let (moved, moves) = mpsc::unbounded_channel();
        let names = Names::new(Discovery::new(&config.sections.runtime.dns_servers)?, moved);
        let mut control = Control {
            file: config.file.clone(),
            config,
            shelf,
            services: Services::new(Arc::clone(&registry)),
            status,
            workers,
            access_log,
            names,
            metrics: reload_metrics(&registry),
            read: None,
            kept: HashMap::new(),
        };
        control.start().await?;
        tracing::info!(workers = count, "ready to serve");
        Ok(Self { control, reports, moves, rebuilds: Rebuilds::default(), watch, _engine: engine })
    }

    /// What is in force, for those who look on.
    pub fn status(&self) -> &Arc<Status> {
        &self.control.status
    }

    /// Serves until it is told to end.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn serve(&mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut unsettled = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hang_up.recv() => {
                    // What is wrong with it is logged.
                    let _ = self.control.reload_config().await;
                    unsettled = self.control.look_at_plugins().await;
                }
                () = self.watch.changed(), if !unsettled => unsettled = self.look().await,
                () = tokio::time::sleep(SETTLE), if unsettled => unsettled = self.look().await,
                Some(report) = self.reports.recv() => self.take(&report),
                Some(moved) = self.moves.recv() => self.control.take_endpoints(&moved).await,
            }
        }
    }

    /// Takes up what has changed. True when something is still being written.
    async fn look(&mut self) -> bool {
        let config = self.control.look_at_config().await;
        self.control.look_at_plugins().await || config
    }

    fn take(&mut self, report: &Report) {
        match report {
            Report::Condemned { worker, vm } => {
                if let Some(handle) = self.control.workers.get(*worker) {
                    let orders = handle.orders.clone();
                    self.rebuilds.rebuild(&self.control.status, *worker, *vm, orders);
                }
            }
        }
    }

    /// Drains, and ends.
    pub async fn end(self) {
        let timeout = self.control.config.sections.drain_timeout;
        tracing::info!(?timeout, "draining");
        for worker in &self.control.workers {
            // A worker that is gone has nothing to drain.
            let _ = worker.orders.send(Order::Drain(timeout));
        }
        let threads: Vec<_> = self.control.workers.into_iter().map(|worker| worker.thread).collect();
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        // Workers end by themselves; the margin is for what they do last.
        let _ = tokio::time::timeout(timeout + Duration::from_secs(1), joined).await;
        if let Some(log) = &self.control.access_log {
            log.flush();
        }
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
    let plugins = |result| counter("weir_plugin_reloads_total", "Plugin versions taken and refused.", result);
    ReloadMetrics {
        config_taken: config("taken"),
        config_refused: config("refused"),
        plugins_taken: plugins("taken"),
        plugins_refused: plugins("refused"),
    }
}
