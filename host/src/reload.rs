//! The control plane's one duty: from a configuration and a plugin directory to a published snapshot, at the
//! start and whenever either changes.
//!
//! Everything is made and tried before anything is published. What fails is told, and what served goes on.

pub mod certificates;
pub mod config_file;
pub mod names;
pub mod plugins;
pub mod prepare;
mod publish;
pub mod rebuild;
pub mod rollback;
pub mod shed;
pub mod sockets;
pub mod start;
pub mod status;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::config::listener::Service;
use crate::config::problem::{Mark, Place, Problem, Problems};
use crate::config::value::Spanned;
use crate::plugin::digest::Digest;
use crate::plugin::directory::{Change, Content};
use crate::plugin::library::Loaded;
use crate::plugin::services::Services;
use crate::proxy::worker::WorkerHandle;
use crate::reload::certificates::Seen;
use crate::reload::config_file::{ConfigFile, Look};
use crate::reload::names::{Moved, Names};
use crate::reload::plugins::Shelf;
use crate::reload::prepare::{Prepared, prepare};
use crate::reload::sockets::Sockets;
use crate::reload::status::{Status, lock};
use crate::snapshot::{Made, Making, Snapshot};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Counter;
use crate::telemetry::sink::Losses;

/// The control plane's state.
pub struct Control {
    /// The configuration file.
    pub file: ConfigFile,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The one that the process was started with.
    pub started_with: Arc<Config>,
    /// Where plugins come from.
    pub shelf: Shelf,
    /// What all VMs share.
    pub services: Arc<Services>,
    /// What the admin API looks at.
    pub status: Arc<Status>,
    /// The workers.
    pub workers: Vec<WorkerHandle>,
    /// What they accept from.
    pub sockets: Sockets,
    /// The access log, and the target that it was opened for.
    pub access_log: Option<AccessLog>,
    /// What access logs have lost.
    pub lost: Losses,
    /// The names of endpoints.
    pub names: Names,
    /// What is counted.
    pub metrics: ReloadMetrics,
    /// What is remembered of certificates.
    pub certificates: Seen,
    /// The versions whose bytes are in the cache.
    pub kept: HashMap<String, Digest>,
}

/// What is counted of reloads.
#[derive(Debug, Clone)]
pub struct ReloadMetrics {
    /// Configurations that were taken.
    pub config_taken: Counter,
    /// Configurations that were refused.
    pub config_refused: Counter,
    /// Plugin versions that were taken.
    pub plugins_taken: Counter,
    /// Plugin versions that were refused.
    pub plugins_refused: Counter,
    /// Plugin versions that gave way to the ones before them.
    pub plugins_rolled_back: Counter,
}

impl Control {
    /// Looks at the plugin directory, and takes up what changed. True when another look is due soon.
    pub async fn look_at_plugins(&mut self) -> bool {
        let scan = match self.shelf.scan(&self.status, &used_plugins(&self.config)).await {
            Ok(scan) => scan,
            Err(error) => {
                tracing::warn!(directory = %self.shelf.directory().display(), %error, "cannot look at the plugins");
                return false;
            }
        };
        let to_be_continued = scan.is_to_be_continued();
        for (name, change) in scan.changes {
            self.take_change(&name, change).await;
        }
        lock(&self.status.library).prune();
        to_be_continued
    }

    async fn take_change(&mut self, name: &str, change: Change) {
        match change {
            Change::Gone => {
                let used = self.uses(name);
                if used {
                    tracing::warn!(plugin = name, "its file is gone; the last version goes on serving");
                }
                let mut library = lock(&self.status.library);
                library.seen.taken.remove(name);
                library.gone(name, used);
            }
            Change::Unfit(stamp, reason) => {
                lock(&self.status.library).seen.taken.insert(name.to_owned(), stamp);
                self.refuse(name, None, reason);
            }
            Change::Content(stamp, content) => {
                lock(&self.status.library).seen.taken.insert(name.to_owned(), stamp);
                self.take_content(name, content).await;
            }
        }
    }

