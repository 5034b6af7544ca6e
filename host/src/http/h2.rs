//! HTTP/2 by hyper, downstream and upstream. This is the one file that knows hyper.
//!
//! A downstream stream becomes a request, its body, and a [`Responder`]; what answers it is a task of its own,
//! cancelled when the client resets the stream. Bodies that Weir sends go through pipes.

mod frames;
mod ledger;
mod receive;
mod watched;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Uri, header};
use hyper::body::{Body as HyperBody, Frame as HyperFrame, Incoming as HyperIncoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use crate::clock::Timer;
use crate::config::limits::Underscores;
use crate::http::body::Frame;
use crate::http::h1::{BodyError, HeadError, Length};
use crate::http::h2::ledger::Ledger;
use crate::http::h2::receive::{receive, receive_trailers};
use crate::http::h2::watched::Watched;
use crate::http::message::{Request, Response, Scheme};
use crate::http::path::PathRules;
use crate::http::pipe::{self, BrokenOff};
use crate::net::close::CloseReason;
use crate::net::stream::Stream;

pub use ledger::{FrameLimits, Refusal};

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
    /// A header list, in bytes, each field with 32 more (RFC 9113 section 6.5.2).
    pub header_bytes: u32,
    /// What may wait to be written of one answer, in bytes.
    pub send_buffer: usize,
    /// Streams that are malformed, or more than there may be, over the life of the connection; 0 is no limit.
    pub stream_errors: usize,
    /// Frames that get nothing done.
    pub frames: FrameLimits,
    /// How long the preface may take, a header block, and every frame but DATA; zero is no limit.
    pub head_timeout: Duration,
    /// How long nothing may move when all is answered and the client does not take it; zero is no limit.
    pub stream_idle: Duration,
    /// What a client that was told to go may still send, in bytes, and how long it may take to do so.
    pub linger: (usize, Duration),
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

/// Spawns the streams of one connection on the worker, each in the place that was made for it.
#[derive(Debug, Clone, Default)]
struct OnConnection(Rc<RefCell<Option<Place>>>);

/// Where the task of a stream is, with which hyper sends the answer.
type Place = Rc<RefCell<Option<AbortHandle>>>;

impl<F> hyper::rt::Executor<F> for OnConnection
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        let task = spawn_local(async move {
            future.await;
        });
        // hyper spawns a stream as soon as its request was taken.
        if let Some(place) = self.0.borrow_mut().take() {
            place.replace(Some(task.abort_handle()));
        }
    }
}

/// The body of a message that comes through HTTP/2.
#[derive(Debug)]
pub struct Incoming {
    body: RefCell<HyperIncoming>,
    /// What becomes of trailers with an underscore in their name.
    underscores: Underscores,
}

impl Incoming {
    fn new(body: HyperIncoming, underscores: Underscores) -> Self {
        Self { body: RefCell::new(body), underscores }
    }

    /// Reads a piece; `None` at the end.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        let mut body = self.body.borrow_mut();
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Reset)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Ok(Some(Frame::Data(data)))),
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            receive_trailers(&mut trailers, self.underscores).map_err(BodyError::Trailers)?;
                            return Poll::Ready(Ok(Some(Frame::Trailers(trailers))));
                        }
                    }
                },
            }
        }
    }

    /// Whether it is at its end.
    pub fn at_end(&self) -> bool {
        self.body.borrow().is_end_stream()
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
    /// What is left of a piece that is handed on frame by frame.
    rest: Bytes,
}

/// What is handed on at a time: a frame. hyper gives all of it to h2 once the client takes a byte, and there no deadline
/// sees it any more.
const PIECE: usize = 16 * 1024;

