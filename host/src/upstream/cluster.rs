//! A cluster as a snapshot holds it: immutable, shared by all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::cluster::{Cluster as ClusterConfig, Endpoint};
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// A group of endpoints that serve the same thing.
#[derive(Debug)]
pub struct Cluster {
    /// A number that stays the same as long as the configuration does, whatever its endpoints resolve to.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its configuration.
    pub config: ClusterConfig,
    /// Its endpoints, with names resolved.
    pub endpoints: Arc<[SocketAddr]>,
    /// What is counted.
    pub metrics: ClusterMetrics,
}

/// What is counted of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    /// Connections that were made.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Connections that are open.
    pub connections: Gauge,
}

impl ClusterMetrics {
    fn new(registry: &Registry, cluster: &str) -> Self {
        let labels = [("cluster", cluster)];
        Self {
            connects: registry.counter("weir_upstream_connects_total", "Connections made to endpoints.", &labels),
            connect_failures: registry.counter(
                "weir_upstream_connect_failures_total",
                "Connections that could not be made.",
                &labels,
            ),
            connections: registry.gauge("weir_upstream_connections", "Connections that are open.", &labels),
        }
    }
}

impl Cluster {
    /// A cluster of a configuration. Endpoints that are names have no addresses yet.
    pub fn new(config: &ClusterConfig, registry: &Registry) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let fixed = config.endpoints.iter().filter_map(|endpoint| match endpoint {
            Endpoint::Address(address) => Some(*address),
            Endpoint::Dns { .. } => None,
        });
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: config.name.as_str().into(),
            endpoints: fixed.collect(),
            metrics: ClusterMetrics::new(registry, &config.name),
            config: config.clone(),
        }
    }

    /// The same cluster with other endpoints.
    pub fn with_endpoints(&self, endpoints: Arc<[SocketAddr]>) -> Self {
        Self {
            id: self.id,
            name: Arc::clone(&self.name),
            config: self.config.clone(),
            endpoints,
            metrics: self.metrics.clone(),
        }
    }
}
