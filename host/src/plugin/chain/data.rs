//! The bytes of a half: a body, or the data of a TCP connection.
//!
//! A filter that holds them sees, with each further piece, all that has been gathered so far; those behind it
//! see nothing until it lets go.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use weir_abi::{BufferKind, MapKind};

use crate::http::body::Buffer;
use crate::plugin::abi::Callbacks;
use crate::plugin::chain::{Chain, Half, Held, Outcome, Stop, Which};
use crate::plugin::stream::{LocalReply, Stream};
use crate::plugin::vm::Access;

/// What has passed all filters of a half.
#[derive(Debug)]
pub enum Passed {
    /// Nothing yet: a filter holds it.
    Held,
    /// A piece, perhaps empty, and whether it is the last.
    Data(Bytes, bool),
    /// The last piece of a body, and the trailers.
    End(Bytes, HeaderMap),
}

impl Half {
    fn buffer(self, http: bool) -> BufferKind {
        match (self, http) {
            (Self::Received, true) => BufferKind::HttpRequestBody,
            (Self::Answered, true) => BufferKind::HttpResponseBody,
            (Self::Received, false) => BufferKind::DownstreamData,
            (Self::Answered, false) => BufferKind::UpstreamData,
        }
    }

    fn on_data(self, http: bool) -> Which<(u32, u32, u32), u32> {
        match (self, http) {
            (Self::Received, true) => |callbacks: &Callbacks| &callbacks.proxy_on_request_body,
            (Self::Answered, true) => |callbacks: &Callbacks| &callbacks.proxy_on_response_body,
            (Self::Received, false) => |callbacks: &Callbacks| &callbacks.proxy_on_downstream_data,
            (Self::Answered, false) => |callbacks: &Callbacks| &callbacks.proxy_on_upstream_data,
        }
    }

    pub(super) fn trailers(self) -> MapKind {
        match self {
            Self::Received => MapKind::HttpRequestTrailers,
            Self::Answered => MapKind::HttpResponseTrailers,
        }
    }
}

impl Chain {
    /// Whether any filter looks at the data of a half, or at its trailers.
    pub fn wants_data(&self, half: Half) -> bool {
        self.order(half).any(|at| {
            self.takes_part(at, half)
                && (self.has(at, half.on_data(self.http)) || (self.http && self.has(at, half.on_trailers())))
        })
    }

    /// Whether a filter has edited the data of a half.
    pub fn changed(&self, half: Half) -> bool {
        let stream = self.stream.borrow();
        match half {
            Half::Received => stream.changed_received,
            Half::Answered => stream.changed_answered,
        }
    }

    /// Whether a filter holds a half.
    pub fn holds(&self, half: Half) -> bool {
        match half {
            Half::Received => self.received.held.is_some(),
            Half::Answered => self.answered.held.is_some(),
        }
    }

    /// Shows a piece of data to the filters. `end`: it is the last, and no trailers follow. `limit` bounds what
    /// filters may hold.
    ///
    /// # Errors
    /// When a filter ends the stream, or when it holds more than the limit.
    pub fn on_data(&mut self, half: Half, data: Bytes, end: bool, limit: usize) -> Result<Passed, Stop> {
        let holder = self.progress(half).held.take().map(|(at, _)| at);
        let len = with_buffer(&mut self.stream.borrow_mut(), half, |buffer| {
            buffer.push(data);
            buffer.len()
        });
        if holder.is_some() && len > limit {
            return Err(self.overflow(half));
        }
        // A filter that holds the data sees it again, with what has come since.
        if let Some(at) = holder
            && self.data_step(half, at, end)?
        {
            return Ok(Passed::Held);
        }
        self.pass_data(half, holder, end)
    }

