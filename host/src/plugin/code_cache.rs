//! Weir's private folder: compiled code, and the last good bytes of each plugin.
//!
//! ```text
//! code/WASM_DIGEST-ENGINE_HASH   SHA-256 of what follows, then what wasmtime compiled
//! good/NAME.wasm                 the bytes of the last version of NAME that served
//! good/NAME.wasm.sig             their signature, when one was asked for
//! ```
//!
//! The folder belongs to the user that runs Weir and nobody else may enter it (0700). Files are written beside
//! their place and renamed, so that none is ever half there. This is the one file of the host with unsafe code:
//! reading machine code back is as safe as the folder is private (docs/adr/0003-compiled-code-cache.md).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::{Engine, Module};

use crate::plugin::digest::Digest;

/// The folder.
#[derive(Debug, Clone)]
pub struct CodeCache {
    root: PathBuf,
}

const DIGEST: usize = 32;

/// Compiled versions that are kept.
const KEPT: usize = 64;

impl CodeCache {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to another user.
    pub fn open(root: &Path) -> io::Result<Self> {
        for folder in [root.to_owned(), root.join("code"), root.join("good")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let meta = fs::metadata(&folder)?;
            if meta.uid() != rustix::process::geteuid().as_raw() {
                let message =
                    format!("{} belongs to another user; choose another `plugins.cache`", folder.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            if meta.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Compiled code, when it is there and unharmed.
    pub fn load(&self, engine: &Engine, digest: &Digest) -> Option<Module> {
        let path = self.code(engine, digest);
        let bytes = read_private(&path).ok()?;
        let whole = bytes.split_at_checked(DIGEST).filter(|(sum, code)| Digest::of(code).0 == **sum);
        let module = whole.and_then(|(_, code)| deserialize(engine, code));
        if module.is_none() {
            tracing::warn!(%digest, "compiled code in the cache is damaged; compiling again");
        }
        // What is used stays; a file that cannot be marked goes a little early.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        module
    }

    /// Keeps compiled code. A cache that cannot be written costs time at the next start, and nothing else.
    pub fn store(&self, engine: &Engine, digest: &Digest, module: &Module) {
        let path = self.code(engine, digest);
        let stored = module.serialize().map_err(io::Error::other).and_then(|code| {
            let sum = Digest::of(&code);
            write_private(&path, &[&sum.0, &code])
        });
        if let Err(error) = stored {
            tracing::warn!(path = %path.display(), %error, "compiled code cannot be kept");
        }
        self.prune();
    }

    /// Removes the code that was not used for longest.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("code")) else { return };
        let used = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
        let mut files: Vec<_> = entries.filter_map(|entry| used(entry.ok()?)).collect();
        files.sort();
        let surplus = files.len().saturating_sub(KEPT);
        for (_, path) in files.iter().take(surplus) {
            // What cannot be removed takes room, and nothing else.
            let _ = fs::remove_file(path);
        }
    }

    /// The bytes of a plugin that served last, and their signature.
    pub fn last_good(&self, plugin: &str) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let bytes = read_private(&self.good(plugin)).ok()?;
        Some((bytes, read_private(&self.good_signature(plugin)).ok()))
    }

    /// Keeps the bytes of a plugin that serves, and their signature.
    pub fn keep_good(&self, plugin: &str, bytes: &[u8], signature: Option<&[u8]>) {
        let is_kept =
            |(kept, beside): (Vec<u8>, Option<Vec<u8>>)| kept == bytes && beside.as_deref() == signature;
        if self.last_good(plugin).is_some_and(is_kept) {
            // Nearly always, at a start: to write waits for the disk.
            return;
        }
        let path = self.good(plugin);
        let beside = self.good_signature(plugin);
        let signed = match signature {
            Some(signature) => write_private(&beside, &[signature]),
            None => fs::remove_file(&beside)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }),
        };
        if let Err(error) = signed.and_then(|()| write_private(&path, &[bytes])) {
            tracing::warn!(path = %path.display(), %error, "the last good version cannot be kept");
        }
    }

    fn code(&self, engine: &Engine, digest: &Digest) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.root.join("code").join(format!("{}-{:016x}", digest.hex(), hasher.finish()))
    }

    /// A plugin's name is a file stem: it holds no separator.
    fn good(&self, plugin: &str) -> PathBuf {
        self.root.join("good").join(format!("{plugin}.wasm"))
    }

    fn good_signature(&self, plugin: &str) -> PathBuf {
        self.root.join("good").join(format!("{plugin}.wasm.sig"))
    }
}

#[expect(unsafe_code, reason = "docs/adr/0003-compiled-code-cache.md")]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Module> {
    // SAFETY: the bytes come from a file of ours in a folder that only this user can enter, their digest was
    // checked a moment ago in the very memory that is read here, and wasmtime refuses what another version or
    // configuration of it wrote.
    unsafe { Module::deserialize(engine, code) }.ok()
}

fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// More than the code of any plugin that is not refused for its size.
const MAX_FILE: u64 = 1 << 30;

fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_data()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // What is left of it is of no use.
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_kept_already_is_not_written_again_and_anything_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = CodeCache::open(&folder.path().join("cache")).expect("a cache");
        let keep = |bytes: &[u8], signature: Option<&[u8]>| {
            cache.keep_good("p", bytes, signature);
            let kept = cache.last_good("p").expect("it is kept");
            assert_eq!((&*kept.0, kept.1.as_deref()), (bytes, signature));
            // Each file that is written is a new one.
            fs::metadata(cache.good("p")).expect("it is there").ino()
        };
        let first = keep(b"one", None);
        assert_eq!(keep(b"one", None), first);
        let signed = keep(b"one", Some(b"signature"));
        assert_ne!(signed, first);
        assert_eq!(keep(b"one", Some(b"signature")), signed);
        assert_ne!(keep(b"two", Some(b"signature")), signed);
        keep(b"two", None);
    }
}
