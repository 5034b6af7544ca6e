//! Filters for HTTP.

use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{MapKind, StreamKind};

use crate::body::Body;
use crate::error::{Explain, Result};
use crate::headers::{Headers, Trailers, header_functions};
use crate::raw;
use crate::reply::Reply;

/// A filter for HTTP. Put [`crate::http_filter`] on the `impl`: what it implements is exported, and nothing else.
pub trait HttpFilter: Sized + 'static {
    /// The filter's configuration: what serde makes of its JSON. Use `#[serde(deny_unknown_fields)]`, so that a
    /// slip of the operator is told. May be left out when there is none.
    type Config: DeserializeOwned;

    /// What the filter remembers from one phase of an exchange to the next. May be left out when it is nothing.
    type Stream: Default + 'static;

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// When the configuration makes no sense. The host then refuses it, with this error.
    fn new(config: Self::Config) -> Result<Self>;

    /// The headers of a request are here. While the filter pauses, the body waits.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500.
    fn on_request_headers(&self, _request: &mut Request, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// A piece of the request's body is here. While the filter pauses, the pieces gather.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500.
    fn on_request_body(&self, _body: &mut Body, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// The trailers of the request are here.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500.
    fn on_request_trailers(&self, _trailers: &mut Trailers, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// The headers of the response are here.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500.
    fn on_response_headers(&self, _response: &mut Response, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// A piece of the response's body is here.
    ///
    /// # Errors
    /// What is in the way; the response is cut off.
    fn on_response_body(&self, _body: &mut Body, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// The trailers of the response are here.
    ///
    /// # Errors
    /// What is in the way; the response is cut off.
    fn on_response_trailers(&self, _trailers: &mut Trailers, _stream: &mut Self::Stream) -> Result<Action> {
        Ok(Action::Continue)
    }

    /// The exchange is over. Request and response can still be read.
    fn on_log(&self, _request: &Request, _response: &Response, _stream: &mut Self::Stream) {}

    /// The timer, at the interval of [`HttpFilter::TICK`].
    fn on_tick(&self) {}

    /// The interval of [`HttpFilter::on_tick`].
    const TICK: Duration = Duration::from_secs(1);
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the next filter.
    Continue,
    /// It waits here, until the filter resumes it.
    Pause,
    /// This is the answer.
    Reply(Reply),
}

/// A request.
#[derive(Debug)]
pub struct Request {
    last: bool,
}

impl Request {
    pub(crate) fn new(last: u32) -> Self {
        Self { last: last != 0 }
    }

    fn map(&self) -> MapKind {
        MapKind::HttpRequestHeaders
    }

    /// Whether it has no body and no trailers.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The method.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn method(&self) -> Result<String> {
        self.header(":method").map(Option::unwrap_or_default)
    }

    /// Path and query.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn path(&self) -> Result<String> {
        self.header(":path").map(Option::unwrap_or_default)
    }

    /// Host and port, as the client named them.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn authority(&self) -> Result<String> {
        self.header(":authority").map(Option::unwrap_or_default)
    }

    /// Lets a request that was paused go on.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn resume(&mut self) -> Result<()> {
        raw::continue_stream(StreamKind::HttpRequest).explain(|| "resuming the request".to_owned())
    }
}

header_functions!(Request);

/// A response.
#[derive(Debug)]
pub struct Response {
    last: bool,
}

impl Response {
    pub(crate) fn new(last: u32) -> Self {
        Self { last: last != 0 }
    }

    fn map(&self) -> MapKind {
        MapKind::HttpResponseHeaders
    }

    /// Whether it has no body and no trailers.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// The status; 0 when the host names none.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn status(&self) -> Result<u16> {
        Ok(self.header(":status")?.and_then(|status| status.parse().ok()).unwrap_or(0))
    }

    /// Sets the status.
    ///
    /// # Errors
    /// When it is none, or not in this phase.
    pub fn set_status(&mut self, status: u16) -> Result<()> {
        self.set_header(":status", status.to_string())
    }

    /// Lets a response that was paused go on.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn resume(&mut self) -> Result<()> {
        raw::continue_stream(StreamKind::HttpResponse).explain(|| "resuming the response".to_owned())
    }
}

header_functions!(Response);