    /// Compiles a new version, tries it with every configuration that uses it, and puts it in force.
    async fn take_content(&mut self, name: &str, content: Content) {
        let digest = Digest::of(&content.bytes);
        let serves = lock(&self.status.library).serving(name).is_some_and(|serving| serving.digest == digest);
        if serves {
            lock(&self.status.library).as_expected(name);
            if let Err(reason) = self.shelf.verify(name, content).await {
                tracing::warn!(plugin = name, "it goes on serving, and would be refused now: {reason}");
                let notice = format!("it goes on serving, and would be refused now: {reason}");
                lock(&self.status.library).note(name, notice);
            }
            return;
        }
        let size = content.bytes.len();
        let room = self.shelf.room_for(&self.status, &used_plugins(&self.config), name, size);
        let compiled = match room {
            Ok(()) => self.shelf.compile(name, content).await,
            Err(reason) => Err(reason),
        };
        let loaded = match compiled {
            Ok(loaded) => loaded,
            Err(reason) => return self.refuse(name, Some(digest), reason),
        };
        let mut plugins = lock(&self.status.library).all_serving();
        plugins.insert(name.to_owned(), loaded.clone());
        let config = Arc::clone(&self.config);
        match self.apply(&config, &plugins).await {
            Ok(()) => {
                tracing::info!(plugin = name, %digest, "a new version serves");
                self.metrics.plugins_taken.inc();
                lock(&self.status.library).adopt(name, loaded, None);
                self.record();
            }
            Err(problems) => {
                let reasons: Vec<_> = problems.into_iter().map(|problem| problem.to_string()).collect();
                self.refuse(name, Some(digest), reasons.join("; "));
                lock(&self.status.library).keep_candidate(name, loaded);
                // A configuration that was refused may have been waiting for this version.
                if lock(&self.status.rejected).is_some() {
                    let _ = self.reload_config().await;
                }
            }
        }
    }

    fn refuse(&self, name: &str, digest: Option<Digest>, reason: String) {
        let digest_text = digest.map(|digest| digest.to_string()).unwrap_or_default();
        tracing::error!(plugin = name, digest = digest_text, "a version is refused: {reason}");
        self.metrics.plugins_refused.inc();
        lock(&self.status.library).reject(name, digest, reason);
    }

    fn uses(&self, plugin: &str) -> bool {
        let snapshot = self.status.snapshot();
        snapshot.is_some_and(|s| s.vms.iter().any(|vm| vm.filters.iter().any(|spec| &*spec.plugin == plugin)))
    }

    /// Opens the file of the access log anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Puts the configuration file in force if it has changed. True when it is still being written.
    pub async fn look_at_config(&mut self) -> bool {
        match self.file.look() {
            Look::Same => false,
            Look::Unsettled => true,
            Look::Changed => {
                // What is wrong with it was logged.
                let _ = self.reload_config().await;
                false
            }
        }
    }

    /// Reads the configuration file, and the certificates that it names, and puts them in force. What has not
    /// changed stays as it is, connections included.
    ///
    /// # Errors
    /// Everything that is wrong with it; then the old one stays in force.
    pub async fn reload_config(&mut self) -> Result<(), Problems> {
        let read = self.file.read();
        let result = match Config::take(self.file.path(), read).and_then(|config| self.not_empty(config)) {
            Ok(config) => self.take_config(config).await,
            Err(problems) => Err(problems),
        };
        match &result {
            Ok(()) => {
                self.metrics.config_taken.inc();
                lock(&self.status.rejected).take();
            }
            Err(problems) => {
                tracing::error!("the configuration is refused; the old one stays in force:\n{problems}");
                self.metrics.config_refused.inc();
                lock(&self.status.rejected).replace(problems.to_string());
            }
        }
        result
    }

    /// A file that holds nothing would end everything that serves: that is half of something, or a mistake.
    fn not_empty(&self, config: Config) -> Result<Config, Problems> {
        if config.sections.listeners.is_empty() && !self.config.sections.listeners.is_empty() {
            let place = Place { at: Mark { line: 1, column: 1 }, field: "listeners".into() };
            let message = "there are none left, which would end everything that serves; stop Weir to do that";
            return Err(Problems(vec![config.problem(&place, message)]));
        }
        Ok(config)
    }

    async fn take_config(&mut self, config: Config) -> Result<(), Problems> {
        let config = Arc::new(config);
        let before = self.access_log.clone();
        if config.sections.access_log != self.config.sections.access_log {
            self.access_log =
                prepare::access_log(&config, &self.lost).map_err(|problem| Problems(vec![problem]))?;
        }
        if let Err(problems) = self.apply_newest(&config).await {
            self.access_log = before;
            return Err(Problems(problems));
        }
        let waiting = needs_restart(&config, &self.started_with);
        for section in &waiting {
            tracing::warn!("`{section}` has changed: that takes effect at the next start");
        }
        *lock(&self.status.needs_restart) = waiting;
        self.config = config;
        self.record();
        tracing::info!(file = %self.file.path().display(), "the configuration is in force");
        Ok(())
    }

