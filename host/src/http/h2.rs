//! HTTP/2 by hyper, downstream and upstream. This is the one file that knows hyper.
//!
//! A downstream stream becomes a request, its body, and a [`Responder`]; what answers it is a task of its own,
//! cancelled when the client resets the stream. Bodies that Weir sends go through pipes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Uri, header};
use hyper::body::{Body as HyperBody, Frame as HyperFrame, Incoming as HyperIncoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use crate::config::limits::Underscores;
use crate::http::body::Frame;
use crate::http::h1::{BodyError, HeadError, Length, check_authority};
use crate::http::message::{Request, Response, Scheme, Version};
use crate::http::path::{PathRules, canonical};
use crate::http::pipe::{self, BrokenOff};
use crate::net::stream::Stream;

/// What a client sends first when it speaks HTTP/2 without asking (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one connection may ask of Weir.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams at a time.
    pub streams: u32,
    /// What may come on one stream before it is told to go on, in bytes.
    pub stream_window: u32,
    /// What may come on all of them.
    pub connection_window: u32,
    /// A header list, in bytes.
    pub header_bytes: u32,
    /// Its fields.
    pub fields: usize,
    /// A target, in bytes.
    pub target: usize,
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
    /// What is done to paths.
    pub path: PathRules,
}

/// The windows that Envoy's edge guide recommends towards endpoints.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);

/// Spawns on the worker.
#[derive(Debug, Clone, Copy)]
struct OnWorker;

impl<F> hyper::rt::Executor<F> for OnWorker
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A connection, with bytes that were read from it before.
struct Io {
    first: Bytes,
    stream: Stream,
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if !io.first.is_empty() {
            let part = io.first.split_to(io.first.len().min(buf.remaining()));
            buf.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut io.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The body of a message that comes through HTTP/2.
#[derive(Debug)]
pub struct Incoming(RefCell<HyperIncoming>);

impl Incoming {
    /// Reads a piece; `None` at the end.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        let mut body = self.0.borrow_mut();
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Reset)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Ok(Some(Frame::Data(data)))),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(Ok(Some(Frame::Trailers(trailers))));
                        }
                    }
                },
            }
        }
    }

    /// Whether it is at its end.
    pub fn at_end(&self) -> bool {
        self.0.borrow().is_end_stream()
    }

    fn length(&self, headers: &HeaderMap) -> Length {
        if self.at_end() {
            return Length::None;
        }
        let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        told.map_or(Length::Unknown, Length::Known)
    }
}

/// A body that Weir sends: what a pipe holds. With a task, the body ends the task when it is dropped.
struct Outgoing {
    pipe: pipe::Reader,
    task: Option<AbortHandle>,
}

