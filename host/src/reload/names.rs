//! Endpoints that are names: resolved before a cluster is first published, and then again and again for as long as
//! it is in force.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::snapshot::Snapshot;
use crate::upstream::cluster::Cluster;
use crate::upstream::discovery::{Discovery, Resolved, has_names};

/// The endpoints of a cluster are others now.
#[derive(Debug)]
pub struct Moved {
    /// The cluster, by its id.
    pub cluster: u64,
    /// Its endpoints.
    pub endpoints: Arc<[SocketAddr]>,
}

/// The clusters whose names are being resolved.
pub struct Names {
    discovery: Discovery,
    moved: UnboundedSender<Moved>,
    tasks: HashMap<u64, JoinHandle<()>>,
}

/// How long the first answers may be waited for; a name that takes longer is published without endpoints.
const PATIENCE: Duration = Duration::from_secs(5);

impl Names {
    /// Nothing yet. What changes later is told through `moved`.
    pub fn new(discovery: Discovery, moved: UnboundedSender<Moved>) -> Self {
        Self { discovery, moved, tasks: HashMap::new() }
    }

    /// Resolves the clusters of a snapshot that are new, watches them from now on, and forgets those that are gone.
    pub async fn follow(&mut self, snapshot: &mut Snapshot) {
        let mut first = Vec::new();
        for (at, cluster) in snapshot.clusters.iter().enumerate() {
            if has_names(&cluster.config) && !self.tasks.contains_key(&cluster.id) {
                let (discovery, cluster) = (self.discovery.clone(), Arc::clone(cluster));
                first.push((
                    at,
                    tokio::spawn(async move {
                        let mut last = HashMap::new();
                        let resolved =
                            tokio::time::timeout(PATIENCE, discovery.resolve(&cluster.config, &mut last))
                                .await;
                        (resolved.ok(), last)
                    }),
                ));
            }
        }
        for (at, resolving) in first {
            let Some(slot) = snapshot.clusters.get_mut(at) else { continue };
            let (resolved, last) = resolving.await.unwrap_or_default();
            if let Some(resolved) = &resolved {
                complain(slot, resolved);
                *slot = Arc::new(slot.with_endpoints(Arc::clone(&resolved.endpoints)));
            }
            let again = resolved.map_or(Duration::ZERO, |resolved| resolved.again);
            self.watch(Arc::clone(slot), last, again);
        }
        self.tasks.retain(|id, task| {
            let kept = snapshot.clusters.iter().any(|cluster| cluster.id == *id);
            if !kept {
                task.abort();
            }
            kept
        });
    }

    fn watch(&mut self, cluster: Arc<Cluster>, mut last: HashMap<String, Vec<IpAddr>>, mut again: Duration) {
        let (discovery, moved) = (self.discovery.clone(), self.moved.clone());
        let id = cluster.id;
        let task = tokio::spawn(async move {
            let mut endpoints = Arc::clone(&cluster.endpoints);
            loop {
                tokio::time::sleep(again).await;
                let resolved = discovery.resolve(&cluster.config, &mut last).await;
                complain(&cluster, &resolved);
                again = resolved.again;
                if resolved.endpoints != endpoints {
                    endpoints = Arc::clone(&resolved.endpoints);
                    tracing::info!(cluster = &*cluster.name, ?endpoints, "the endpoints have changed");
                    let told = moved.send(Moved { cluster: id, endpoints: Arc::clone(&endpoints) });
                    if told.is_err() {
                        return;
                    }
                }
            }
        });
        self.tasks.insert(id, task);
    }
}

fn complain(cluster: &Cluster, resolved: &Resolved) {
    for (name, reason) in &resolved.failures {
        let cluster = &*cluster.name;
        tracing::warn!(cluster, name, "cannot be resolved, the last answer stays in force: {reason}");
    }
}
