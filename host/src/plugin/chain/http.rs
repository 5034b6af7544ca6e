//! Headers and trailers of an HTTP exchange.
//!
//! A filter that holds the headers sees no body until it lets them go (Envoy's StopAllIteration), unless its
//! configuration says `allow_on_headers_stop_iteration`. Trailers end a body that is held, too.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use weir_abi::MapKind;

use crate::plugin::abi::Callbacks;
use crate::plugin::chain::apart::Step;
use crate::plugin::chain::data::{Passed, trailers};
use crate::plugin::chain::hold::{End, Held};
use crate::plugin::chain::{Call, Chain, Half, Outcome, Stop};
use crate::plugin::filter::Which;
use crate::plugin::vm::StreamContext;

impl Half {
    fn headers(self) -> MapKind {
        match self {
            Self::Received => MapKind::HttpRequestHeaders,
            Self::Answered => MapKind::HttpResponseHeaders,
        }
    }

    fn on_headers(self) -> Which<(u32, u32, u32), u32> {
        match self {
            Self::Received => |callbacks: &Callbacks| &callbacks.proxy_on_request_headers,
            Self::Answered => |callbacks: &Callbacks| &callbacks.proxy_on_response_headers,
        }
    }

    fn on_short_headers(self) -> Which<(u32, u32), u32> {
        match self {
            Self::Received => |callbacks: &Callbacks| &callbacks.short_request_headers,
            Self::Answered => |callbacks: &Callbacks| &callbacks.short_response_headers,
        }
    }

    pub(super) fn on_trailers(self) -> Which<(u32, u32), u32> {
        match self {
            Self::Received => |callbacks: &Callbacks| &callbacks.proxy_on_request_trailers,
            Self::Answered => |callbacks: &Callbacks| &callbacks.proxy_on_response_trailers,
        }
    }
}

impl Chain {
    /// Shows the headers of a half to the filters, one by one; ready when all have let them go. `end`: no body and
    /// no trailers follow. To be polled until it is ready, once for each half.
    ///
    /// # Errors
    /// When a filter ends the exchange.
    pub fn poll_headers(&mut self, half: Half, end: bool, cx: &Context<'_>) -> Poll<Result<(), Stop>> {
        loop {
            let seen = *self.headers_seen(half);
            let shown_last = seen.checked_sub(1).and_then(|place| self.order(half).nth(place));
            if let Some(at) = shown_last
                && matches!(self.held(half, at), Some(Held::Start | Held::Headers))
            {
                ready!(self.poll_release(half, at, cx))?;
                // A call about the body may have let them go already.
                if self.held(half, at) != Some(Held::Nothing) {
                    self.release_headers(half, at);
                }
            }
            let Some(at) = self.order(half).nth(seen) else { return Poll::Ready(Ok(())) };
            *self.headers_seen(half) += 1;
            self.headers_step(half, at, end)?;
        }
    }

    /// Whether a filter holds the headers of a half.
    pub(super) fn waits_for_headers(&self, half: Half) -> bool {
        self.order(half).any(|at| matches!(self.held(half, at), Some(Held::Start | Held::Headers)))
    }

    /// A filter lets the headers go. What it was shown of the body waits until those behind it have seen them.
    pub(super) fn release_headers(&mut self, half: Half, at: usize) {
        let end = self.hold(half, at).and_then(|hold| hold.as_ref().map(|hold| hold.end));
        let data = self.let_go(at, half).unwrap_or_default();
        self.with_context(at, |context| context.access.revoke_map(half.headers()));
        let end = end.unwrap_or(End::Open);
        if !data.is_empty() || end != End::Open {
            self.park(half, Some(at), data, end);
        }
    }

    /// Shows the headers to one filter.
    fn headers_step(&mut self, half: Half, at: usize, end: bool) -> Result<(), Stop> {
        if !self.takes_part(at, half) {
            return Ok(());
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.involved = true;
        }
        let (map, count) = (half.headers(), self.header_count(half));
        let grant = move |context: &mut StreamContext| context.access.grant_map(map);
        let called = if self.has_short_headers(half, at) {
            self.call(at, half, half.on_short_headers(), move |id, context| {
                grant(context);
                (id, count)
            })?
        } else {
            self.call(at, half, half.on_headers(), move |id, context| {
                grant(context);
                (id, count, u32::from(end))
            })?
        };
        match called {
            Call::Done(outcome) => drop(self.headers_returned(half, at, outcome)),
            Call::Later(returned) => self.wait_for(half, at, returned, Step::Headers),
        }
        Ok(())
    }

