//! Headers and trailers of an HTTP exchange.
//!
//! A filter that holds the headers sees no body until it lets them go (Envoy's StopAllIteration). Trailers end a
//! body that is held, too.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use weir_abi::MapKind;

use crate::http::body::Buffer;
use crate::plugin::abi::Callbacks;
use crate::plugin::chain::data::{Passed, trailers, with_buffer};
use crate::plugin::chain::{Chain, Half, Held, Outcome, Stop, Which};

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
            if let Some((at, _)) = self.progress(half).held {
                ready!(self.poll_release(half, cx))?;
                self.progress(half).held = None;
                self.set_access(at, |access| access.revoke_map(half.headers()));
            }
            let seen = self.progress(half).headers_seen;
            let Some(at) = self.order(half).nth(seen) else { return Poll::Ready(Ok(())) };
            self.progress(half).headers_seen += 1;
            self.headers_step(half, at, end)?;
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
        let params = |id| (id, count, u32::from(end));
        match self.call(at, half, |access| access.grant_map(map), half.on_headers(), params)? {
            Outcome::Pause => self.progress(half).held = Some((at, Held::Start)),
            Outcome::Continue => self.set_access(at, |access| access.revoke_map(map)),
        }
        Ok(())
    }

    fn header_count(&self, half: Half) -> u32 {
        let stream = self.stream.borrow();
        let count = match half {
            Half::Received => stream.request.as_ref().map_or(0, |request| request.headers.len() + 4),
            Half::Answered => stream.response.as_ref().map_or(0, |response| response.headers.len() + 1),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Shows the trailers to the filters; a body that is held goes with them.
    ///
    /// # Errors
    /// When a filter ends the exchange.
    pub fn on_trailers(&mut self, half: Half, trailers: HeaderMap) -> Result<Passed, Stop> {
        match half {
            Half::Received => self.stream.borrow_mut().request_trailers = Some(trailers),
            Half::Answered => self.stream.borrow_mut().response_trailers = Some(trailers),
        }
        let holder = self.progress(half).held.take().map(|(at, _)| at);
        if let Some(at) = holder
            && self.trailers_step(half, at)?
        {
            return Ok(Passed::Held);
        }
        self.pass_trailers(half, holder)
    }

    /// Shows the body, if any is left, and the trailers to the filters behind `last`.
    pub(super) fn pass_trailers(&mut self, half: Half, last: Option<usize>) -> Result<Passed, Stop> {
        for at in self.after(half, last) {
            let waiting = with_buffer(&mut self.stream.borrow_mut(), half, |body| !body.is_empty());
            if waiting {
                // The trailers are here already: a filter that holds the body is shown them at once.
                self.data_step(half, at, false)?;
                self.progress(half).held = None;
            }
            if self.trailers_step(half, at)? {
                return Ok(Passed::Held);
            }
        }
        let mut stream = self.stream.borrow_mut();
        let data: Bytes = with_buffer(&mut stream, half, Buffer::take);
        Ok(Passed::End(data, trailers(&stream, half).cloned().unwrap_or_default()))
    }

    /// Shows the trailers to one filter; true when the filter holds them.
    fn trailers_step(&mut self, half: Half, at: usize) -> Result<bool, Stop> {
        if !self.takes_part(at, half) {
            return Ok(false);
        }
        let map = half.trailers();
        let count = trailers(&self.stream.borrow(), half).map_or(0, HeaderMap::len);
        let params = |id| (id, u32::try_from(count).unwrap_or(u32::MAX));
        match self.call(at, half, |access| access.grant_map(map), half.on_trailers(), params)? {
            Outcome::Pause => {
                self.progress(half).held = Some((at, Held::Trailers));
                Ok(true)
            }
            Outcome::Continue => {
                self.let_go(at, half);
                Ok(false)
            }
        }
    }
}
