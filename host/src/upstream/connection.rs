//! Connections to endpoints: what one is wanted for, what it is, and why there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::http::{h1, h2};
use crate::net::connection::{Connection, Tls};
use crate::net::stream::Stream;
use crate::telemetry::metrics::Held;

/// Where connections belong: to an endpoint, and to the client whom they were told of (by its connection's number), where
/// the cluster tells of clients.
pub(super) type Place = (SocketAddr, Option<u64>);

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// An exchange that is repeated because its connection turned out to be closed: on one that cannot be.
    pub fresh: bool,
    /// An exchange that changes the protocol, which only HTTP/1 can.
    pub upgrade: bool,
    /// An endpoint that has failed this exchange already: another one is asked.
    pub avoid: Option<SocketAddr>,
    /// A call of a plugin's own: no name leads it to a private address that the cluster does not allow.
    pub called: bool,
    /// For whom, when it is for a client.
    pub client: Option<Client>,
}

/// The client for whom a connection is wanted, for endpoints that are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl From<&Connection> for Client {
    fn from(connection: &Connection) -> Self {
        Self { id: connection.id, peer: connection.peer, local: connection.local }
    }
}

/// What is known of a connection besides its endpoint.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Our own address on it.
    pub local: Option<SocketAddr>,
    /// What the handshake told, where there was one.
    pub tls: Option<Arc<Tls>>,
}

/// A connection for one stream of bytes.
#[derive(Debug)]
pub struct Connected {
    /// The endpoint.
    pub address: SocketAddr,
    /// What else is known of the connection.
    pub ends: Ends,
    /// The connection.
    pub stream: Stream,
    /// Counts it as open.
    pub open: Held,
}

/// An HTTP/1 connection, for one exchange at a time.
#[derive(Debug)]
pub struct Http1 {
    /// The endpoint.
    pub address: SocketAddr,
    /// What else is known of the connection.
    pub ends: Ends,
    /// The connection.
    pub connection: h1::Connection,
    /// Whether it has carried an exchange before.
    pub reused: bool,
    pub(super) place: Place,
    /// How often its cluster had changed whom it trusts when it was made.
    pub(super) trust: u64,
    pub(super) _open: Held,
}

/// A connection for one exchange.
pub enum HttpConnection {
    /// HTTP/1.
    H1(Box<Http1>),
    /// HTTP/2.
    H2 {
        /// The endpoint.
        address: SocketAddr,
        /// The connection.
        client: h2::Client,
        /// What else is known of the connection.
        ends: Ends,
        /// Whether it has carried an exchange before.
        reused: bool,
    },
}

impl HttpConnection {
    /// The endpoint.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::H1(http) => http.address,
            Self::H2 { address, .. } => *address,
        }
    }

    /// Whether it has carried an exchange before.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1(http) => http.reused,
            Self::H2 { reused, .. } => *reused,
        }
    }
}

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It has no endpoints; names did not resolve.
    #[error("cluster `{0}` has no endpoints")]
    NoEndpoints(Arc<str>),
    /// A plugin called, and a name stands for a private address.
    #[error(
        "a name of cluster `{cluster}` stands for {address}, which is {kind}: no plugin may call that; \
         if it is meant, set the cluster's `allow_private: true`"
    )]
    Private {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: SocketAddr,
        /// What makes it private.
        kind: &'static str,
    },
    /// The endpoint did not answer in time.
    #[error("{address} of cluster `{cluster}` did not answer in time")]
    Timeout {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: SocketAddr,
    },
    /// The endpoint refused, or TLS failed.
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

impl ConnectError {
    /// The endpoint, when one was tried.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::NoEndpoints(_) | Self::Private { .. } => None,
            Self::Timeout { address, .. } | Self::Failed { address, .. } => Some(*address),
        }
    }

    /// What went wrong with the connection itself, when one was tried.
    pub fn transport(&self) -> Option<Arc<str>> {
        match self {
            Self::NoEndpoints(_) | Self::Private { .. } => None,
            Self::Timeout { .. } => Some("connection timeout".into()),
            Self::Failed { error, .. } => Some(error.to_string().into()),
        }
    }
}