impl HyperBody for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HyperFrame<Bytes>, BrokenOff>>> {
        let outgoing = self.get_mut();
        if !outgoing.rest.is_empty() {
            let piece = outgoing.rest.split_to(outgoing.rest.len().min(PIECE));
            return Poll::Ready(Some(Ok(HyperFrame::data(piece))));
        }
        Poll::Ready(match ready!(outgoing.pipe.poll_frame(cx)) {
            Ok(None) => None,
            Ok(Some(Frame::Data(mut data))) => {
                outgoing.rest = data.split_off(data.len().min(PIECE));
                Some(Ok(HyperFrame::data(data)))
            }
            Ok(Some(Frame::Trailers(trailers))) => Some(Ok(HyperFrame::trailers(trailers))),
            Err(broken) => Some(Err(broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.pipe.is_end()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // What has ended in order is past cancelling.
        if !self.is_end_stream() {
            self.task.iter().for_each(AbortHandle::abort);
        }
    }
}

/// Sends the answer to a request: its head once, then its body.
#[derive(Debug)]
pub struct Responder {
    head: RefCell<Option<oneshot::Sender<Response>>>,
    body: pipe::Writer,
    sending: Place,
}

impl Responder {
    /// Cuts the answer off: the stream is reset.
    pub fn cut(&self) {
        self.body.break_off();
        // hyper asks for nothing while it waits for a window, and would not learn of it.
        if self.body.is_lent() {
            self.sending.borrow().iter().for_each(AbortHandle::abort);
        }
    }

    /// Sends the head. A client that is gone does not get it.
    pub fn send_head(&self, response: Response) {
        if let Some(head) = self.head.borrow_mut().take() {
            // The stream was reset meanwhile.
            let _ = head.send(response);
        }
    }

    /// Sends an answer that is here in full.
    pub fn send_whole(&self, response: Response, body: Bytes) {
        self.send_head(response);
        self.body.data(body);
        self.body.end(None);
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

/// A connection that is to be served.
pub struct Begun {
    /// The connection.
    pub stream: Stream,
    /// What was read from it already.
    pub first: Bytes,
    /// How requests reach Weir on it.
    pub scheme: Scheme,
    /// End what must not take long.
    pub timers: [Timer; 2],
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It goes on.
    On,
    /// It takes no further streams, and ends with the last one.
    Drain,
    /// It ends now.
    End,
}

/// What requests are handed to.
pub trait Front: 'static {
    /// What becomes of the connection. Asked whenever something happens on it.
    fn course(&self, cx: &Context<'_>) -> Course;

    /// Whether nothing is being answered.
    fn is_idle(&self) -> bool;

    /// The answer to what is no request that a proxy serves.
    fn refuse(&self, error: HeadError) -> (Response, Bytes);

    /// Takes note of what was refused before it could be looked at.
    fn note(&self, refusal: Refusal);

    /// Answers a request.
    fn answer(self: Rc<Self>, received: Received) -> impl Future<Output = ()> + 'static;

    /// Takes note that the connection has not ended in order.
    fn ended(&self, ended: Ended);
}

/// How a connection ended that did not end in order.
#[derive(Debug)]
pub struct Ended {
    /// Why Weir ended it; `None` when the client did, or the connection failed.
    pub reason: Option<CloseReason>,
    /// Why, in words.
    pub text: String,
}

/// Serves a connection until its end.
pub async fn serve(begun: Begun, limits: Limits, front: Rc<impl Front>) {
    let Begun { stream, first, scheme, timers: [head, answers] } = begun;
    let (mut head, mut answers) = (Awaited::new(head), Awaited::new(answers));
    let ledger = Rc::new(Ledger::new(limits.frames));
    let mut io = Watched::new(stream, first, Rc::clone(&ledger));
    let on_connection = OnConnection::default();
    let requests = Requests { scheme, limits, front: Rc::clone(&front) };
    let places = Rc::clone(&on_connection.0);
    let service = service_fn(move |request: http::Request<HyperIncoming>| {
        let place = Place::default();
        places.replace(Some(Rc::clone(&place)));
        requests.begin(request, place)
    });
    let ended = {
        let connection = hyper::server::conn::http2::Builder::new(on_connection)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_bytes)
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_send_buf_size(limits.send_buffer)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(Some(limits.stream_errors).filter(|most| *most > 0))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(TokioIo::new(&mut io), service);
        let mut connection = pin!(connection);
        let mut draining = false;
        poll_fn(|cx| {
            match front.course(cx) {
                Course::On => {}
                Course::Drain if draining => {}
                Course::Drain => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                Course::End => return Poll::Ready(Ok(())),
            }
            ledger.begin_turn();
            let polled = connection.as_mut().poll(cx);
            ledger.tell_refusals(|refusal| front.note(refusal));
            if let Poll::Ready(ended) = polled {
                return Poll::Ready(ended.map_err(|error| Ended::of(&error, &ledger)));
            }
            if head.is_late(ledger.awaited(), limits.head_timeout, cx) {
                return Poll::Ready(Err(Ended::by(CloseReason::Http2HeadTimeout)));
            }
            while answers.is_late(ledger.unsent(), limits.stream_idle, cx) {
                if front.is_idle() {
                    return Poll::Ready(Err(Ended::by(CloseReason::Http2Stalled)));
                }
                // As long as exchanges are under way, they have deadlines of their own.
                answers.what = None;
            }
            Poll::Pending
        })
        .await
    };
    let Err(ended) = ended else { return };
    let reason = ended.reason;
    front.ended(ended);
    let Some(reason) = reason else { return };
    let (most, time) = limits.linger;
    head.timer.set(time);
    // What h2 ended it has told of by itself.
    let own = [Some(CloseReason::Http2HeadTimeout), Some(CloseReason::Http2Stalled), ledger.broken()];
    let leaving = async {
        if own.contains(&Some(reason)) {
            io.say_goodbye(h2::Reason::ENHANCE_YOUR_CALM.into(), reason.as_str()).await?;
        }
        io.linger(most).await
    };
    // The client may be gone, or send for ever.
    let _ = head.timer.limit(leaving).await;
}

/// Something that must not take long, by a number that tells it from what was awaited before.
struct Awaited {
    timer: Timer,
    what: Option<u64>,
}

impl Awaited {
    fn new(timer: Timer) -> Self {
        // It may stand for what has come already.
        timer.clear();
        Self { timer, what: None }
    }

    fn is_late(&mut self, what: Option<u64>, limit: Duration, cx: &Context<'_>) -> bool {
        if self.what != what {
            self.what = what;
            self.timer.set_limit(if what.is_some() { limit } else { Duration::ZERO });
        }
        self.timer.poll_expired(cx).is_ready()
    }
}

/// Streams that may be reset before they were looked at: more than that come in no other way than by the dozen.
const PENDING_RESETS: usize = 20;

/// What the requests of a connection have in common.
struct Requests<F> {
    scheme: Scheme,
    limits: Limits,
    front: Rc<F>,
}

impl<F: Front> Requests<F> {
    /// Begins to answer a request.
    fn begin(
        &self,
        request: http::Request<HyperIncoming>,
        sending: Place,
    ) -> impl Future<Output = Result<http::Response<Outgoing>, BrokenOff>> + use<F> {
        let (parts, body) = request.into_parts();
        let (head, told) = oneshot::channel();
        let (body_writer, pipe) = pipe::pipe();
        let responder = Responder { head: RefCell::new(Some(head)), body: body_writer, sending };
        let task = match receive(parts, self.scheme, &self.limits) {
            Ok(request) => {
                let body = Incoming::new(body, self.limits.underscores);
                let length = body.length(&request.headers);
                let received = Received { request, length, body, responder };
                Some(spawn_local(Rc::clone(&self.front).answer(received)).abort_handle())
            }
            Err(error) => {
                let (response, body) = self.front.refuse(error);
                responder.send_whole(response, body);
                None
            }
        };
        let body = Outgoing { pipe, task, rest: Bytes::new() };
        async move {
            // A task that ends without an answer resets the stream.
            let Response { status, headers } = told.await.map_err(|_| BrokenOff)?;
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

impl Ended {
    fn by(reason: CloseReason) -> Self {
        Self { reason: Some(reason), text: reason.as_str().to_owned() }
    }

    /// Why a connection ended: for what Weir has counted, or for what h2 did not want to go on with.
    fn of(error: &hyper::Error, ledger: &Ledger) -> Self {
        if let Some(reason) = ledger.broken() {
            return Self::by(reason);
        }
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let own = cause.filter(|cause| cause.is_go_away() && cause.is_library());
        let reason = own.map(|own| ledger.calmed().unwrap_or_else(|| close_reason(own)));
        Self { reason, text: explain(error) }
    }
}

/// What h2 ended a connection for.
fn close_reason(error: &h2::Error) -> CloseReason {
    match error.reason() {
        Some(h2::Reason::FLOW_CONTROL_ERROR) => CloseReason::Http2FlowControl,
        Some(h2::Reason::FRAME_SIZE_ERROR) => CloseReason::Http2FrameSize,
        Some(h2::Reason::COMPRESSION_ERROR) => CloseReason::Http2Compression,
        Some(_) | None => CloseReason::Http2Protocol,
    }
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
        let io = TokioIo::new(stream);
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
        let mut message = http::Request::new(Outgoing { pipe, task: None, rest: Bytes::new() });
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
            let body = Incoming::new(body, Underscores::Allow);
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