    /// Puts a configuration in force, with the versions of plugins that have been waiting for another one, or else
    /// with those that serve.
    async fn apply_newest(&mut self, config: &Arc<Config>) -> Result<(), Vec<Problem>> {
        let (serving, waiting) = {
            let library = lock(&self.status.library);
            (library.all_serving(), library.candidates())
        };
        if !waiting.is_empty() {
            let mut newest = serving.clone();
            newest.extend(waiting.iter().cloned());
            if self.apply(config, &newest).await.is_ok() {
                for (name, loaded) in waiting {
                    let digest = loaded.digest;
                    tracing::info!(plugin = name, %digest, "a new version serves, with the new configuration");
                    self.metrics.plugins_taken.inc();
                    lock(&self.status.library).adopt(&name, loaded, None);
                }
                return Ok(());
            }
        }
        self.apply(config, &serving).await
    }

    /// Makes a snapshot, tries it, and publishes it.
    async fn apply(
        &mut self,
        config: &Arc<Config>,
        plugins: &BTreeMap<String, Loaded>,
    ) -> Result<(), Vec<Problem>> {
        let before = self.status.snapshot();
        let made = self.make(config, plugins, before.as_deref());
        let mut prepared = prepare(config, made, self.workers.len()).await?;
        let sockets = self.bind(config, &prepared.snapshot)?;
        self.names.follow(&mut prepared.snapshot).await;
        self.publish(prepared, sockets).await;
        Ok(())
    }

    /// Puts other endpoints of a cluster in force.
    pub async fn take_endpoints(&mut self, moved: &Moved) {
        let Some(snapshot) = self.status.snapshot() else { return };
        let snapshot = snapshot.with_endpoints(moved.cluster, &moved.endpoints);
        let instances = self.workers.iter().map(|_| HashMap::new()).collect();
        self.publish(Prepared { snapshot, instances }, Vec::new()).await;
    }

    fn make(
        &self,
        config: &Arc<Config>,
        plugins: &BTreeMap<String, Loaded>,
        before: Option<&Snapshot>,
    ) -> Made {
        let library = lock(&self.status.library);
        let (services, access_log) = (&self.services, self.access_log.clone());
        Making { config, plugins, library: &library, before, services, access_log }.run()
    }

    /// Notes which VMs run which version, and keeps the bytes of what serves.
    fn record(&mut self) {
        let Some(snapshot) = self.status.snapshot() else { return };
        let mut library = lock(&self.status.library);
        for vm in &snapshot.vms {
            for spec in &vm.filters {
                library.runs(&spec.plugin, vm.digest, vm);
                if self.kept.get(&*spec.plugin) == Some(&vm.digest) {
                    continue;
                }
                if let Some(loaded) = library.serving(&spec.plugin) {
                    self.shelf.keep_good(&spec.plugin, loaded);
                    self.kept.insert(spec.plugin.to_string(), loaded.digest);
                }
            }
        }
    }
}

/// The plugins that a configuration uses, each once.
pub fn used_plugins(config: &Config) -> BTreeSet<String> {
    let filters = config.sections.listeners.iter().flat_map(|listener| {
        let http = match &listener.service {
            Service::Http(http) => http.filters.as_slice(),
            Service::Tcp { .. } => &[],
        };
        listener.filters.iter().chain(http)
    });
    filters.map(|filter| filter.plugin.value.clone()).collect()
}

/// The sections that differ, and take effect at the next start only.
fn needs_restart(config: &Config, started_with: &Config) -> Vec<&'static str> {
    let (new, old) = (&config.sections, &started_with.sections);
    let sections = [
        ("runtime", new.runtime != old.runtime),
        ("admin", new.admin != old.admin),
        ("plugins.directory", plugin_places(config) != plugin_places(started_with)),
        ("plugins.require_signature", keys(config) != keys(started_with)),
    ];
    sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
}

fn plugin_places(config: &Config) -> Option<(&PathBuf, Option<&PathBuf>)> {
    let plugins = config.sections.plugins.as_ref()?;
    Some((&plugins.directory.value, plugins.cache.as_ref()))
}

fn keys(config: &Config) -> Option<&[Spanned<String>]> {
    config.sections.plugins.as_ref()?.require_signature.as_ref().map(|keys| keys.value.as_slice())
}
