//! Where plugins come from: the directory, the compiler, and the cache with the last good version of each.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::config::value::Spanned;
use crate::plugin::code_cache::CodeCache;
use crate::plugin::digest::Digest;
use crate::plugin::directory::{Change, Content, Purpose, SETTLE, Scan, check_name, scan};
use crate::plugin::library::Loaded;
use crate::plugin::module::Compiler;
use crate::plugin::signatures::{Keys, public_key};
use crate::plugin::workshop::Workshop;
use crate::reload::status::{Status, lock};

/// The plugin directory and what belongs to it.
#[derive(Clone)]
pub struct Shelf {
    directory: PathBuf,
    compiler: Arc<Compiler>,
    cache: Option<CodeCache>,
    /// By one of which every plugin has to be signed.
    keys: Option<Keys>,
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
        let keys = match read_keys(config) {
            Ok(keys) => keys,
            Err(problem) => return Ok(Err(problem)),
        };
        let cache = workshop.as_ref().map(|workshop| workshop.cache.clone());
        let compiler = Arc::new(Compiler::new(engine, workshop)?);
        Ok(Ok(Self { directory, compiler, cache, keys }))
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
        let (directory, seen) = (self.directory.clone(), lock(&status.library).seen.clone());
        let purpose = Purpose { used: used.clone(), signed: self.keys.is_some() };
        let before = seen.surplus;
        let found = tokio::task::spawn_blocking(move || scan(&directory, &seen, &purpose)).await??;
        let mut library = lock(&status.library);
        library.seen.unsettled.clone_from(&found.unsettled);
        library.seen.surplus = found.surplus;
        if found.surplus > 0 && before == 0 {
            let (directory, surplus) = (self.directory.display(), found.surplus);
            tracing::error!(%directory, surplus, "there are too many plugins, the surplus is not looked at; remove some");
        }
        Ok(found)
    }

    /// Hands back a version that bears a signature, or need not.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub async fn verify(&self, name: &str, content: Content) -> Result<Content, String> {
        let Some(keys) = self.keys.clone() else { return Ok(content) };
        let name = name.to_owned();
        let work = move || {
            let signature = content.signature.as_deref().map_err(String::as_str);
            keys.verify(&name, &content.bytes, signature).map(|()| content)
        };
        let verified = tokio::task::spawn_blocking(work).await;
        verified.unwrap_or_else(|panic| Err(format!("looking at its signature failed: {panic}")))
    }

    /// Compiles a version off the control plane's thread, once it is known whose it is.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn compile(&self, name: &str, content: Content) -> Result<Loaded, String> {
        check_name(name)?;
        let content = self.verify(name, content).await?;
        let compiler = Arc::clone(&self.compiler);
        let compiled = tokio::task::spawn_blocking(move || compile(&compiler, content)).await;
        compiled.unwrap_or_else(|panic| Err(format!("compiling it failed: {panic}")))
    }

    /// The last version of a plugin that served, compiled. It has to bear a signature by a key of today, too.
    pub async fn last_good(&self, name: &str) -> Option<Loaded> {
        check_name(name).ok()?;
        let (bytes, signature) = self.cache.as_ref()?.last_good(name)?;
        let signature =
            signature.ok_or_else(|| "it was not kept with the last version that served".to_owned());
        self.compile(name, Content { bytes, signature }).await.ok()
    }

    /// Keeps the bytes of a version that serves.
    pub fn keep_good(&self, name: &str, loaded: &Loaded) {
        if let Some(cache) = &self.cache {
            cache.keep_good(name, &loaded.bytes, loaded.signature.as_deref());
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
                let plugins = unsettled.map(String::as_str).collect::<Vec<_>>().join(", ");
                if !plugins.is_empty() {
                    tracing::warn!(
                        plugins,
                        "files that are still being written are taken up once they are whole"
                    );
                }
                let waiting = found.waiting.len();
                if waiting > 0 {
                    tracing::warn!(waiting, "plugins that nobody uses are taken up after the start");
                }
                return Ok(waiting > 0);
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn load_one(&self, status: &Status, used: &BTreeSet<String>, name: String, change: Change) {
        let (stamp, loaded) = match change {
            Change::Gone => return,
            Change::Unfit(stamp, reason) => (stamp, Err((None, reason))),
            Change::Content(stamp, content) => {
                let digest = Digest::of(&content.bytes);
                let loaded = match self.room_for(status, used, &name, content.bytes.len()) {
                    Ok(()) => self.compile(&name, content).await,
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

fn compile(compiler: &Compiler, content: Content) -> Result<Loaded, String> {
    let Content { bytes, signature } = content;
    let digest = Digest::of(&bytes);
    let module = compiler.compile(&bytes, &digest).map_err(|refusal| refusal.to_string())?;
    Ok(Loaded { digest, module, bytes: bytes.into(), signature: signature.ok().map(Arc::from) })
}

/// The keys that a configuration names; `None` when no signatures are asked for.
fn read_keys(config: &Config) -> Result<Option<Keys>, Problem> {
    let named = config.sections.plugins.as_ref().and_then(|plugins| plugins.require_signature.as_ref());
    let Some(named) = named else { return Ok(None) };
    if named.is_empty() {
        let message = "no key is named, so that no plugin could be loaded; name one, or leave the field out";
        return Err(config.problem(&named.place, message));
    }
    let folder = config.file.parent().unwrap_or(Path::new(""));
    let read = |key: &Spanned<String>| {
        public_key(key, folder).map_err(|message| config.problem(&key.place, message))
    };
    named.iter().map(read).collect::<Result<_, _>>().map(|keys| Some(Keys::new(keys)))
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