impl HyperBody for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HyperFrame<Bytes>, BrokenOff>>> {
        Poll::Ready(match ready!(self.pipe.poll_frame(cx)) {
            Ok(None) => None,
            Ok(Some(Frame::Data(data))) => Some(Ok(HyperFrame::data(data))),
            Ok(Some(Frame::Trailers(trailers))) => Some(Ok(HyperFrame::trailers(trailers))),
            Err(broken) => Some(Err(broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.pipe.is_end()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            // What has ended in order is past cancelling.
            if !self.pipe.is_end() {
                task.abort();
            }
        }
    }
}

/// Sends the answer to a request: its head once, then its body.
#[derive(Debug)]
pub struct Responder {
    head: RefCell<Option<oneshot::Sender<Response>>>,
    body: pipe::Writer,
}

impl Responder {
    /// Sends the head. A client that is gone does not get it.
    pub fn send_head(&self, response: Response) {
        if let Some(head) = self.head.borrow_mut().take() {
            // The stream was reset meanwhile.
            let _ = head.send(response);
        }
    }

    /// Where the body goes.
    pub fn body(&self) -> &pipe::Writer {
        &self.body
    }
}

/// A request as it came.
#[derive(Debug)]
pub struct Received {
    /// The request.
    pub request: Request,
    /// How long its body is.
    pub length: Length,
    /// Its body.
    pub body: Incoming,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Serves a connection: every request is handed to `serve`, whose future answers it; what is none that a proxy serves
/// is answered with what `refuse` returns. Once `drain` says so, no further streams are taken, and the connection ends
/// with the last one.
///
/// # Errors
/// When the connection fails.
pub async fn serve<F>(
    stream: Stream,
    first: Bytes,
    scheme: Scheme,
    limits: Limits,
    mut drain: impl FnMut(&mut Context<'_>) -> bool,
    refuse: impl Fn(HeadError) -> (Response, Bytes),
    serve: impl Fn(Received) -> F,
) -> Result<(), String>
where
    F: Future<Output = ()> + 'static,
{
    let service = service_fn(move |request: http::Request<HyperIncoming>| {
        let (parts, body) = request.into_parts();
        let (head, told) = oneshot::channel();
        let (body_writer, pipe) = pipe::pipe();
        let responder = Responder { head: RefCell::new(Some(head)), body: body_writer };
        let task = match receive(parts, body, scheme, &limits) {
            Ok((request, length, body)) => {
                let received = Received { request, length, body, responder };
                Some(spawn_local(serve(received)).abort_handle())
            }
            Err(error) => {
                let (response, body) = refuse(error);
                responder.send_head(response);
                responder.body.data(body);
                responder.body.end(None);
                None
            }
        };
        let body = Outgoing { pipe, task };
        async move {
            // A task that ends without an answer resets the stream.
            let Response { status, headers } = told.await.map_err(|_| BrokenOff)?;
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, BrokenOff>(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(OnWorker)
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .serve_connection(TokioIo::new(Io { first, stream }), service);
    let mut connection = pin!(connection);
    let mut draining = false;
    poll_fn(|cx| {
        if !draining && drain(cx) {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await
    .map_err(|error| error.to_string())
}

/// Does about underscores in names what is to be done.
fn treat_underscores(headers: &mut HeaderMap, action: Underscores) -> Result<(), HeadError> {
    let underscored = |name: &&HeaderName| name.as_str().contains('_');
    match action {
        Underscores::Allow => {}
        Underscores::Reject if headers.keys().any(|name| underscored(&name)) => {
            return Err(HeadError::Underscore);
        }
        Underscores::Drop if headers.keys().any(|name| underscored(&name)) => {
            let names: Vec<HeaderName> = headers.keys().filter(underscored).cloned().collect();
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
        Underscores::Reject | Underscores::Drop => {}
    }
    Ok(())
}

/// A request in Weir's form.
fn receive(
    parts: http::request::Parts,
    body: HyperIncoming,
    scheme: Scheme,
    limits: &Limits,
) -> Result<(Request, Length, Incoming), HeadError> {
    let mut headers = parts.headers;
    if parts.method == http::Method::CONNECT {
        return Err(HeadError::Connect);
    }
    if headers.len() > limits.fields {
        return Err(HeadError::TooManyFields);
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(HeadError::SeveralHosts);
    }
    treat_underscores(&mut headers, limits.underscores)?;
    let host = headers.remove(header::HOST);
    let authority = match (parts.uri.authority(), &host) {
        (Some(authority), _) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| HeadError::InvalidHost)?
        }
        (None, Some(host)) => host.clone(),
        (None, None) => return Err(HeadError::MissingHost),
    };
    check_authority(authority.as_bytes())?;
    // The two are to be the same (RFC 9113 section 8.3.1).
    if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(HeadError::InvalidHost);
    }
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if path.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    let changed = if path == "*" { None } else { canonical(path.as_bytes(), limits.path)? };
    let path = match changed {
        Some(path) => HeaderValue::from_maybe_shared(Bytes::from(path)),
        None => HeaderValue::from_str(path),
    };
    let path = path.map_err(|_| HeadError::Target)?;
    let body = Incoming(RefCell::new(body));
    let length = body.length(&headers);
    let request = Request { method: parts.method, scheme, authority, path, version: Version::Http2, headers };
    Ok((request, length, body))
}

/// A connection to an endpoint that speaks HTTP/2. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Outgoing>,
    /// Whether an exchange has found it closed, before the runtime has.
    over: Rc<Cell<bool>>,
}

/// A response that is awaited.
pub type Answer = Pin<Box<dyn Future<Output = Result<(Response, Length, Incoming), NoAnswer>>>>;

/// Why there is no response.
#[derive(Debug)]
pub struct NoAnswer {
    /// Why, in words.
    pub reason: String,
    /// Whether it is the connection that failed, or the endpoint that did not begin the request: on another
    /// connection it may succeed. Else the endpoint itself reset the stream.
    pub elsewhere: bool,
    /// Whether the connection is over.
    over: bool,
}

impl NoAnswer {
    /// A failure that has nothing to do with the connection.
    pub fn here(reason: String) -> Self {
        Self { reason, elsewhere: false, over: false }
    }

    fn of(error: &hyper::Error) -> Self {
        let stream = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let reset = stream.filter(|stream| stream.is_reset());
        let elsewhere = reset.is_none_or(|reset| reset.reason() == Some(h2::Reason::REFUSED_STREAM));
        Self { reason: explain(error), elsewhere, over: reset.is_none() }
    }
}

impl Client {
    /// Begins to speak HTTP/2 over a connection. `held` lives as long as the connection does.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn new(stream: Stream, held: impl Sized + 'static) -> Result<Self, String> {
        let io = TokioIo::new(Io { first: Bytes::new(), stream });
        let (client, connection) = hyper::client::conn::http2::Builder::new(OnWorker)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        spawn_local(async move {
            let _held = held;
            // How it ended shows in the exchanges that were under way.
            let _ = connection.await;
        });
        Ok(Self { sender: client, over: Rc::default() })
    }

    /// Whether the connection takes further requests.
    pub fn is_open(&self) -> bool {
        !self.over.get() && !self.sender.is_closed()
    }

    /// Sends a request, whose body goes into the pipe that is returned.
    ///
    /// # Errors
    /// When the request cannot be put into HTTP/2's form.
    pub fn send(&mut self, request: &Request, length: Length) -> Result<(Answer, pipe::Writer), String> {
        let (writer, pipe) = pipe::pipe();
        if length == Length::None {
            writer.end(None);
        }
        let uri = Uri::builder()
            .scheme(match request.scheme {
                Scheme::Http => UriScheme::HTTP,
                Scheme::Https => UriScheme::HTTPS,
            })
            .authority(Authority::try_from(request.authority.as_bytes()).map_err(|error| error.to_string())?)
            .path_and_query(
                PathAndQuery::try_from(request.path.as_bytes()).map_err(|error| error.to_string())?,
            )
            .build()
            .map_err(|error| error.to_string())?;
        let mut message = http::Request::new(Outgoing { pipe, task: None });
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        *message.version_mut() = http::Version::HTTP_2;
        *message.headers_mut() = request.headers.clone();
        match length {
            Length::Known(length) => {
                message.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            Length::None | Length::Unknown => {
                message.headers_mut().remove(header::CONTENT_LENGTH);
            }
        }
        let answer = self.sender.send_request(message);
        let over = Rc::clone(&self.over);
        let answer = Box::pin(async move {
            let answered = answer.await.map_err(|error| NoAnswer::of(&error));
            let answered = answered.inspect_err(|error| over.set(over.get() || error.over));
            let (parts, body) = answered?.into_parts();
            let body = Incoming(RefCell::new(body));
            let length = body.length(&parts.headers);
            Ok((Response { status: parts.status, headers: parts.headers }, length, body))
        });
        Ok((answer, writer))
    }
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
