//! A cluster as a snapshot holds it: immutable, shared by all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::cluster::{Cluster as ClusterConfig, Endpoint, Protocol};
use crate::config::metadata::ClusterFacts;
use crate::net::private;
use crate::net::tls::client::{ClientTls, Offer};
use crate::telemetry::metrics::{Counter, Gauge, Registry};
use crate::telemetry::seldom::Seldom;
use crate::upstream::outlier::Outliers;

/// A group of endpoints that serve the same thing.
pub struct Cluster {
    /// A number that stays the same as long as the configuration does, whatever its endpoints resolve to.
    pub id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its configuration.
    pub config: ClusterConfig,
    /// Its name and its metadata, as streams share them.
    pub facts: Arc<ClusterFacts>,
    /// Its endpoints, with names resolved.
    pub endpoints: Arc<[SocketAddr]>,
    /// Which of them keep failing.
    pub outliers: Arc<Outliers>,
    /// TLS towards the endpoints.
    pub tls: Option<Arc<ClientTls>>,
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
    /// Requests that were answered, by the class of the status: 1xx to 5xx.
    pub responses: [Counter; 5],
    /// Requests that failed without an answer.
    pub failures: Counter,
    /// Requests that were tried again on another endpoint.
    pub retries: Counter,
    /// Those that were not, since too many were.
    pub retries_refused: Counter,
    /// Endpoints that were left out.
    pub ejections: Counter,
    /// Calls of plugins that were not let to a private address.
    pub private: Counter,
    /// When that was last told.
    pub private_told: Arc<Seldom>,
}

impl ClusterMetrics {
    fn new(registry: &Registry, cluster: &str) -> Self {
        let labels = [("cluster", cluster)];
        Self {
            connects: registry.counter(
                "weir_upstream_connects_total",
                "Connections made to endpoints.",
                &labels,
            ),
            connect_failures: registry.counter(
                "weir_upstream_connect_failures_total",
                "Connections that could not be made.",
                &labels,
            ),
            connections: registry.gauge("weir_upstream_connections", "Connections that are open.", &labels),
            responses: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
                let labels = [("cluster", cluster), ("code", code)];
                registry.counter(
                    "weir_upstream_responses_total",
                    "Answers of endpoints, by class of status.",
                    &labels,
                )
            }),
            retries: registry.counter(
                "weir_upstream_retries_total",
                "Requests that were tried again on another endpoint.",
                &labels,
            ),
            retries_refused: registry.counter(
                "weir_upstream_retries_over_budget_total",
                "Requests that were not tried again, since too many were.",
                &labels,
            ),
            ejections: registry.counter(
                "weir_upstream_ejections_total",
                "Endpoints that were left out for a while, since they kept failing.",
                &labels,
            ),
            private: registry.counter(
                "weir_upstream_private_refused_total",
                "Calls of plugins that a name would have led to a private address.",
                &labels,
            ),
            private_told: Arc::default(),
            failures: registry.counter(
                "weir_upstream_failures_total",
                "Requests that no endpoint answered.",
                &labels,
            ),
        }
    }
}

impl Cluster {
    /// A cluster of a configuration. Endpoints that are names have no addresses yet.
    pub fn new(config: &ClusterConfig, tls: Option<Arc<ClientTls>>, registry: &Registry) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let fixed = config.endpoints.iter().filter_map(|endpoint| match endpoint {
            Endpoint::Address(address) => Some(*address),
            Endpoint::Dns { .. } => None,
        });
        let endpoints: Arc<[SocketAddr]> = fixed.collect();
        let name: Arc<str> = config.name.as_str().into();
        let facts = ClusterFacts { name: Arc::clone(&name), metadata: config.metadata.clone() };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            outliers: Outliers::new(&endpoints, None),
            endpoints,
            tls,
            metrics: ClusterMetrics::new(registry, &config.name),
            config: config.clone(),
            facts: Arc::new(facts),
        }
    }

    /// Why a plugin's call may not go to an endpoint, when it may not: a name stands for it, and it is private.
    pub fn forbids_calls_to(&self, address: SocketAddr) -> Option<&'static str> {
        let written =
            |endpoint: &Endpoint| matches!(endpoint, Endpoint::Address(written) if *written == address);
        if self.config.allow_private || self.config.endpoints.iter().any(written) {
            return None;
        }
        private::kind(address.ip())
    }

    /// The same cluster with other certificates.
    pub fn with_tls(&self, tls: Arc<ClientTls>) -> Self {
        let same = self.with_endpoints(Arc::clone(&self.endpoints));
        Self { outliers: Arc::clone(&self.outliers), tls: Some(tls), ..same }
    }

    /// The same cluster with other endpoints.
    pub fn with_endpoints(&self, endpoints: Arc<[SocketAddr]>) -> Self {
        Self {
            id: self.id,
            name: Arc::clone(&self.name),
            config: self.config.clone(),
            facts: Arc::clone(&self.facts),
            outliers: Outliers::new(&endpoints, Some(&self.outliers)),
            endpoints,
            tls: self.tls.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// What a cluster offers to its endpoints in the TLS handshake.
pub fn offer(config: &ClusterConfig) -> Offer {
    match config.protocol {
        Protocol::Http1 => Offer::Http1,
        Protocol::Http2 => Offer::Http2,
        Protocol::Auto => Offer::Both,
    }
}

/// What to call the endpoints in TLS when the configuration does not say: their DNS name, when they have one.
pub fn endpoint_name(config: &ClusterConfig) -> Option<&str> {
    config.endpoints.iter().find_map(Endpoint::dns_name)
}