    /// Shows the data to the filters behind `last`.
    pub(super) fn pass_data(&mut self, half: Half, last: Option<usize>, end: bool) -> Result<Passed, Stop> {
        for at in self.after(half, last) {
            if self.data_step(half, at, end)? {
                return Ok(Passed::Held);
            }
        }
        let mut stream = self.stream.borrow_mut();
        let data = with_buffer(&mut stream, half, Buffer::take);
        // A filter may have made trailers in its last call.
        match trailers(&stream, half).filter(|_| end) {
            Some(trailers) => Ok(Passed::End(data, trailers.clone())),
            None => Ok(Passed::Data(data, end)),
        }
    }

    /// Shows the data to one filter; true when the filter holds it.
    pub(super) fn data_step(&mut self, half: Half, at: usize, end: bool) -> Result<bool, Stop> {
        if !self.takes_part(at, half) {
            return Ok(false);
        }
        let (buffer, trailers, http) = (half.buffer(self.http), half.trailers(), self.http);
        let len = with_buffer(&mut self.stream.borrow_mut(), half, |buffer| buffer.len());
        let params = |id| (id, u32::try_from(len).unwrap_or(u32::MAX), u32::from(end));
        let access = |access: &mut Access| {
            access.grant_buffer(buffer);
            if end && http {
                access.grant_map(trailers);
            }
        };
        match self.call(at, half, access, half.on_data(http), params)? {
            Outcome::Pause => {
                self.progress(half).held = Some((at, Held::Data));
                Ok(true)
            }
            Outcome::Continue => {
                self.let_go(at, half);
                Ok(false)
            }
        }
    }

    /// Ready when what was held goes on. `ended`: it was complete, without trailers.
    pub fn poll_resumed(&mut self, half: Half, ended: bool, cx: &Context<'_>) -> Poll<Result<Passed, Stop>> {
        match self.poll_release(half, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(stop)) => Poll::Ready(Err(stop)),
            Poll::Ready(Ok(())) => Poll::Ready(self.resume(half, ended)),
        }
    }

    fn resume(&mut self, half: Half, ended: bool) -> Result<Passed, Stop> {
        let Some((at, held)) = self.progress(half).held.take() else { return Ok(Passed::Held) };
        self.let_go(at, half);
        match held {
            Held::Start | Held::Data => self.pass_data(half, Some(at), ended),
            Held::Trailers => self.pass_trailers(half, Some(at)),
        }
    }

    /// Takes data and trailers of a half out of a filter's sight.
    pub(super) fn let_go(&mut self, at: usize, half: Half) {
        let buffer = half.buffer(self.http);
        self.set_access(at, |access| {
            access.revoke_buffer(buffer);
            access.revoke_map(half.trailers());
        });
    }

    /// Whether a filter has to do with a half: a response passes those that saw the request.
    pub(super) fn takes_part(&self, at: usize, half: Half) -> bool {
        !self.http || half == Half::Received || self.slots.get(at).is_some_and(|slot| slot.involved)
    }

    /// A filter holds more than it may.
    fn overflow(&mut self, half: Half) -> Stop {
        let (status, details): (_, Arc<str>) = match half {
            Half::Received => (StatusCode::PAYLOAD_TOO_LARGE, "request_body_over_buffer_limit".into()),
            Half::Answered => (StatusCode::INTERNAL_SERVER_ERROR, "response_body_over_buffer_limit".into()),
        };
        self.stream.borrow_mut().info.details = Some(Arc::clone(&details));
        if !self.http {
            return Stop::Reset(details);
        }
        let body = Bytes::from(format!("{}\n", status.canonical_reason().unwrap_or_default()));
        Stop::Reply(LocalReply { status, headers: Vec::new(), body, grpc_status: None, details })
    }
}

/// Gives `f` the buffer of a half.
pub(super) fn with_buffer<T>(stream: &mut Stream, half: Half, f: impl FnOnce(&mut Buffer) -> T) -> T {
    match half {
        Half::Received => f(&mut stream.received),
        Half::Answered => f(&mut stream.answered),
    }
}

/// The trailers of a half, once they are there.
pub(super) fn trailers(stream: &Stream, half: Half) -> Option<&HeaderMap> {
    match half {
        Half::Received => stream.request_trailers.as_ref(),
        Half::Answered => stream.response_trailers.as_ref(),
    }
}
