//! A snapshot: everything that traffic depends on, immutable, published whole.
//!
//! It is made from a configuration, the plugins that serve, and the snapshot before it: what has not changed
//! (clusters, plugin VMs, sockets) is the same object in both, so that connections and instances live on.

mod concerns;
mod making;
mod metrics;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::config::listener::{ConnectionLimits, ProxyProtocol};
use crate::net::admission::Admission;
use crate::net::tls::server::ServerTls;
use crate::plugin::filter::VmSpec;
use crate::plugin::spec::FilterSpec;
use crate::route::RouteTable;
use crate::telemetry::access_log::AccessLog;
use crate::upstream::cluster::Cluster;

pub use concerns::{Concern, Owner};
pub use making::{Made, Making};
pub use metrics::{FAILURES, ListenerMetrics};

/// Everything that traffic depends on.
pub struct Snapshot {
    /// Its number; each is larger than the one before.
    pub id: u64,
    /// The configuration that it was made from.
    pub config: Arc<Config>,
    /// Where traffic comes from.
    pub listeners: Vec<Arc<Listener>>,
    /// Where it goes.
    pub clusters: Vec<Arc<Cluster>>,
    /// The names of the clusters, for plugins.
    pub cluster_names: Arc<BTreeSet<Box<str>>>,
    /// The VMs of all filters.
    pub vms: Vec<Arc<VmSpec>>,
    /// Where the access log goes.
    pub access_log: Option<AccessLog>,
}

/// A listener.
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// The address as it is configured. Together with the name it is what a socket is known by.
    pub address: SocketAddr,
    /// Who says who the client is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What is done about TLS.
    pub tls: Tls,
    /// The network filters.
    pub filters: Vec<FilterUse>,
    /// What becomes of its connections.
    pub service: Service,
    /// What it grants to its connections.
    pub connections: ConnectionLimits,
    /// Who may have one more.
    pub admission: Arc<Admission>,
    /// What is counted.
    pub metrics: ListenerMetrics,
}

/// What a listener does about TLS.
pub enum Tls {
    /// Nothing.
    None,
    /// It reads the server name.
    Passthrough,
    /// It decrypts.
    Terminate(Arc<ServerTls>),
}

/// What becomes of a listener's connections.
#[expect(clippy::large_enum_variant, reason = "each listener has one, behind an Arc")]
pub enum Service {
    /// Bytes are relayed to this cluster (by its number), or to the one that a filter chooses.
    Tcp {
        /// The cluster when no filter chooses.
        cluster: Option<usize>,
    },
    /// HTTP.
    Http(HttpService),
}

/// HTTP on a listener.
pub struct HttpService {
    /// The routes.
    pub routes: RouteTable,
    /// The chains; a route has the number of its own. The first is that of requests without a route.
    pub chains: Vec<Vec<FilterUse>>,
    /// Limits.
    pub limits: crate::config::limits::Limits,
}

/// A filter in a chain: where it runs.
#[derive(Clone)]
pub struct FilterUse {
    /// What it is.
    pub spec: Arc<FilterSpec>,
    /// The VM that it lives in.
    pub vm: u64,
    /// Its root context there.
    pub root: u32,
}

/// By what a socket is known across snapshots: its configured address, so that a listener may change its name. Where
/// the kernel chooses the port the address says too little, and the name stands beside it.
pub type SocketKey = (Option<Arc<str>>, SocketAddr);

impl Listener {
    /// By what its sockets are known.
    pub fn socket_key(&self) -> SocketKey {
        ((self.address.port() == 0).then(|| Arc::clone(&self.name)), self.address)
    }

    /// Whether a socket is its own.
    pub fn owns(&self, (name, address): &SocketKey) -> bool {
        *address == self.address && name.as_ref().is_none_or(|name| *name == self.name)
    }
}

impl Snapshot {
    /// The same snapshot with other endpoints for one cluster.
    pub fn with_endpoints(&self, cluster: u64, endpoints: &Arc<[SocketAddr]>) -> Self {
        let replace = |known: &Arc<Cluster>| {
            if known.id == cluster {
                Arc::new(known.with_endpoints(Arc::clone(endpoints)))
            } else {
                Arc::clone(known)
            }
        };
        Self {
            id: self.id + 1,
            config: Arc::clone(&self.config),
            listeners: self.listeners.clone(),
            clusters: self.clusters.iter().map(replace).collect(),
            cluster_names: Arc::clone(&self.cluster_names),
            vms: self.vms.clone(),
            access_log: self.access_log.clone(),
        }
    }

    /// The number of a cluster.
    pub fn cluster_number(&self, name: &str) -> Option<usize> {
        self.clusters.iter().position(|cluster| &*cluster.name == name)
    }
}
