//! The state of one stream, as filters see it: an HTTP exchange or a TCP connection.
//!
//! The exchange owns it together with the contexts of its filters, so that a host function reaches it at any
//! time, from a timer or another stream's callback too, while a filter holds a message. The cell never makes
//! anybody wait: a stream lives on one worker. It is there because what is in a store has to be `Send`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atomic_refcell::AtomicRefCell;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weir_abi::MapKind;

use crate::clock::Moment;
use crate::config::metadata::{ClusterFacts, Metadata};
use crate::http::message::{Request, Response};
use crate::net::connection::{Connection, Tls};
use crate::plugin::state::FilterState;

/// A stream, as the exchange and the contexts of its filters share it.
pub type SharedStream = Arc<AtomicRefCell<Stream>>;

/// The state of one stream.
#[derive(Debug)]
pub struct Stream {
    /// The connection that it belongs to.
    pub connection: Arc<Connection>,
    /// The request; `None` for a TCP stream.
    pub request: Option<Request>,
    /// Its trailers, once they are here.
    pub request_trailers: Option<HeaderMap>,
    /// The response, once it is here.
    pub response: Option<Response>,
    /// Its trailers, once they are here.
    pub response_trailers: Option<HeaderMap>,
    /// Whether a filter edited what the route was chosen by.
    pub reroute: Reroute,
    /// Who edited what comes from downstream: one bit for each place in the chain.
    pub edited_received: u64,
    /// Who edited what comes from upstream.
    pub edited_answered: u64,
    /// Whether the bytes from downstream were edited: then their length is another one.
    pub changed_received: bool,
    /// Whether the bytes from upstream were edited.
    pub changed_answered: bool,
    /// What else is known of it.
    pub info: Info,
}

/// Whether the route of a request is to be chosen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reroute {
    /// Nothing was edited that it was chosen by.
    No,
    /// Headers were: where routes look at such.
    ByHeaders,
    /// In any case.
    Anyhow,
}

/// What is known of a stream besides its messages.
#[derive(Debug)]
pub struct Info {
    /// When it began, by the wall clock, where somebody else's clock counts: see [`Info::started_at`].
    pub began_at: Option<SystemTime>,
    /// When it began.
    pub started: Moment,
    /// The route.
    pub route: Option<Arc<RouteFacts>>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<ClusterFacts>>,
    /// How many endpoints that cluster has, or the one that the route plans.
    pub endpoints: Option<usize>,
    /// The endpoint, once there is a connection to it.
    pub upstream: Option<Upstream>,
    /// Attempts to reach the upstream.
    pub attempts: u32,
    /// How long the last of them waited for its connection.
    pub pool_wait: Option<Duration>,
    /// Why there is no connection to the upstream, when that is so.
    pub transport_failure: Option<Arc<str>>,
    /// When the request began to go to the upstream.
    pub upstream_began: Option<Moment>,
    /// When the last byte of the answer came.
    pub upstream_ended: Option<Moment>,
    /// What went wrong, as Envoy's response flags (`StreamInfo::legacyResponseFlags`).
    pub flags: u64,
    /// Bytes of body from downstream so far.
    pub received_bytes: u64,
    /// Bytes of body from upstream so far.
    pub answered_bytes: u64,
    /// Why the response is what it is, as in `via_upstream` or a filter's own words.
    pub details: Option<Arc<str>>,
    /// The filter that decided, when one did.
    pub decided_by: Option<Arc<str>>,
    /// Filter state, and properties that filters set.
    pub state: FilterState,
}

/// The endpoint of a stream.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its address.
    pub address: SocketAddr,
    /// Weir's own address on that connection.
    pub local: Option<SocketAddr>,
    /// What the handshake told, where there was one.
    pub tls: Option<Arc<Tls>>,
}

/// What is known of a route to plugins and logs.
#[derive(Debug, Default)]
pub struct RouteFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its metadata.
    pub metadata: Metadata,
    /// The cluster that its requests go to, where there is no choice.
    pub cluster: Option<Arc<ClusterFacts>>,
}

impl Info {
    /// When the stream began, by the wall clock. That is asked for once, by a log or a plugin, or not at all.
    pub fn started_at(&self) -> SystemTime {
        self.began_at.unwrap_or_else(|| SystemTime::now() - self.started.elapsed())
    }
}

impl Stream {
    /// A stream of a connection, before anything is known of it.
    pub fn new(connection: Arc<Connection>) -> SharedStream {
        Arc::new(AtomicRefCell::new(Self {
            connection,
            request: None,
            request_trailers: None,
            response: None,
            response_trailers: None,
            reroute: Reroute::No,
            edited_received: 0,
            edited_answered: 0,
            changed_received: false,
            changed_answered: false,
            info: Info {
                began_at: None,
                started: Moment::now(),
                route: None,
                cluster: None,
                endpoints: None,
                upstream: None,
                attempts: 0,
                pool_wait: None,
                transport_failure: None,
                upstream_began: None,
                upstream_ended: None,
                flags: 0,
                received_bytes: 0,
                answered_bytes: 0,
                details: None,
                decided_by: None,
                state: FilterState::default(),
            },
        }))
    }

    /// Whether this is an HTTP exchange.
    pub fn is_http(&self) -> bool {
        self.request.is_some()
    }

    /// The map of a message, pseudo-headers aside.
    pub fn map(&self, kind: MapKind) -> Option<&HeaderMap> {
        match kind {
            MapKind::HttpRequestHeaders => self.request.as_ref().map(|request| &request.headers),
            MapKind::HttpRequestTrailers => self.request_trailers.as_ref(),
            MapKind::HttpResponseHeaders => self.response.as_ref().map(|response| &response.headers),
            MapKind::HttpResponseTrailers => self.response_trailers.as_ref(),
            MapKind::GrpcReceiveInitialMetadata
            | MapKind::GrpcReceiveTrailingMetadata
            | MapKind::HttpCallResponseHeaders
            | MapKind::HttpCallResponseTrailers => None,
        }
    }
}

/// An answer that does not come from the upstream.
#[derive(Debug, Clone)]
pub struct LocalReply {
    /// Its status.
    pub status: StatusCode,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
    /// The gRPC status, for callers that speak gRPC.
    pub grpc_status: Option<u32>,
    /// Why, for the log.
    pub details: Arc<str>,
}
