//! HTTP/2 towards clients, and what ends a connection that does not end in order.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming as HyperIncoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::clock::Timer;
use crate::http::h1::HeadError;
use crate::http::h2::ledger::{Ledger, Refusal};
use crate::http::h2::receive::receive;
use crate::http::h2::watched::Watched;
use crate::http::h2::{Incoming, Limits, Outgoing, PING, PONG, Place, Received, Responder, explain};
use crate::http::message::{Response, Scheme};
use crate::http::path::is_redirected;
use crate::http::pipe::{self, BrokenOff};
use crate::net::close::CloseReason;
use crate::net::stream::Stream;

/// Spawns the streams of one connection on the worker, each in the place that was made for it.
#[derive(Debug, Clone, Default)]
struct OnConnection(Rc<RefCell<Option<Place>>>);

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
    /// It ends as soon as the answers have left.
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
    let over = io.over();
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
            // The ledger counts them, and lets answers make up for them.
            .max_local_error_reset_streams(None)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(TokioIo::new(&mut io), service);
        let mut connection = pin!(connection);
        let mut draining = false;
        poll_fn(|cx| {
            let course = front.course(cx);
            if course != Course::On && !draining {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            ledger.begin_turn();
            let mut polled = connection.as_mut().poll(cx);
            if matches!(polled, Poll::Ready(Ok(()))) && !over.get() {
                // hyper has reset a CONNECT that announces a body, and calls that an end. It is none: nothing else is
                // over, and hyper goes on where it was.
                ledger.refuse_connect();
                cx.waker().wake_by_ref();
                polled = Poll::Pending;
            }
            ledger.tell_refusals(|refusal| front.note(refusal));
            if let Poll::Ready(ended) = polled {
                return Poll::Ready(ended.map_err(|error| Ended::of(&error, &ledger)));
            }
            if let Some(reason) = ledger.broken() {
                return Poll::Ready(Err(Ended::by(reason)));
            }
            // What was answered is not cut off; how long it may take has a bound of its own.
            if course == Course::End && ledger.unsent().is_none() {
                return Poll::Ready(Ok(()));
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
    let untold = match ended {
        // Answers may still be on their way.
        Ok(()) => None,
        Err(ended) => {
            let reason = ended.reason;
            front.ended(ended);
            // What has failed cannot be closed in order.
            let Some(reason) = reason else { return };
            // What h2 ended it has told of by itself.
            let own = [Some(CloseReason::Http2HeadTimeout), Some(CloseReason::Http2Stalled), ledger.broken()];
            own.contains(&Some(reason)).then_some(reason)
        }
    };
    leave(&mut io, &head.timer, limits.linger, untold).await;
}

/// Closes a connection so that the client can read why; `untold`: what it is still to be told.
async fn leave(io: &mut Watched, timer: &Timer, linger: (usize, Duration), untold: Option<CloseReason>) {
    let (most, time) = linger;
    timer.set(time);
    let leaving = async {
        if let Some(reason) = untold {
            io.say_goodbye(h2::Reason::ENHANCE_YOUR_CALM.into(), reason.as_str()).await?;
        }
        io.linger(most).await
    };
    // The client may be gone, or send for ever.
    let _ = timer.limit(leaving).await;
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
        let redirected = is_redirected(parts.uri.path().as_bytes(), self.limits.path);
        let task = match receive(parts, self.scheme, &self.limits) {
            Ok(request) => {
                let body = Incoming::new(body, Some(self.limits.underscores));
                let length = body.length(&request.headers);
                let received = Received { request, length, body, responder, redirected };
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
