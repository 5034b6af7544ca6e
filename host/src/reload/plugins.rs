//! Where plugins come from: the directory, the compiler, and the cache with the last good version of each.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::plugin::code_cache::CodeCache;
use crate::plugin::digest::Digest;
use crate::plugin::library::{Change, Loaded, SETTLE, Scan, scan};
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
                        (directory, Some(Workshop { cache, time, memory }))
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

    /// Looks for what is not as it was.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn scan(&self, status: &Status) -> std::io::Result<Scan> {
        if self.directory.as_os_str().is_empty() {
            return Ok(Scan::default());
        }
        let (directory, seen) = (self.directory.clone(), lock(&status.library).seen.clone());
        let found = tokio::task::spawn_blocking(move || scan(&directory, &seen)).await??;
        lock(&status.library).seen.unsettled.clone_from(&found.unsettled);
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
        let bytes = self.cache.as_ref()?.last_good(name)?;
        self.compile(name, bytes).await.ok()
    }

    /// Keeps the bytes of a version that serves.
    pub fn keep_good(&self, name: &str, loaded: &Loaded) {
        if let Some(cache) = &self.cache {
            cache.keep_good(name, &loaded.bytes);
        }
    }

    /// Loads everything that is in the directory, at the start. Waits for files that are still being written, but not
    /// for ever.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn load_all(&self, status: &Status) -> std::io::Result<()> {
        let started = Instant::now();
        loop {
            let found = self.scan(status).await?;
            for (name, change) in found.changes {
                let (stamp, loaded) = match change {
                    Change::Gone => continue,
                    Change::Unfit(stamp, reason) => (stamp, Err((None, reason))),
                    Change::Content(stamp, bytes) => {
                        let digest = Digest::of(&bytes);
                        (stamp, self.compile(&name, bytes).await.map_err(|reason| (Some(digest), reason)))
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
            if found.unsettled.is_empty() {
                return Ok(());
            }
            if started.elapsed() > UNSETTLED {
                let files: Vec<_> = found.unsettled.into_keys().collect();
                let plugins = files.join(", ");
                tracing::warn!(
                    plugins,
                    "files that are still being written are taken up once they are whole"
                );
                return Ok(());
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// How long a start waits for files that are being written.
const UNSETTLED: Duration = Duration::from_secs(5);

fn compile(compiler: &Compiler, bytes: Vec<u8>) -> Result<Loaded, String> {
    let digest = Digest::of(&bytes);
    let module = compiler.compile(&bytes, &digest).map_err(|refusal| refusal.to_string())?;
    Ok(Loaded { digest, module, bytes: bytes.into() })
}

/// A plugin's name is in paths, metrics and log lines.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(plain) && !name.starts_with('.') && name.len() <= 128 {
        return Ok(());
    }
    Err("its name may hold letters, digits, `-`, `_` and `.` only, and not begin with a dot; rename the file"
        .into())
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
