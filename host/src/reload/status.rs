//! Where things stand, for those who look on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::plugin::library::Library;
use crate::snapshot::{Snapshot, SocketKey};

/// What the admin API may look at.
pub struct Status {
    /// The snapshot in force.
    pub snapshot: Mutex<Option<Arc<Snapshot>>>,
    /// The plugins.
    pub library: Mutex<Library>,
    /// Where the listeners really listen.
    pub bound: Mutex<HashMap<SocketKey, SocketAddr>>,
    /// Why the last reload of the configuration failed, when it did.
    pub rejected: Mutex<Option<String>>,
    /// The sections of the configuration that take effect at the next start only.
    pub needs_restart: Mutex<Vec<&'static str>>,
    /// Where the process stands.
    pub phase: Mutex<Phase>,
}

/// Where the process stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not every listener serves yet.
    #[default]
    Starting,
    /// Every listener serves.
    Serving,
    /// No new work is taken.
    Draining,
}

impl Status {
    /// Nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            snapshot: Mutex::default(),
            library: Mutex::default(),
            bound: Mutex::default(),
            rejected: Mutex::default(),
            needs_restart: Mutex::default(),
            phase: Mutex::default(),
        })
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        lock(&self.snapshot).clone()
    }
}

/// Locks; a thread that died while it held the lock left nothing half done that would matter here.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
