//! What a guest asked for that is carried out once it has returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::plugin::vm::Root;

/// Something to do once the guest has returned.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// A timer was set or unset.
    Tick {
        /// The root context.
        root: u32,
    },
    /// An HTTP call.
    Call(Box<HttpCall>),
    /// A gRPC call or stream begins.
    GrpcOpen(Box<GrpcOpen>),
    /// A message on a gRPC stream.
    GrpcSend {
        /// The stream.
        token: u32,
        /// The message; none only ends the half.
        message: Option<Bytes>,
        /// Whether the guest ends its half with it.
        end: bool,
    },
    /// A gRPC call or stream is given up.
    GrpcCancel {
        /// The call.
        token: u32,
    },
    /// A plugin wants to hear when a queue has something in it.
    Listen {
        /// The root context.
        root: u32,
        /// The queue.
        queue: u32,
    },
    /// A plugin that held back its end is done.
    Done {
        /// The root context.
        root: u32,
    },
}

impl Outgoing {
    /// The root context whose it is, where that is known.
    pub fn root(&self) -> Option<u32> {
        match self {
            Self::Tick { root } | Self::Listen { root, .. } | Self::Done { root } => Some(*root),
            Self::Call(call) => Some(call.root),
            Self::GrpcOpen(open) => Some(open.root),
            Self::GrpcSend { .. } | Self::GrpcCancel { .. } => None,
        }
    }

    /// The same, for another instance whose plugins, `roots`, are at the same point. What concerns the end of a plugin is
    /// for no other.
    pub fn again(&self, roots: &mut [Root]) -> Option<Self> {
        match self {
            Self::GrpcOpen(open) => {
                let waiting = Arc::new(AtomicUsize::new(open.waiting.load(Ordering::Relaxed)));
                let root = roots.iter_mut().find(|root| root.id == open.root)?;
                root.grpc.calls.get_mut(&open.token)?.waiting = Arc::clone(&waiting);
                Some(Self::GrpcOpen(Box::new(GrpcOpen { waiting, ..(**open).clone() })))
            }
            Self::Done { .. } => None,
            Self::Tick { .. }
            | Self::Call(_)
            | Self::GrpcSend { .. }
            | Self::GrpcCancel { .. }
            | Self::Listen { .. } => Some(self.clone()),
        }
    }
}

/// A gRPC call or stream of a guest's own.
#[derive(Debug, Clone)]
pub struct GrpcOpen {
    /// The root context that hears of it.
    pub root: u32,
    /// The number by which it knows the call.
    pub token: u32,
    /// Where to.
    pub cluster: Box<str>,
    /// The request: its path is the method, its headers the metadata.
    pub request: crate::http::message::Request,
    /// The one message of a unary call; a stream has none yet.
    pub message: Option<Bytes>,
    /// How long a unary call may take; `None` for ever.
    pub timeout: Option<Duration>,
    /// Bytes of messages that wait to be sent.
    pub waiting: Arc<AtomicUsize>,
}

impl GrpcOpen {
    /// What a message counts for while it waits, in bytes: itself and its place in the queue, since messages may be empty.
    pub fn weight(message: &[u8]) -> usize {
        message.len() + 64
    }
}

/// An HTTP request of a guest's own.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// The root context that hears of the answer.
    pub root: u32,
    /// The number by which it knows the call.
    pub token: u32,
    /// Where to.
    pub cluster: Box<str>,
    /// The request.
    pub request: crate::http::message::Request,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: HeaderMap,
    /// How long it may take; `None` for ever.
    pub timeout: Option<Duration>,
}

/// The answer to an HTTP call.
#[derive(Debug, Default)]
pub struct CallAnswer {
    /// Its headers, with `:status` apart.
    pub status: Option<http::StatusCode>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: HeaderMap,
}
