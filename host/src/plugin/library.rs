//! The plugins: which version of each serves, and what became of the others.
//!
//! The library only keeps the books. Whoever reloads scans, compiles and tries, and reports the outcome here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use crate::plugin::digest::Digest;
use crate::plugin::directory::Seen;
use crate::plugin::filter::VmSpec;
use crate::plugin::module::PluginModule;

/// A version that is compiled.
#[derive(Clone)]
pub struct Loaded {
    /// Its digest.
    pub digest: Digest,
    /// Its module.
    pub module: PluginModule,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// The signature that it was found with, when one was asked for.
    pub signature: Option<Arc<[u8]>>,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is in use, or would be.
    Serving,
    /// Another one is in use; streams that began with it still run.
    Draining,
    /// It is not used, for the reason that stands beside.
    Rejected,
}

/// A version in the books.
#[derive(Debug, Clone, Serialize)]
pub struct Version {
    /// Its digest; absent for a file that could not even be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What became of it.
    pub state: State,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// The VMs that run it, as long as anybody uses them.
    #[serde(skip)]
    vms: Vec<Weak<VmSpec>>,
}

impl Version {
    /// The VMs that run it.
    pub fn vms(&self) -> impl Iterator<Item = Arc<VmSpec>> {
        self.vms.iter().filter_map(Weak::upgrade)
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Bytes of all plugins together, beyond which those that nobody uses are refused.
const MOST_BYTES: usize = 1 << 30;

/// Versions that are kept in the books of a plugin: what serves, what drains, and what was rejected of late.
const KEPT: usize = 16;

/// A plugin in the books.
#[derive(Default)]
pub struct Plugin {
    serving: Option<Loaded>,
    versions: VecDeque<Version>,
    /// What is odd about its file, when something is.
    notice: Option<String>,
    /// What its file holds now, when that can be loaded and yet does not go with the configuration in force.
    candidate: Option<Loaded>,
    /// While the version that serves is new: what it is measured by.
    probation: Option<Probation>,
}

/// A version that is new. The one before it is kept, so that it can be put in force again.
struct Probation {
    before: Loaded,
    since: Instant,
    faults: u32,
}

/// How long a version counts as new.
pub const PROBATION: Duration = Duration::from_secs(60);

/// The failures, of all its instances together, that a new version may not reach.
pub const FAULTS_OF_A_NEW_VERSION: u32 = 3;

impl Probation {
    fn is_running(&self) -> bool {
        self.since.elapsed() < PROBATION
    }
}

impl Plugin {
    /// The version that serves.
    pub fn serving(&self) -> Option<&Loaded> {
        self.serving.as_ref()
    }

    /// All versions that are remembered, the newest first.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter()
    }

    /// What is odd about its file, when something is.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn record(&mut self, digest: Option<Digest>, state: State, reason: Option<String>) {
        self.versions.push_front(Version {
            digest,
            state,
            reason,
            since: SystemTime::now(),
            vms: Vec::new(),
        });
        self.versions.truncate(KEPT);
    }
}

/// The books.
#[derive(Default)]
pub struct Library {
    plugins: BTreeMap<String, Plugin>,
    /// What the last look at the directory found.
    pub seen: Seen,
}

