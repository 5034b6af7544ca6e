//! A cluster on one worker: whose turn it is, and its connections, which no other worker shares.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::balance::{Balancer, balancer};
use crate::clock::{Timers, coarse_millis};
use crate::config::cluster::Protocol;
use crate::http::{h1, h2};
use crate::net::proxy_protocol::Header;
use crate::net::stream::Stream;
use crate::net::tls::H2;
use crate::upstream::clients::Clients;
use crate::upstream::cluster::Cluster;
use crate::upstream::connection::{
    Client, ConnectError, Connected, Ends, Http1, HttpConnection, Place, Wanted,
};
use crate::upstream::retry::Budget;

/// A cluster on one worker. It outlives the snapshots in which the cluster is the same.
pub struct LocalCluster {
    current: RefCell<Arc<Cluster>>,
    balancer: Box<dyn Balancer>,
    timers: Rc<Timers>,
    /// How many requests may be tried again.
    budget: Budget,
    /// HTTP/1 connections that nobody uses; the last to come is the first to go.
    idle: RefCell<FxHashMap<Place, Idle>>,
    /// HTTP/2 connections, which many streams share.
    shared: RefCell<FxHashMap<Place, (h2::Client, Ends)>>,
    /// Where it is noted for which clients it keeps connections.
    clients: Rc<Clients>,
    /// Itself.
    this: Weak<Self>,
    /// How often it has changed which endpoints are trusted: connections of before are not used again.
    trust: Cell<u64>,
}

/// How long an unused connection is kept, in milliseconds.
const IDLE: u64 = 60_000;

/// How long it keeps its buffers, in milliseconds.
const REST: u64 = 1_000;

/// Unused connections that are kept for each endpoint.
const MOST_IDLE: usize = 256;

/// Connections that carry nothing at the moment, and since when, in coarse milliseconds.
type Idle = Vec<(Box<Http1>, u64)>;

/// Whether a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// On another endpoint.
    Elsewhere,
    /// No: too many requests are already.
    OverBudget,
    /// No: there is no other endpoint.
    Nowhere,
}

