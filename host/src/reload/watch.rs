//! Tells when the plugin directory, the configuration file or certificates may have changed.
//!
//! The kernel tells at once; a look every two seconds makes up for file systems where it does not.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// How often to look even when nobody tells.
pub const LOOK: Duration = Duration::from_secs(2);

/// Watches for changes as long as it lives.
#[derive(Debug)]
pub struct Watch {
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched, or cannot be.
    known: HashSet<PathBuf>,
}

impl Watch {
    /// A watch of these folders. Where it cannot be set up, the regular look has to do.
    pub fn new(folders: &[&Path]) -> Self {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change of it.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                told.notify_one();
            }
        });
        let mut watch = Self { changed, watcher: None, known: HashSet::new() };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "changes are looked for every two seconds: no watch is to be had")
            }
        }
        folders.iter().for_each(|folder| watch.add(folder));
        watch
    }

    /// Watches one more folder.
    pub fn add(&mut self, folder: &Path) {
        // Without a plugin directory, its path is empty.
        if folder.as_os_str().is_empty() || !self.known.insert(folder.to_owned()) {
            return;
        }
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "changes are looked for every two seconds here");
        }
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        // Either way it is time to look.
        let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
    }
}