impl Library {
    /// A plugin.
    pub fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.get(name)
    }

    /// The version of a plugin that serves.
    pub fn serving(&self, name: &str) -> Option<&Loaded> {
        self.plugins.get(name)?.serving.as_ref()
    }

    /// The versions of all plugins that serve.
    pub fn all_serving(&self) -> BTreeMap<String, Loaded> {
        let serving = |(name, plugin): (&String, &Plugin)| Some((name.clone(), plugin.serving.clone()?));
        self.plugins.iter().filter_map(serving).collect()
    }

    /// Whether a plugin that nobody uses is one too many, with so many bytes: all of them are in memory.
    ///
    /// # Errors
    /// Then what to do about it.
    pub fn room_for(&self, name: &str, bytes: usize) -> Result<(), String> {
        let others = self.plugins.iter().filter(|(other, _)| *other != name);
        let size =
            |(_, plugin): (&String, &Plugin)| plugin.serving.as_ref().map_or(0, |loaded| loaded.bytes.len());
        if others.map(size).sum::<usize>() + bytes > MOST_BYTES {
            let most = MOST_BYTES >> 20;
            return Err(format!(
                "no filter uses it, and with it the plugins in the directory are more than {most} MiB together; remove \
                 some that are not used"
            ));
        }
        Ok(())
    }

    /// All plugins.
    pub fn plugins(&self) -> impl Iterator<Item = (&str, &Plugin)> {
        self.plugins.iter().map(|(name, plugin)| (name.as_str(), plugin))
    }

    /// A version serves from now on; the one before it drains.
    pub fn adopt(&mut self, name: &str, loaded: Loaded, notice: Option<String>) {
        let plugin = self.plugins.entry(name.to_owned()).or_default();
        for version in &mut plugin.versions {
            if version.state == State::Serving {
                version.state = State::Draining;
                version.since = SystemTime::now();
            }
        }
        plugin.record(Some(loaded.digest), State::Serving, None);
        let before = plugin.serving.replace(loaded);
        // One that has failed already is none to go back to.
        let before = match plugin.probation.take() {
            Some(failing) if failing.is_running() && failing.faults > 0 => Some(failing.before),
            Some(_) | None => before,
        };
        plugin.probation = before.map(|before| Probation { before, since: Instant::now(), faults: 0 });
        plugin.notice = notice;
        plugin.candidate = None;
    }

    /// An instance of a version failed. True when it serves, is new, and has just failed too often.
    pub fn fault(&mut self, name: &str, digest: Digest) -> bool {
        let Some(plugin) = self.plugins.get_mut(name) else { return false };
        let serves = plugin.serving.as_ref().is_some_and(|serving| serving.digest == digest);
        let Some(probation) = plugin.probation.as_mut().filter(|new| serves && new.is_running()) else {
            return false;
        };
        probation.faults += 1;
        probation.faults == FAULTS_OF_A_NEW_VERSION
    }

    /// The version before one that serves and is new.
    pub fn before(&self, name: &str, digest: Digest) -> Option<Loaded> {
        let plugin = self.plugins.get(name)?;
        let serves = plugin.serving.as_ref().is_some_and(|serving| serving.digest == digest);
        plugin.probation.as_ref().filter(|_| serves).map(|probation| probation.before.clone())
    }

    /// The version before the one that serves takes its place. Returns why.
    pub fn rolled_back(&mut self, name: &str, before: Loaded) -> String {
        let reason = format!(
            "it failed {FAULTS_OF_A_NEW_VERSION} times within {PROBATION:?} of being put in force, and was rolled back"
        );
        let plugin = self.plugins.entry(name.to_owned()).or_default();
        for version in &mut plugin.versions {
            if version.state == State::Serving {
                version.state = State::Rejected;
                version.reason = Some(reason.clone());
                version.since = SystemTime::now();
            }
        }
        plugin.record(Some(before.digest), State::Serving, None);
        plugin.notice = Some(format!("the version before the one in its file serves: {reason}"));
        plugin.serving = Some(before);
        plugin.probation = None;
        reason
    }

    /// A version is not used.
    pub fn reject(&mut self, name: &str, digest: Option<Digest>, reason: String) {
        let plugin = self.plugins.entry(name.to_owned()).or_default();
        // The same content rejected again is the same version.
        plugin.candidate = None;
        plugin.versions.retain(|version| version.state != State::Rejected || version.digest != digest);
        plugin.record(digest, State::Rejected, Some(reason));
    }

    /// A version that was rejected could be used with another configuration.
    pub fn keep_candidate(&mut self, name: &str, loaded: Loaded) {
        self.plugins.entry(name.to_owned()).or_default().candidate = Some(loaded);
    }

    /// The versions that wait for another configuration.
    pub fn candidates(&self) -> Vec<(String, Loaded)> {
        let waiting = |(name, plugin): (&String, &Plugin)| Some((name.clone(), plugin.candidate.clone()?));
        self.plugins.iter().filter_map(waiting).collect()
    }

    /// The file of a plugin is what serves.
    pub fn as_expected(&mut self, name: &str) {
        if let Some(plugin) = self.plugins.get_mut(name) {
            plugin.candidate = None;
            plugin.notice = None;
        }
    }

    /// What is odd about the file of a plugin.
    pub fn note(&mut self, name: &str, notice: String) {
        if let Some(plugin) = self.plugins.get_mut(name) {
            plugin.notice = Some(notice);
        }
    }

    /// The file of a plugin is gone. `used`: filters use it; then it goes on serving.
    pub fn gone(&mut self, name: &str, used: bool) {
        if used {
            if let Some(plugin) = self.plugins.get_mut(name) {
                plugin.candidate = None;
                plugin.notice = Some("its file is gone; the last version goes on serving".to_owned());
            }
        } else {
            self.plugins.remove(name);
        }
    }

    /// The VMs that run a version now.
    pub fn runs(&mut self, name: &str, digest: Digest, vm: &Arc<VmSpec>) {
        let Some(plugin) = self.plugins.get_mut(name) else { return };
        let serving =
            |version: &&mut Version| version.state == State::Serving && version.digest == Some(digest);
        if let Some(version) = plugin.versions.iter_mut().find(serving)
            && !version.vms.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(vm)))
        {
            version.vms.push(Arc::downgrade(vm));
        }
    }

    /// Strikes out versions that have drained.
    pub fn prune(&mut self) {
        for plugin in self.plugins.values_mut() {
            plugin.probation.take_if(|probation| !probation.is_running());
            let alive = |version: &Version| version.vms.iter().any(|vm| vm.strong_count() > 0);
            plugin.versions.retain(|version| version.state != State::Draining || alive(version));
        }
    }
}
