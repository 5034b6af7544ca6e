//! Where plugins come from: the directory, the compiler, and the cache with the last good version of each.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::plugin::code_cache::CodeCache;
use crate::plugin::digest::Digest;
use crate::plugin::directory::{Change, SETTLE, Scan, check_name, scan};
use crate::plugin::library::Loaded;
use crate::plugin::module::Compiler;
use crate::plugin::workshop::Workshop;
use crate::reload::status::{Status, lock};

/// The plugin directory and what belongs to it.
#[derive(Clone)]
pub struct Shelf {
    directory: PathBuf,
    compiler: Arc<Compiler>,
    cache: Option<CodeCache>,
}

impl Shelf {
    /// The shelf of a configuration. Without a `plugins` section it is empty.
    ///
    /// # Errors
    /// When the directory is none, or the cache cannot be used.
    pub fn open(config: &Config, engine: &Engine) -> anyhow::Result<Result<Self, Problem>> {
        let (directory, workshop) = match &config.sections.plugins {
            None => (PathBuf::new(), None),
            Some(plugins) => {
                let directory = plugins.directory.value.clone();
                if !directory.is_dir() {
                    let message = format!("{} is not a directory; create it", directory.display());
                    return Ok(Err(config.problem(&plugins.directory.place, message)));
                }
                let folder = plugins.cache.clone().unwrap_or_else(|| default_cache(&directory));
                match CodeCache::open(&folder) {
                    Ok(cache) => {
                        let (time, memory) = (plugins.compile_time, plugins.compile_memory.0);
                        let functions = plugins.compile_functions;
                        (directory, Some(Workshop { cache, time, memory, functions }))
                    }
                    Err(error) => {
                        let cure = "set `plugins.cache` to a folder that Weir may write";
                        let message =
                            format!("the cache {} cannot be used: {error}; {cure}", folder.display());
                        return Ok(Err(config.problem(&plugins.directory.place, message)));
                    }
                }
            }
        };
        let cache = workshop.as_ref().map(|workshop| workshop.cache.clone());
        let compiler = Arc::new(Compiler::new(engine, workshop)?);
        Ok(Ok(Self { directory, compiler, cache }))
    }

    /// The directory; empty when there is none.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What an operator should know of the directory; `None` when nothing.
    pub fn caution(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.directory).ok()?.mode();
        let directory = self.directory.display();
        (mode & 0o002 != 0).then(|| format!("anybody may put plugins into {directory}; `chmod o-w` it"))
    }

    /// Looks for what is not as it was. `used`: the plugins that filters use; they come first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn scan(&self, status: &Status, used: &BTreeSet<String>) -> std::io::Result<Scan> {
        if self.directory.as_os_str().is_empty() {
            return Ok(Scan::default());
        }
        let (directory, seen, used) =
            (self.directory.clone(), lock(&status.library).seen.clone(), used.clone());
        let before = seen.surplus;
        let found = tokio::task::spawn_blocking(move || scan(&directory, &seen, &used)).await??;
        let mut library = lock(&status.library);
        library.seen.unsettled.clone_from(&found.unsettled);
        library.seen.surplus = found.surplus;
        if found.surplus > 0 && before == 0 {
            let (directory, surplus) = (self.directory.display(), found.surplus);
            tracing::error!(%directory, surplus, "there are too many plugins, the surplus is not looked at; remove some");
        }
        Ok(found)
    }

    /// Compiles a version off the control plane's thread.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn compile(&self, name: &str, bytes: Vec<u8>) -> Result<Loaded, String> {
        check_name(name)?;
        let compiler = Arc::clone(&self.compiler);
        let compiled = tokio::task::spawn_blocking(move || compile(&compiler, bytes)).await;
        compiled.unwrap_or_else(|panic| Err(format!("compiling it failed: {panic}")))
    }

    /// The last version of a plugin that served, compiled.
    pub async fn last_good(&self, name: &str) -> Option<Loaded> {
        check_name(name).ok()?;
        let bytes = self.cache.as_ref()?.last_good(name)?;
        self.compile(name, bytes).await.ok()
    }

    /// Keeps the bytes of a version that serves.
    pub fn keep_good(&self, name: &str, loaded: &Loaded) {
        if let Some(cache) = &self.cache {
            cache.keep_good(name, &loaded.bytes);
        }
    }

    /// Loads what is in the directory, at the start: the plugins that are used, and others until that takes too long.
    /// Waits for files that are still being written, but not for ever. True when there is more.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn load(&self, status: &Status, used: &BTreeSet<String>) -> std::io::Result<bool> {
        let started = Instant::now();
        loop {
            let found = self.scan(status, used).await?;
            for (name, change) in found.changes {
                self.load_one(status, used, name, change).await;
            }
            if found.unsettled.is_empty() && found.waiting.is_empty() {
                return Ok(false);
            }
            if started.elapsed() > UNSETTLED && found.waiting.is_disjoint(used) {
                let unsettled = found.unsettled.keys().filter(|name| !found.waiting.contains(*name));
                let files = unsettled.map(String::as_str).collect::<Vec<_>>().join(", ");
                let waiting = found.waiting.len();
                tracing::warn!(
                    files,
                    waiting,
                    "files that are still being written, and plugins that are not used, are taken up later"
                );
                return Ok(waiting > 0);
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn load_one(&self, status: &Status, used: &BTreeSet<String>, name: String, change: Change) {
        let (stamp, loaded) = match change {
            Change::Gone => return,
            Change::Unfit(stamp, reason) => (stamp, Err((None, reason))),
            Change::Content(stamp, bytes) => {
                let digest = Digest::of(&bytes);
                let loaded = match self.room_for(status, used, &name, bytes.len()) {
                    Ok(()) => self.compile(&name, bytes).await,
                    Err(reason) => Err(reason),
                };
                (stamp, loaded.map_err(|reason| (Some(digest), reason)))
            }
        };
        let mut library = lock(&status.library);
        library.seen.taken.insert(name.clone(), stamp);
        match loaded {
            Ok(loaded) => library.adopt(&name, loaded, None),
            Err((digest, reason)) => {
                tracing::error!(plugin = name, "a version is refused: {reason}");
                library.reject(&name, digest, reason);
            }
        }
    }

    /// Whether there is room in memory for a plugin; for one that is used there always is.
    ///
    /// # Errors
    /// What to do when there is none.
    pub fn room_for(
        &self,
        status: &Status,
        used: &BTreeSet<String>,
        name: &str,
        bytes: usize,
    ) -> Result<(), String> {
        if used.contains(name) { Ok(()) } else { lock(&status.library).room_for(name, bytes) }
    }
}

/// How long a start waits for files that are being written, and for plugins that are not used.
const UNSETTLED: Duration = Duration::from_secs(5);

fn compile(compiler: &Compiler, bytes: Vec<u8>) -> Result<Loaded, String> {
    let digest = Digest::of(&bytes);
    let module = compiler.compile(&bytes, &digest).map_err(|refusal| refusal.to_string())?;
    Ok(Loaded { digest, module, bytes: bytes.into() })
}

/// Below the user's cache folder, one for each plugin directory.
fn default_cache(directory: &Path) -> PathBuf {
    let from =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    let absolute = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = Digest::of(absolute.as_os_str().as_encoded_bytes()).hex();
    let name = name.get(..16).unwrap_or_default().to_owned();
    base.unwrap_or_else(std::env::temp_dir).join("weir").join(name)
}
