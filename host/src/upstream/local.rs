//! A cluster on one worker: whose turn it is, and connections.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::balance::{Balancer, balancer};
use crate::clock::Timers;
use crate::net::stream::Stream;
use crate::telemetry::metrics::Held;
use crate::upstream::cluster::Cluster;

/// A cluster on one worker. It outlives the snapshots in which the cluster is the same.
pub struct LocalCluster {
    current: RefCell<Arc<Cluster>>,
    balancer: Box<dyn Balancer>,
    timers: Rc<Timers>,
}

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It has no endpoints; names did not resolve.
    #[error("cluster `{0}` has no endpoints")]
    NoEndpoints(Arc<str>),
    /// The endpoint did not answer in time.
    #[error("{address} of cluster `{cluster}` did not answer in time")]
    Timeout {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: SocketAddr,
    },
    /// The endpoint refused.
    #[error("{address} of cluster `{cluster}`: {error}")]
    Failed {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The endpoint.
    pub address: SocketAddr,
    /// The connection.
    pub stream: Stream,
    /// Counts it as open.
    pub open: Held,
}

impl LocalCluster {
    /// A cluster on the worker whose timers these are.
    pub fn new(cluster: Arc<Cluster>, timers: &Rc<Timers>) -> Rc<Self> {
        let balancer = balancer(cluster.config.balance);
        Rc::new(Self { current: RefCell::new(cluster), balancer, timers: Rc::clone(timers) })
    }

    /// Takes the same cluster with other endpoints.
    pub fn update(&self, cluster: &Arc<Cluster>) {
        *self.current.borrow_mut() = Arc::clone(cluster);
    }

    /// The cluster as it is now.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.current.borrow())
    }

    /// Makes a connection of its own to the endpoint whose turn it is.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<Connected, ConnectError> {
        let cluster = self.cluster();
        let name = || Arc::clone(&cluster.name);
        let picked = self.balancer.pick(&cluster.endpoints).and_then(|at| cluster.endpoints.get(at));
        let Some(&address) = picked else { return Err(ConnectError::NoEndpoints(name())) };
        let timer = self.timers.timer();
        timer.set(cluster.config.connect_timeout);
        let error = match timer.limit(TcpStream::connect(address)).await {
            Some(Ok(socket)) => {
                cluster.metrics.connects.inc();
                // Small writes are not to wait for each other; a socket that cannot do it works all the same.
                let _ = socket.set_nodelay(true);
                let open = cluster.metrics.connections.hold();
                return Ok(Connected { address, stream: Stream::Tcp(socket), open });
            }
            Some(Err(error)) => ConnectError::Failed { cluster: name(), address, error },
            None => ConnectError::Timeout { cluster: name(), address },
        };
        cluster.metrics.connect_failures.inc();
        Err(error)
    }
}
