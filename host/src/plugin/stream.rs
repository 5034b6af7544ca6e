//! The state of one stream, as filters see it: an HTTP exchange or a TCP connection.
//!
//! The exchange owns it together with the contexts of its filters, so that a host function reaches it at any
//! time, from a timer or another stream's callback too, while a filter holds a message. The cell never makes
//! anybody wait: a stream lives on one worker. It is there because what is in a store has to be `Send`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use atomic_refcell::AtomicRefCell;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weir_abi::{MapKind, Status};

use crate::http::body::Buffer;
use crate::http::message::{Request, Response};
use crate::net::connection::Connection;

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
    /// Bytes from downstream (request body, or TCP) that a filter looks at or holds.
    pub received: Buffer,
    /// Bytes from upstream (response body, or TCP) that a filter looks at or holds.
    pub answered: Buffer,
    /// Whether a filter edited what the route was chosen by.
    pub reroute: bool,
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

/// What is known of a stream besides its messages.
#[derive(Debug)]
pub struct Info {
    /// When it began, by the wall clock.
    pub started_at: SystemTime,
    /// When it began, for durations.
    pub started: Instant,
    /// The route's name.
    pub route: Option<Arc<str>>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<str>>,
    /// The endpoint, once there is a connection to it.
    pub upstream: Option<Upstream>,
    /// Bytes of body from downstream so far.
    pub received_bytes: u64,
    /// Bytes of body from upstream so far.
    pub answered_bytes: u64,
    /// Why the response is what it is, as in `via_upstream` or a filter's own words.
    pub details: Option<Arc<str>>,
    /// The filter that decided, when one did.
    pub decided_by: Option<Arc<str>>,
    /// Filter state and properties that filters set, by path (segments joined by NUL).
    pub state: Vec<(Box<[u8]>, Bytes)>,
}

/// The endpoint of a stream.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its address.
    pub address: SocketAddr,
    /// Weir's own address on that connection.
    pub local: Option<SocketAddr>,
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
            received: Buffer::default(),
            answered: Buffer::default(),
            reroute: false,
            edited_received: 0,
            edited_answered: 0,
            changed_received: false,
            changed_answered: false,
            info: Info {
                started_at: SystemTime::now(),
                started: Instant::now(),
                route: None,
                cluster: None,
                upstream: None,
                received_bytes: 0,
                answered_bytes: 0,
                details: None,
                decided_by: None,
                state: Vec::new(),
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

    /// A value that a filter set: by [`Info::set_state`]'s path.
    pub fn state(&self, path: &[u8]) -> Option<&Bytes> {
        self.info.state.iter().find(|(key, _)| **key == *path).map(|(_, value)| value)
    }
}

/// What filters may set of one stream: values, and bytes of keys and values. It is the host's memory.
const MOST_VALUES: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

impl Info {
    /// Sets a value of filter state.
    ///
    /// # Errors
    /// [`Status::InternalFailure`] when it would be too much for one stream: over 1024 values, or over 1 MiB.
    pub fn set_state(&mut self, path: &[u8], value: Bytes) -> Result<(), Status> {
        let size = |(key, value): &(Box<[u8]>, Bytes)| key.len() + value.len();
        let known = self.state.iter().position(|(key, _)| **key == *path);
        let others = self.state.iter().filter(|(key, _)| **key != *path).map(size).sum::<usize>();
        let many = known.is_none() && self.state.len() >= MOST_VALUES;
        if many || others + path.len() + value.len() > MOST_BYTES {
            return Err(Status::InternalFailure);
        }
        match known.and_then(|at| self.state.get_mut(at)) {
            Some((_, old)) => *old = value,
            None => self.state.push((path.into(), value)),
        }
        Ok(())
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
