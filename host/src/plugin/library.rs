//! The plugin directory: which files there are, which version of each plugin serves, and what became of the
//! others.
//!
//! The library only keeps the books. Whoever reloads scans, compiles and tries, and reports the outcome here.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use crate::plugin::digest::Digest;
use crate::plugin::filter::VmSpec;
use crate::plugin::module::{MAX_SIZE, PluginModule};

/// A version that is compiled.
#[derive(Clone)]
pub struct Loaded {
    /// Its digest.
    pub digest: Digest,
    /// Its module.
    pub module: PluginModule,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// By what a file is known to be the same: two looks that find the same stamp find the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A file that is not as it was.
#[derive(Debug)]
pub enum Change {
    /// It has this content now.
    Content(Stamp, Vec<u8>),
    /// It is there, and cannot be a plugin.
    Unfit(Stamp, String),
    /// It is gone.
    Gone,
}

/// What a look at the directory found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What is not as it was, by plugin.
    pub changes: Vec<(String, Change)>,
    /// Files that may still be written: look again soon.
    pub unsettled: BTreeMap<String, Candidate>,
}

/// New content that was found once. It is taken when a later look finds the same: time stamps do not tell that a file
/// is whole, as a file system may cut it before it writes the time down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    content: Digest,
    since: Instant,
}

/// How long new content must have stayed as it is before it counts as whole.
pub const SETTLE: Duration = Duration::from_millis(50);

/// What looks at the directory remember.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The files whose content is known.
    pub taken: BTreeMap<String, Stamp>,
    /// Those that were about to be taken at the last look.
    pub unsettled: BTreeMap<String, Candidate>,
}

/// Looks at the directory. `seen`: what the last look found.
///
/// Only regular files count. A file is opened once, without following a link, and what was read is what is
/// used: whatever happens to the path afterwards is another file.
///
/// # Errors
/// When the directory cannot be read.
pub fn scan(directory: &Path, seen: &Seen) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut present = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
        match read(&path, seen.taken.get(&name)) {
            Ok(Some(Change::Content(stamp, bytes))) => {
                match settle(seen.unsettled.get(&name), Digest::of(&bytes)) {
                    None => scan.changes.push((name.clone(), Change::Content(stamp, bytes))),
                    Some(candidate) => drop(scan.unsettled.insert(name.clone(), candidate)),
                }
            }
            Ok(Some(change)) => scan.changes.push((name.clone(), change)),
            Ok(None) => {}
            // It went while we looked; the next look knows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => match std::fs::symlink_metadata(&path) {
                Ok(meta) if seen.taken.get(&name) != Some(&Stamp::of(&meta)) => {
                    let unfit = Change::Unfit(Stamp::of(&meta), format!("it cannot be read: {error}"));
                    scan.changes.push((name.clone(), unfit));
                }
                Ok(_) | Err(_) => {}
            },
        }
        present.push(name);
    }
    let gone = seen.taken.keys().filter(|name| !present.contains(name));
    scan.changes.extend(gone.map(|name| (name.clone(), Change::Gone)));
    scan.changes.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(scan)
}

/// Compares with what the last look found. `None` when the content has stayed as it is for long enough.
fn settle(before: Option<&Candidate>, content: Digest) -> Option<Candidate> {
    match before.filter(|before| before.content == content) {
        Some(same) if same.since.elapsed() >= SETTLE => None,
        Some(same) => Some(*same),
        None => Some(Candidate { content, since: Instant::now() }),
    }
}

fn read(path: &Path, seen: Option<&Stamp>) -> io::Result<Option<Change>> {
    let no_follow = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    // What the path is now, before it is opened: opening a FIFO or a device can have effects.
    let link = std::fs::symlink_metadata(path)?;
    let stamp = Stamp::of(&link);
    if seen == Some(&stamp) {
        return Ok(None);
    }
    if !link.is_file() {
        let what =
            "it is not a regular file (links, pipes and devices are not followed); copy the file itself";
        return Ok(Some(Change::Unfit(stamp, what.to_owned())));
    }
    let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    Ok(Some(Change::Content(stamp, read_all(&file)?)))
}

/// The content of a file, one byte over the limit at most: the module says what is wrong with one that large.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
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
