//! The bytes of a half: a body, or the data of a TCP connection.
//!
//! A piece passes the filters one by one. One that holds gathers what comes and sees, with each further piece, all that
//! it has; those before it see the piece alone, and those behind it nothing until it lets go.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use weir_abi::{BufferKind, MapKind};

use crate::http::body::Buffer;
use crate::plugin::abi::Callbacks;
use crate::plugin::chain::apart::Step;
use crate::plugin::chain::hold::{End, Held};
use crate::plugin::chain::{Call, Chain, Half, Outcome, Stop};
use crate::plugin::filter::Which;
use crate::plugin::stream::{LocalReply, Stream};
use crate::plugin::vm::StreamContext;

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
    pub(super) fn buffer(self, http: bool) -> BufferKind {
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

    /// The bytes that a filter sees or holds.
    pub(super) fn bytes(self, context: &mut StreamContext) -> &mut Buffer {
        match self {
            Self::Received => &mut context.received,
            Self::Answered => &mut context.answered,
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

    /// Shows a piece of data to the filters. `end`: it is the last, and no trailers follow. `limit` bounds what a
    /// filter may hold, in bytes.
    ///
    /// # Errors
    /// When a filter ends the stream, or when it holds more than the limit.
    pub fn on_data(&mut self, half: Half, data: Bytes, end: bool, limit: usize) -> Result<Passed, Stop> {
        self.limit = limit;
        self.pass_data(half, None, data, end)
    }

    /// Shows the data to the filters behind `last`.
    pub(super) fn pass_data(
        &mut self,
        half: Half,
        mut last: Option<usize>,
        mut data: Bytes,
        end: bool,
    ) -> Result<Passed, Stop> {
        for at in self.after(half, last) {
            if !self.may_see(half, at) {
                self.park(half, last, data, if end { End::Data } else { End::Open });
                return Ok(Passed::Held);
            }
            match self.data_step(half, at, data, end)? {
                Some(passed) => data = passed,
                None => return Ok(Passed::Held),
            }
            last = Some(at);
            // A filter may have made trailers in its last call.
            if end && trailers(&self.stream.borrow(), half).is_some() {
                return self.pass_trailers(half, last, data);
            }
        }
        Ok(Passed::Data(data, end))
    }

    /// Shows the data to one filter. What is returned goes on; `None` when the filter holds it.
    pub(super) fn data_step(
        &mut self,
        half: Half,
        at: usize,
        data: Bytes,
        end: bool,
    ) -> Result<Option<Bytes>, Stop> {
        if !self.takes_part(at, half) {
            return Ok(Some(data));
        }
        let held = self.held(half, at);
        // As in Envoy: of a request it sees what overflows its buffer, and of a response it does not.
        if held.is_some() && half == Half::Answered && self.http {
            let gathered = self.with_context(at, |context| half.bytes(context).len()).unwrap_or(0);
            if gathered + data.len() > self.limit {
                return Err(self.overflow(half));
            }
        }
        let (kind, http) = (half.buffer(self.http), self.http);
        // Should the filter fail, the stream may go on without it.
        let spare = data.clone();
        let prepare = move |id, context: &mut StreamContext| {
            let buffer = half.bytes(context);
            buffer.push(data);
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            context.access.grant_buffer(kind);
            if end && http {
                context.access.grant_map(half.trailers());
            }
            (id, len, u32::from(end))
        };
        let outcome = match self.call(at, half, half.on_data(http), prepare)? {
            Call::Done(outcome) => outcome,
            Call::Later(returned) => {
                self.wait_for(half, at, returned, Step::Data(spare, end));
                return Ok(None);
            }
        };
        let closed = end && !http && half == Half::Answered;
        match outcome {
            Outcome::Pause(action) => {
                if closed {
                    self.upstream_closed(at);
                }
                self.keep(half, at, action, end).map(|()| None)
            }
            Outcome::Continue => {
                let data = self.let_go(at, half).unwrap_or(spare);
                // What it has let go is not its own any more.
                if closed {
                    self.upstream_closed(at);
                }
                if held == Some(Held::Headers) {
                    // Those behind it are shown the headers first.
                    self.set_held(half, at, Held::Nothing);
                    self.park(half, Some(at), data, if end { End::Data } else { End::Open });
                    return Ok(None);
                }
                Ok(Some(data))
            }
        }
    }

    /// A filter holds the data, in the way that its answer says: 2 wants to see no more of what it has seen (and no more
    /// to be read than it may hold), 3 does without it, and every other gathers it (Envoy's FilterDataStatus).
    pub(super) fn keep(&mut self, half: Half, at: usize, action: u32, end: bool) -> Result<(), Stop> {
        let seen = self.with_context(at, |context| match action {
            2 | 3 => half.bytes(context).take(),
            _ => Bytes::new(),
        });
        let what = if self.held(half, at) == Some(Held::Headers) { Held::Headers } else { Held::Data };
        if let Some(hold) = self.set_held(half, at, what) {
            if action == 2 {
                hold.aside.push(seen.unwrap_or_default());
            }
            if end {
                hold.end = End::Data;
            }
        }
        let gathered = self.with_context(at, |context| half.bytes(context).len());
        if gathered.unwrap_or(0) > self.limit { Err(self.overflow(half)) } else { Ok(()) }
    }

    /// Whether no more is to be read for now: a filter holds so much that it does not want to see again, or is being told
    /// of what has come.
    pub fn is_full(&self, half: Half) -> bool {
        self.slots
            .iter()
            .filter_map(|slot| slot.holds(half))
            .any(|hold| hold.running.is_some() || (hold.what == Held::Data && hold.aside.len() > self.limit))
    }

    /// Ready when what a filter held goes on.
    pub fn poll_resumed(&mut self, half: Half, cx: &Context<'_>) -> Poll<Result<Passed, Stop>> {
        for at in self.order(half) {
            match self.held(half, at) {
                None | Some(Held::Start | Held::Headers) => continue,
                Some(Held::Nothing) if !self.may_go_on(half, at) => continue,
                Some(Held::Nothing) => {}
                Some(Held::Data | Held::Trailers) => match self.poll_release(half, at, cx) {
                    Poll::Pending => match self.take_onward(half, at) {
                        Some(data) => return Poll::Ready(self.pass_data(half, Some(at), data, false)),
                        None => continue,
                    },
                    Poll::Ready(Err(stop)) => return Poll::Ready(Err(stop)),
                    Poll::Ready(Ok(())) => {}
                },
            }
            return Poll::Ready(self.resume(half, at));
        }
        Poll::Pending
    }

    /// What a filter held goes on to those behind it.
    fn resume(&mut self, half: Half, at: usize) -> Result<Passed, Stop> {
        let end = match self.hold(half, at) {
            Some(Some(hold)) => hold.end,
            _ => return Ok(Passed::Held),
        };
        let data = self.let_go(at, half).unwrap_or_default();
        if !self.may_go_on(half, at) {
            self.park(half, Some(at), data, end);
            return Ok(Passed::Held);
        }
        // It may have made trailers while it held the end.
        let trailers = end == End::Data && trailers(&self.stream.borrow(), half).is_some();
        match end {
            End::Trailers => self.pass_trailers(half, Some(at), data),
            End::Data if trailers => self.pass_trailers(half, Some(at), data),
            End::Data | End::Open => self.pass_data(half, Some(at), data, end == End::Data),
        }
    }

    /// Takes data and trailers of a half out of a filter's sight, and everything that it held. `None` when its instance
    /// is gone.
    pub(super) fn let_go(&mut self, at: usize, half: Half) -> Option<Bytes> {
        let kind = half.buffer(self.http);
        let seen = self.with_context(at, |context| {
            context.access.revoke_buffer(kind);
            context.access.revoke_map(half.trailers());
            half.bytes(context).take()
        });
        let Some(mut hold) = self.take_hold(half, at) else { return seen };
        hold.onward.push(hold.aside.take());
        hold.onward.push(seen.unwrap_or_default());
        Some(hold.onward.take())
    }

    /// Lays data down behind a filter, until those behind it have seen the headers.
    pub(super) fn park(&mut self, half: Half, at: Option<usize>, data: Bytes, end: End) {
        if let Some(hold) = at.and_then(|at| self.set_held(half, at, Held::Nothing)) {
            hold.aside.push(data);
            hold.end = end;
        }
    }

    /// Whether a filter has been shown the headers, and lets data come to it.
    pub(super) fn may_see(&mut self, half: Half, at: usize) -> bool {
        if self.runs(half, at) {
            return false;
        }
        if !self.http {
            return true;
        }
        let place = self.order(half).position(|other| other == at).unwrap_or(0);
        place < *self.headers_seen(half) && self.held(half, at) != Some(Held::Start)
    }

    /// Whether what comes from a filter can go on.
    fn may_go_on(&mut self, half: Half, at: usize) -> bool {
        match self.after(half, Some(at)).next() {
            Some(next) => self.may_see(half, next),
            None => {
                !self.http || *self.headers_seen(half) >= self.slots.len() && !self.waits_for_headers(half)
            }
        }
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
        let body = Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes());
        Stop::Reply(LocalReply { status, headers: Vec::new(), body, grpc_status: None, details })
    }
}

/// The trailers of a half, once they are there.
pub(super) fn trailers(stream: &Stream, half: Half) -> Option<&HeaderMap> {
    match half {
        Half::Received => stream.request_trailers.as_ref(),
        Half::Answered => stream.response_trailers.as_ref(),
    }
}