    /// What a filter made of headers. True when it lets them go.
    pub(super) fn headers_returned(&mut self, half: Half, at: usize, outcome: Outcome) -> bool {
        let ahead = self.slots.get(at).is_some_and(|slot| slot.filter.spec.allow_on_headers_stop_iteration);
        match outcome {
            // Envoy does not end the stream behind the headers either, as 2 (ContinueAndEndStream) would have it.
            Outcome::Continue | Outcome::Pause(2) => {
                self.with_context(at, |context| context.access.revoke_map(half.headers()));
                return true;
            }
            Outcome::Pause(1) if ahead => drop(self.set_held(half, at, Held::Headers)),
            Outcome::Pause(_) => drop(self.set_held(half, at, Held::Start)),
        }
        false
    }

    fn has_short_headers(&self, half: Half, at: usize) -> bool {
        let [request, response] =
            self.slots.get(at).map_or([false; 2], |slot| slot.vm().spec().module.short_headers);
        match half {
            Half::Received => request,
            Half::Answered => response,
        }
    }

    fn header_count(&self, half: Half) -> u32 {
        let stream = self.stream.borrow();
        let count = match half {
            Half::Received => stream.request.as_ref().map_or(0, |request| request.headers.len() + 4),
            Half::Answered => stream.response.as_ref().map_or(0, |response| response.headers.len() + 1),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Shows the trailers to the filters; a body that is held goes with them. `limit` is that of [`Chain::on_data`].
    ///
    /// # Errors
    /// When a filter ends the exchange.
    pub fn on_trailers(&mut self, half: Half, trailers: HeaderMap, limit: usize) -> Result<Passed, Stop> {
        self.limit = limit;
        match half {
            Half::Received => self.stream.borrow_mut().request_trailers = Some(trailers),
            Half::Answered => self.stream.borrow_mut().response_trailers = Some(trailers),
        }
        self.pass_trailers(half, None, Bytes::new())
    }

    /// Shows what is left of the body, and the trailers, to the filters behind `last`.
    pub(super) fn pass_trailers(
        &mut self,
        half: Half,
        mut last: Option<usize>,
        mut data: Bytes,
    ) -> Result<Passed, Stop> {
        for at in self.after(half, last) {
            if !self.may_see(half, at) {
                self.park(half, last, data, End::Trailers);
                return Ok(Passed::Held);
            }
            if !data.is_empty() {
                // One that holds the body is shown the trailers at once: they are here already.
                data = self.data_step(half, at, data, false)?.unwrap_or_default();
                if self.runs(half, at) {
                    self.trailers_follow(half, at);
                    return Ok(Passed::Held);
                }
            }
            match self.trailers_step(half, at, data)? {
                Trailers::On(passed) => data = passed,
                Trailers::Held => return Ok(Passed::Held),
                Trailers::Without(data) => return self.pass_data(half, Some(at), data, false),
            }
            last = Some(at);
        }
        let trailers = trailers(&self.stream.borrow(), half).cloned();
        Ok(Passed::End(data, trailers.unwrap_or_default()))
    }

    /// Shows the trailers to one filter. `data` goes with them, behind what the filter holds.
    pub(super) fn trailers_step(&mut self, half: Half, at: usize, data: Bytes) -> Result<Trailers, Stop> {
        if !self.takes_part(at, half) {
            return Ok(Trailers::On(data));
        }
        let map = half.trailers();
        let count = trailers(&self.stream.borrow(), half).map_or(0, HeaderMap::len);
        let prepare = move |id, context: &mut StreamContext| {
            context.access.grant_map(map);
            (id, u32::try_from(count).unwrap_or(u32::MAX))
        };
        let held = self.held(half, at);
        match self.call(at, half, half.on_trailers(), prepare)? {
            Call::Later(returned) => {
                self.wait_for(half, at, returned, Step::Trailers(data));
                Ok(Trailers::Held)
            }
            Call::Done(Outcome::Pause(_)) => {
                let what = if held == Some(Held::Headers) { Held::Headers } else { Held::Trailers };
                if let Some(hold) = self.set_held(half, at, what) {
                    hold.end = End::Trailers;
                }
                // What it let go before is not for it to hold.
                Ok(if data.is_empty() { Trailers::Held } else { Trailers::Without(data) })
            }
            Call::Done(Outcome::Continue) => {
                let kept = self.let_go(at, half).unwrap_or_default();
                let data = if data.is_empty() { kept } else { data };
                if held == Some(Held::Headers) {
                    self.with_context(at, |context| context.access.revoke_map(half.headers()));
                    self.park(half, Some(at), data, End::Trailers);
                    return Ok(Trailers::Held);
                }
                Ok(Trailers::On(data))
            }
        }
    }
}

/// What a filter made of trailers.
pub(super) enum Trailers {
    /// They go on, with these bytes before them.
    On(Bytes),
    /// It holds them, and what is before them.
    Held,
    /// It holds them, but not the bytes before them.
    Without(Bytes),
}
