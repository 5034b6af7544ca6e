//! Putting a snapshot in force: sockets for what is new, and every worker told.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::proxy::worker::{Order, Publish};
use crate::reload::Control;
use crate::reload::prepare::Prepared;
use crate::reload::sockets::Bound;
use crate::reload::status::lock;
use crate::snapshot::{Snapshot, SocketKey};

impl Control {
    /// Binds the addresses that are new: one socket for each worker, or those that were given.
    pub(super) fn bind(&mut self, config: &Config, snapshot: &Snapshot) -> Result<Bound, Vec<Problem>> {
        let bound = lock(&self.status.bound);
        let mut problems = Vec::new();
        let mut sockets = Vec::new();
        for (listener, section) in snapshot.listeners.iter().zip(&config.sections.listeners) {
            let key = listener.socket_key();
            if bound.contains_key(&key) {
                continue;
            }
            match self.sockets.bind(&listener.name, listener.address, self.workers.len()) {
                Ok(list) => sockets.push((key, list)),
                Err(error) => problems.push(config.problem(&section.address.place, error.to_string())),
            }
        }
        if problems.is_empty() { Ok(sockets) } else { Err(problems) }
    }

    /// Hands a snapshot to every worker, and waits until it is in force everywhere.
    pub(super) async fn publish(&mut self, prepared: Prepared, sockets: Bound) {
        let snapshot = Arc::new(prepared.snapshot);
        let mut instances = prepared.instances.into_iter();
        let mut by_worker: Vec<Vec<(SocketKey, TcpListener)>> =
            self.workers.iter().map(|_| Vec::new()).collect();
        {
            let mut bound = lock(&self.status.bound);
            for (key, list) in sockets {
                if let Some(address) = list.first().and_then(|socket| socket.local_addr().ok()) {
                    let listener = snapshot.listeners.iter().find(|known| known.socket_key() == key);
                    let listener = listener.map_or("", |listener| &listener.name);
                    tracing::info!(listener, %address, "listening");
                    bound.insert(key.clone(), address);
                    self.sockets.keep(listener, &key, &list);
                }
                // There may be more sockets than workers: those of a process that had more.
                for (at, socket) in list.into_iter().enumerate() {
                    let turn = at % self.workers.len().max(1);
                    if let Some(own) = by_worker.get_mut(turn) {
                        own.push((key.clone(), socket));
                    }
                }
            }
            let is_there =
                |key: &SocketKey| snapshot.listeners.iter().any(|known| known.socket_key() == *key);
            bound.retain(|key, _| is_there(key));
            self.sockets.retain(is_there);
        }
        let mut waiting = Vec::new();
        for (worker, sockets) in self.workers.iter().zip(by_worker) {
            let (done, published) = oneshot::channel();
            let instances = instances.next().unwrap_or_default();
            let publish = Publish { snapshot: Arc::clone(&snapshot), instances, sockets, done };
            // A worker that is gone is about to take the process with it.
            if worker.orders.send(Order::Publish(publish)).is_ok() {
                waiting.push(published);
            }
        }
        for published in waiting {
            let _ = published.await;
        }
        let before = lock(&self.status.snapshot).replace(Arc::clone(&snapshot));
        self.tell_of_certificates(before.as_deref(), &snapshot);
    }
}