impl LocalCluster {
    /// A cluster on the worker whose timers and clients these are.
    pub fn new(cluster: Arc<Cluster>, timers: &Rc<Timers>, clients: &Rc<Clients>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            balancer: balancer(cluster.config.balance),
            current: RefCell::new(cluster),
            timers: Rc::clone(timers),
            budget: Budget::default(),
            idle: RefCell::default(),
            shared: RefCell::default(),
            clients: Rc::clone(clients),
            this: Weak::clone(this),
            trust: Cell::default(),
        })
    }

    /// Takes the same cluster with other endpoints, or other certificates. Connections go on; but to whom may not be
    /// trusted any more, nothing new is sent.
    pub fn update(&self, cluster: &Arc<Cluster>) {
        let before = self.current.replace(Arc::clone(cluster));
        if let (Some(before), Some(now)) = (&before.tls, &cluster.tls)
            && !now.trusts_same(before)
        {
            self.trust.set(self.trust.get() + 1);
            self.idle.borrow_mut().clear();
            self.shared.borrow_mut().clear();
        }
        self.idle.borrow_mut().retain(|(address, _), _| cluster.endpoints.contains(address));
        self.shared.borrow_mut().retain(|(address, _), _| cluster.endpoints.contains(address));
    }

    /// A client has gone: the connections to an endpoint that were told of it are of no use to others.
    pub fn client_gone(&self, client: u64, endpoint: SocketAddr) {
        let place = (endpoint, Some(client));
        self.idle.borrow_mut().remove(&place);
        self.shared.borrow_mut().remove(&place);
    }

    /// Takes note of a connection that is kept, where it is one client's own.
    fn note(&self, (endpoint, client): Place) {
        if let Some(client) = client {
            self.clients.note(client, &self.this, endpoint);
        }
    }

    /// The cluster as it is now.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.current.borrow())
    }

    /// How many endpoints it has now.
    pub fn endpoints(&self) -> usize {
        self.current.borrow().endpoints.len()
    }

    /// Drops connections that have been idle for too long, or that the endpoint has closed. Those that are kept give their buffers
    /// back, unless they were used a moment ago.
    pub fn sweep(&self) {
        let now = coarse_millis();
        let keep = |(http, since): &(Box<Http1>, u64)| {
            let idle = now.saturating_sub(*since);
            if idle >= REST {
                http.connection.rest();
            }
            idle < IDLE && http.connection.is_reusable()
        };
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(keep);
            !idle.is_empty()
        });
        self.shared.borrow_mut().retain(|_, (client, _)| client.is_open());
    }

    /// The endpoint whose turn it is. One that keeps failing is passed over, unless all do.
    fn pick(&self, cluster: &Cluster, avoid: Option<SocketAddr>) -> Result<SocketAddr, ConnectError> {
        let next = || {
            let picked = self.balancer.pick(&cluster.endpoints).and_then(|at| cluster.endpoints.get(at));
            picked.copied().ok_or_else(|| ConnectError::NoEndpoints(Arc::clone(&cluster.name)))
        };
        let mut second_best = next()?;
        let mut picked = second_best;
        for _ in 0..cluster.endpoints.len() {
            if Some(picked) != avoid {
                if !cluster.outliers.is_ejected(picked) {
                    return Ok(picked);
                }
                second_best = picked;
            }
            picked = next()?;
        }
        Ok(second_best)
    }

    /// A request begins.
    pub fn count_request(&self) {
        self.budget.earn(self.current.borrow().config.retry_budget.0);
    }

    /// Whether a request that failed on an endpoint may be tried again on another one. It is counted.
    pub fn retry(&self, failed: SocketAddr) -> Retry {
        let cluster = self.current.borrow();
        if cluster.endpoints.iter().all(|address| *address == failed) {
            Retry::Nowhere
        } else if self.budget.take(cluster.config.retry_budget.0) {
            cluster.metrics.retries.inc();
            Retry::Elsewhere
        } else {
            cluster.metrics.retries_refused.inc();
            Retry::OverBudget
        }
    }

    /// An endpoint has answered.
    pub fn succeeded(&self, address: SocketAddr) {
        self.current.borrow().outliers.succeeded(address);
    }

    /// An endpoint has failed an exchange.
    pub fn failed(&self, address: SocketAddr) {
        let cluster = self.current.borrow();
        if cluster.outliers.failed(address, &cluster.config.outlier_detection) {
            cluster.metrics.ejections.inc();
            let time = cluster.config.outlier_detection.base_ejection_time;
            tracing::warn!(cluster = &*cluster.name, %address, ?time, "an endpoint keeps failing and is left out");
        }
    }

    /// The endpoint whose turn it is for a plugin's call. The address that is looked at is the one that is connected to,
    /// whatever the name stands for a moment later.
    fn pick_for_call(&self, cluster: &Cluster) -> Result<SocketAddr, ConnectError> {
        let mut address = self.pick(cluster, None)?;
        let mut forbidden = cluster.forbids_calls_to(address);
        for _ in 1..cluster.endpoints.len() {
            if forbidden.is_none() {
                break;
            }
            address = self.pick(cluster, None)?;
            forbidden = cluster.forbids_calls_to(address);
        }
        let Some(kind) = forbidden else { return Ok(address) };
        let refused = ConnectError::Private { cluster: Arc::clone(&cluster.name), address, kind };
        cluster.metrics.private.inc();
        if cluster.metrics.private_told.now() {
            tracing::warn!("{refused}");
        }
        Err(refused)
    }

    /// A connection for the bytes of a client, to the endpoint whose turn it is.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, client: Client) -> Result<Connected, ConnectError> {
        let cluster = self.cluster();
        let address = self.pick(&cluster, None)?;
        let work = self.as_trusted(&cluster, async |cluster| {
            let socket = dial(cluster, address, Some(client)).await?;
            match &cluster.tls {
                None => Ok((Stream::Tcp(socket), None)),
                Some(tls) => tls.connect_tcp(socket).await.map(|(stream, tls)| (stream, Some(tls))),
            }
        });
        let made = self.in_time(&cluster, address, work).await;
        let (stream, tls) = made.inspect_err(|_| self.failed(address))?;
        let ends = Ends { local: stream.local_addr(), tls: tls.map(Arc::new) };
        Ok(Connected { address, ends, stream, open: cluster.metrics.connections.hold() })
    }

    /// A connection for an exchange, to the endpoint whose turn it is: one that is there, or a new one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect_http(&self, wanted: Wanted) -> Result<HttpConnection, ConnectError> {
        let (cluster, place) = {
            let cluster = self.current.borrow();
            let address = match wanted.called {
                true => self.pick_for_call(&cluster),
                false => self.pick(&cluster, wanted.avoid),
            }?;
            let client = wanted.client.filter(|_| cluster.config.proxy_protocol.is_some());
            let place = (address, client.map(|client| client.id));
            if let Some(there) = self.reuse(place, &wanted) {
                return Ok(there);
            }
            (Arc::clone(&cluster), place)
        };
        // In a box, so that the many exchanges that find a connection do not take the memory of making one.
        Box::pin(self.make_http(cluster, place, wanted)).await
    }

    /// A connection that is there.
    fn reuse(&self, place: Place, wanted: &Wanted) -> Option<HttpConnection> {
        if !wanted.fresh
            && let Some(http) = self.take_idle(place)
        {
            return Some(HttpConnection::H1(http));
        }
        if wanted.upgrade {
            return None;
        }
        let (client, ends) =
            self.shared.borrow().get(&place).filter(|(client, _)| client.is_open()).cloned()?;
        Some(HttpConnection::H2 { address: place.0, client, ends, reused: true })
    }

    async fn make_http(
        &self,
        cluster: Arc<Cluster>,
        place: Place,
        wanted: Wanted,
    ) -> Result<HttpConnection, ConnectError> {
        let (address, _) = place;
        let work = self.as_trusted(&cluster, async |cluster| self.open_http(cluster, place, wanted).await);
        let opened = self.in_time(&cluster, address, work).await;
        // That an endpoint cannot change its protocol is what the client asks for, and no fault of it.
        if opened.is_err() && !wanted.upgrade {
            self.failed(address);
        }
        opened
    }

    async fn open_http(&self, cluster: &Cluster, place: Place, wanted: Wanted) -> io::Result<HttpConnection> {
        let (address, _) = place;
        let trust = self.trust.get();
        let socket = dial(cluster, address, wanted.client).await?;
        let open = cluster.metrics.connections.hold();
        let (stream, tls, h2) = match (&cluster.tls, cluster.config.protocol) {
            (Some(tls), _) => {
                let (stream, tls) = tls.connect_http(socket, wanted.upgrade).await?;
                let h2 = tls.alpn.as_deref() == Some(H2);
                (stream, Some(Arc::new(tls)), h2)
            }
            (None, Protocol::Http2) => (Stream::Tcp(socket), None, true),
            (None, Protocol::Http1 | Protocol::Auto) => (Stream::Tcp(socket), None, false),
        };
        let ends = Ends { local: stream.local_addr(), tls };
        if !h2 {
            let buffer = cluster.config.per_connection_buffer_limit.0;
            let limits = h1::Limits { buffer, ..h1::Limits::default() };
            let connection = h1::Connection::new(stream, limits);
            return Ok(HttpConnection::H1(Box::new(Http1 {
                address,
                ends,
                connection,
                reused: false,
                place,
                trust,
                _open: open,
            })));
        }
        if wanted.upgrade {
            let message =
                "HTTP/2 cannot change its protocol; set the cluster's `protocol` to `auto` or `http1`";
            return Err(io::Error::other(message));
        }
        let client = h2::Client::new(stream, open).await.map_err(io::Error::other)?;
        if trust == self.trust.get() {
            self.note(place);
            self.shared.borrow_mut().insert(place, (client.clone(), ends.clone()));
        }
        Ok(HttpConnection::H2 { address, client, ends, reused: false })
    }

    /// Makes a connection, and once more when it has changed meanwhile which endpoints are trusted: who was trusted when
    /// the handshake began need not be any more, and the other way round.
    async fn as_trusted<T>(
        &self,
        cluster: &Arc<Cluster>,
        make: impl AsyncFn(&Cluster) -> io::Result<T>,
    ) -> io::Result<T> {
        let began = self.trust.get();
        let made = make(cluster).await;
        let again = self.trust.get();
        if again == began {
            return made;
        }
        drop(made);
        let made = make(&self.cluster()).await;
        if self.trust.get() == again {
            return made;
        }
        Err(io::Error::other("it has changed twice meanwhile which endpoints are trusted"))
    }

    /// Bounds the making of a connection, and counts how it ends.
    async fn in_time<T>(
        &self,
        cluster: &Cluster,
        address: SocketAddr,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, ConnectError> {
        let timer = self.timers.timer();
        timer.set(cluster.config.connect_timeout);
        let name = || Arc::clone(&cluster.name);
        let error = match timer.limit(work).await {
            Some(Ok(done)) => {
                cluster.metrics.connects.inc();
                return Ok(done);
            }
            Some(Err(error)) => ConnectError::Failed { cluster: name(), address, error },
            None => ConnectError::Timeout { cluster: name(), address },
        };
        cluster.metrics.connect_failures.inc();
        Err(error)
    }

    fn take_idle(&self, place: Place) -> Option<Box<Http1>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&place)?;
        while let Some((mut http, _)) = list.pop() {
            if http.connection.is_reusable() {
                http.reused = true;
                return Some(http);
            }
        }
        None
    }

    /// Takes a connection back after an exchange, when it can carry another one.
    pub fn give_back(&self, http: Box<Http1>) {
        let known = self.current.borrow().endpoints.contains(&http.address);
        if !known || http.trust != self.trust.get() || !http.connection.is_reusable() {
            return;
        }
        self.note(http.place);
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(http.place).or_default();
        if list.len() < MOST_IDLE {
            list.push((http, coarse_millis()));
        }
    }
}

/// Connects, and tells who the client is where the cluster wants that.
async fn dial(cluster: &Cluster, address: SocketAddr, client: Option<Client>) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    // Small writes are not to wait for each other; a socket that cannot do it works all the same.
    let _ = socket.set_nodelay(true);
    if let Some(version) = cluster.config.proxy_protocol {
        let header = client.map_or(Header::Own, |client| Header::told(client.peer, client.local));
        socket.write_all(&header.write(version)).await?;
    }
    Ok(socket)
}
