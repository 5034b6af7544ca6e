//! Filters for HTTP.

use std::future::ready;
use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{MapKind, StreamKind};

use crate::body::Body;
use crate::error::{Explain, Result};
use crate::headers::{Headers, Trailers, header_functions};
use crate::reply::Reply;
use crate::{fields, raw};

/// A filter for HTTP. Put [`crate::http_filter`] on the `impl`: what it implements is exported, and nothing else.
///
/// The methods about messages are written as `fn` or as `async fn`, each as it needs, and return `Result<Action>`: the
/// attribute makes of both what this trait asks for. While an `async fn` awaits something the host holds its half of the
/// exchange, and whatever comes of that meanwhile is shown afterwards. An `fn`, and an `async fn` that finds everything
/// at hand, hold nothing.
///
/// When the exchange ends while something is awaited, because the client has gone or the host's time for it is up, the
/// future is dropped where it waits, and with it the calls that it has under way.
pub trait HttpFilter: Sized + 'static {
    /// The filter's configuration: what serde makes of its JSON. Use `#[serde(deny_unknown_fields)]`, so that a
    /// slip of the operator is told. May be left out when there is none.
    type Config: DeserializeOwned;

    /// What the filter remembers from one phase of an exchange to the next. May be left out when it is nothing.
    ///
    /// As long as one method has it no other is called for the exchange: what comes waits. A filter that remembers
    /// nothing can await something in both directions at once.
    type Stream: Default + 'static;

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// When the configuration makes no sense. The host then refuses it, with this error.
    fn new(config: Self::Config) -> Result<Self>;

    /// A request is here: its headers, and its body as it is awaited. It goes on when this returns.
    ///
    /// The headers wait as long as the body is not asked for, and can be edited that long. They go on when the body is
    /// first awaited, unless [`Body::hold_headers`] says otherwise; the body is held, and can be answered in the place of
    /// the upstream. What is not read goes on as it comes.
    ///
    /// It is in the place of [`HttpFilter::on_request_headers`] and [`HttpFilter::on_request_body`].
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_request(
        &self,
        _request: &mut Request,
        _body: &mut Body,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// The headers of a request are here. The body waits for them.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_request_headers(
        &self,
        _request: &mut Request,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// A piece of the request's body is here. While the filter pauses, the pieces gather, and it is called again with
    /// all of them. An `async fn` can await the rest instead.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_request_body(
        &self,
        _body: &mut Body,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// The trailers of the request are here.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_request_trailers(
        &self,
        _trailers: &mut Trailers,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// A response is here: its headers, and its body as it is awaited. As [`HttpFilter::on_request`], and in the place of
    /// [`HttpFilter::on_response_headers`] and [`HttpFilter::on_response_body`].
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_response(
        &self,
        _response: &mut Response,
        _body: &mut Body,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// The headers of the response are here.
    ///
    /// # Errors
    /// What is in the way; the request is answered with 500, or as the error says.
    fn on_response_headers(
        &self,
        _response: &mut Response,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// A piece of the response's body is here.
    ///
    /// # Errors
    /// What is in the way; the response is cut off.
    fn on_response_body(
        &self,
        _body: &mut Body,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// The trailers of the response are here.
    ///
    /// # Errors
    /// What is in the way; the response is cut off.
    fn on_response_trailers(
        &self,
        _trailers: &mut Trailers,
        _stream: &mut Self::Stream,
    ) -> impl Future<Output = Result<Action>> {
        ready(Ok(Action::Continue))
    }

    /// The exchange is over. Request and response can still be read.
    fn on_log(&self, _request: &Request, _response: &Response, _stream: &mut Self::Stream) {}

    /// The timer, at the interval of [`HttpFilter::TICK`].
    fn on_tick(&self) {}

    /// The interval of [`HttpFilter::on_tick`].
    const TICK: Duration = Duration::from_secs(1);

    /// Which of the methods about messages there are. The attribute says it.
    #[doc(hidden)]
    const METHODS: u32 = 0;

    /// Which of them are `async fn`. The attribute says it.
    #[doc(hidden)]
    const AWAITS: u32 = 0;
}

/// A bit for each method about messages, as the attribute counts them.
pub(crate) mod method {
    pub(crate) const REQUEST: u32 = 1 << 0;
    pub(crate) const REQUEST_HEADERS: u32 = 1 << 1;
    pub(crate) const REQUEST_BODY: u32 = 1 << 2;
    pub(crate) const REQUEST_TRAILERS: u32 = 1 << 3;
    pub(crate) const RESPONSE: u32 = 1 << 4;
    pub(crate) const RESPONSE_HEADERS: u32 = 1 << 5;
    pub(crate) const RESPONSE_BODY: u32 = 1 << 6;
    pub(crate) const RESPONSE_TRAILERS: u32 = 1 << 7;
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
/// ```
/// use weir_sdk::prelude::*;
///
/// /// Requests for an old address, and for one that a query names, go to the new one.
/// fn redirect(request: &Request) -> Result<Action> {
///     let query = request.query()?;
///     let wanted = query.iter().find(|(name, _)| name == "page").map(|(_, page)| page.as_str());
///     let known = request.cookie("session")?.is_some();
///     Ok(match (request.method()?.as_str(), wanted) {
///         ("GET", Some(page)) if known => Action::Reply(Reply::new(301).header("location", format!("/pages/{page}"))),
///         _ => Action::Continue,
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Request {
    last: bool,
}

impl Request {
    pub(crate) fn new(last: bool) -> Self {
        Self { last }
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

    /// The cookie of this name that comes first.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn cookie(&self, name: &str) -> Result<Option<String>> {
        let headers = self.headers()?;
        let texts = headers.get_all("cookie").filter_map(|value| str::from_utf8(value).ok());
        let mut cookies = texts.flat_map(fields::cookies);
        Ok(cookies.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned()))
    }

    /// The parameters of the query, decoded, in order. A name may be there several times.
    ///
    /// # Errors
    /// When the headers cannot be read in this phase.
    pub fn query(&self) -> Result<Vec<(String, String)>> {
        let path = self.path()?;
        Ok(fields::query(&path).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
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
/// ```
/// use weir_sdk::prelude::*;
///
/// /// Nobody need know how it failed.
/// fn hide(response: &mut Response) -> Result<Action> {
///     if response.status()? >= 500 {
///         response.set_status(503)?;
///         response.set_header("retry-after", "5")?;
///         response.remove_header("x-powered-by")?;
///     }
///     Ok(Action::Continue)
/// }
/// ```
#[derive(Debug)]
pub struct Response {
    last: bool,
}

impl Response {
    pub(crate) fn new(last: bool) -> Self {
        Self { last }
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
