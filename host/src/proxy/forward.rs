//! Forwards a request to its cluster, and the answer back. Both bodies move at the same time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use crate::clock::{Moment, Timer};
use crate::http::h1::connection::{Failure as HeadFailure, Persistence};
use crate::http::h1::{self, BodyError, Length};
use crate::http::h2;
use crate::http::marks::Marks;
use crate::http::message::{Response, strip_hop_by_hop};
use crate::http::peer::{Sink, SinkError, Source};
use crate::http::pipe;
use crate::net::stream::Stream;
use crate::plugin::chain::Half;
use crate::plugin::stream::Upstream as UpstreamInfo;
use crate::proxy::downstream::Downstream;
use crate::proxy::exchange::Exchange;
use crate::proxy::pump::{Broken, Pump};
use crate::proxy::reply::Failure;
use crate::proxy::retry::Attempt;
use crate::route::Route;
use crate::upstream::connection::{Http1, HttpConnection, Wanted};
use crate::upstream::local::LocalCluster;

/// An exchange that has changed its protocol: the upstream's connection, and what was read from it beyond the head.
pub struct Upgraded {
    /// The connection.
    pub stream: Stream,
    /// What was read from it already.
    pub rest: Bytes,
}

/// Interim responses that an upstream may send before its answer.
pub const MOST_INTERIM: usize = 16;

/// The upstream's side of one exchange.
enum Upstream {
    H1(Box<Http1>),
    H2 {
        answer: RefCell<h2::Answer>,
        /// Whoever shares the connection does not pay for this exchange.
        _part: h2::Part,
        body: pipe::Writer,
        incoming: RefCell<Option<h2::Incoming>>,
        /// Whether the connection may have been closed before the request came: see [`h2::NoAnswer::elsewhere`].
        stale: Cell<bool>,
    },
}

impl Exchange<'_> {
    /// Forwards the request. What is returned is a connection that has changed its protocol.
    pub async fn forward(&self, route: &Route) -> Result<Option<Upgraded>, Failure> {
        let number = route.action.pick().ok_or(Failure::NoRoute)?;
        let cluster = self.local.clusters.get(number).ok_or(Failure::NoRoute)?;
        {
            let mut stream = self.stream.borrow_mut();
            let cluster = cluster.cluster();
            stream.info.cluster = Some(Arc::clone(&cluster.facts));
            stream.info.endpoints = Some(cluster.endpoints.len());
            if let Some(request) = &mut stream.request {
                let rewritten = route.rewritten(request.target());
                if let Some(path) = rewritten.and_then(|path| HeaderValue::try_from(path).ok()) {
                    request.path = path;
                }
            }
        }
        let attempt = self.attempts(cluster, route).await;
        let metrics = &cluster.cluster().metrics;
        match attempt {
            Ok(upgraded) => {
                let status =
                    self.stream.borrow().response.as_ref().map_or(0, |response| response.status.as_u16());
                if let Some(counter) = metrics.responses.get(usize::from(status / 100).wrapping_sub(1)) {
                    counter.inc();
                }
                Ok(upgraded)
            }
            Err(Attempt { failure, .. }) => {
                metrics.failures.inc();
                Err(failure)
            }
        }
    }

    pub(super) async fn attempt(
        &self,
        cluster: &Rc<LocalCluster>,
        wanted: Wanted,
        route: &Route,
    ) -> Result<Option<Upgraded>, Attempt> {
        let fresh = |failure, address| Attempt { failure, address, stale: false, unanswered: true };
        self.stream.borrow_mut().info.attempts += 1;
        let asked = Moment::now();
        let connection = self.connect(cluster, wanted).await.map_err(|failure| {
            let address = failure.endpoint();
            fresh(failure, address)
        })?;
        let address = connection.address();
        // A connection that was there was not waited for.
        let began = if connection.is_reused() { asked } else { Moment::now() };
        let (upstream, ends, reused) = match connection {
            HttpConnection::H1(http) => {
                let (ends, reused) = (http.ends.clone(), http.reused);
                (Upstream::H1(http), ends, reused)
            }
            HttpConnection::H2 { address, client, ends, reused } => {
                // The head of an HTTP/2 request cannot wait for its body.
                let upstream = self.send_h2(client).map_err(|reason| {
                    tracing::debug!(%address, "{reason}");
                    fresh(Failure::UpstreamClosed(reason), Some(address))
                })?;
                (upstream, ends, reused)
            }
        };
        {
            let info = &mut self.stream.borrow_mut().info;
            info.upstream = Some(UpstreamInfo { address, local: ends.local, tls: ends.tls });
            (info.pool_wait, info.upstream_began) = (Some(began.since(asked)), Some(began));
        }
        let upgraded = self.converse(&upstream, route, began).await.map_err(|failure| {
            let stale = reused
                && match &upstream {
                    Upstream::H1(_) => true,
                    Upstream::H2 { stale, .. } => stale.get(),
                };
            let unanswered = match &upstream {
                Upstream::H1(http) => !http.connection.has_buffered(),
                Upstream::H2 { .. } => true,
            };
            // An endpoint is not to blame for a client that does not take what it has answered.
            let blamed = failure.is_upstreams() && !self.download.is_waiting();
            if blamed && !(stale && unanswered) {
                cluster.failed(address);
            }
            Attempt { failure, address: Some(address), stale, unanswered }
        })?;
        cluster.succeeded(address);
        match upstream {
            Upstream::H1(http) if upgraded => {
                let (stream, rest) = http.connection.into_parts();
                Ok(Some(Upgraded { stream, rest }))
            }
            Upstream::H1(http) => {
                cluster.give_back(http);
                Ok(None)
            }
            Upstream::H2 { .. } => Ok(None),
        }
    }

    async fn connect(&self, cluster: &Rc<LocalCluster>, wanted: Wanted) -> Result<HttpConnection, Failure> {
        let mut connecting = pin!(cluster.connect_http(wanted));
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(Failure::Connect));
            }
            if self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            self.poll_watch(cx).map(Err)
        })
        .await
    }

    fn send_h2(&self, mut client: h2::Client) -> Result<Upstream, String> {
        let stream = self.stream.borrow();
        let request = stream.request.as_ref().ok_or("there is no request")?;
        let filtered = self.chain.borrow().wants_data(Half::Received);
        // What a filter may change is not announced.
        let length = if filtered && self.length != Length::None { Length::Unknown } else { self.length };
        let (answer, body, part) = client.send(request, length)?;
        let answer = RefCell::new(answer);
        let (incoming, stale) = (RefCell::default(), Cell::new(false));
        Ok(Upstream::H2 { answer, body, incoming, stale, _part: part })
    }

    /// Sends the request and its body, and meanwhile receives the answer. True when the protocol is to change.
    async fn converse(&self, upstream: &Upstream, route: &Route, began: Moment) -> Result<bool, Failure> {
        let deadline = Deadline { timer: self.worker.timers.timer(), after: route.timeout };
        let sent = Cell::new(false);
        let mut sending = pin!(self.send(upstream));
        let mut receiving = pin!(self.receive(upstream, began));
        poll_fn(|cx| {
            if let Poll::Ready(failure) = self.poll_watch(cx) {
                return Poll::Ready(Err(failure));
            }
            if !sent.get() {
                match sending.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => {
                        sent.set(true);
                        deadline.begin();
                    }
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => {}
                }
            }
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received);
            }
            if sent.get() && self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            deadline.poll(cx).map(|()| Err(Failure::Timeout))
        })
        .await
    }

    /// Sends the request. An upstream that does not take all of it may still answer.
    async fn send(&self, upstream: &Upstream) -> Result<(), Failure> {
        let start = |length| {
            if let (Upstream::H1(http), Some(request)) = (upstream, &self.stream.borrow().request) {
                http.connection.send_request(request, length, self.upgrade.is_some());
            }
        };
        let sink = match upstream {
            Upstream::H1(http) => Sink::H1(&http.connection),
            Upstream::H2 { body, .. } => Sink::H2(body),
        };
        if self.length == Length::None {
            start(Length::None);
            // What cannot be sent shows when the answer is read.
            let _ = poll_fn(|cx| sink.poll_flush(cx)).await;
            return Ok(());
        }
        self.down.invite().await.map_err(|_| Failure::ClientGone)?;
        let source = self.down.source(self.length);
        let pump = Pump { exchange: self, half: Half::Received, source, sink, length: self.announced() };
        match pump.run(start).await {
            Ok(()) | Err(Broken::Sink(SinkError::Io(_) | SinkError::Gone(_))) => Ok(()),
            Err(broken) => Err(self.broken(Half::Received, broken)),
        }
    }

    /// Why the exchange fails, when one of its bodies was not moved to its end.
    pub fn broken(&self, half: Half, broken: Broken) -> Failure {
        match (broken, half) {
            (Broken::Stop(stop), _) => stop.into(),
            (Broken::Sink(SinkError::Length(error)), _) => Failure::UpstreamBody(error.to_string()),
            (Broken::Sink(SinkError::Io(error)), Half::Received) => {
                Failure::UpstreamClosed(error.to_string())
            }
            (Broken::Sink(SinkError::Gone(error)), Half::Received) => {
                Failure::UpstreamClosed(error.to_string())
            }
            (Broken::Sink(SinkError::Io(_) | SinkError::Gone(_)), Half::Answered) => Failure::ClientGone,
            (Broken::Source(error), Half::Answered) => Failure::UpstreamBody(error.to_string()),
            (Broken::Source(BodyError::Io(_) | BodyError::Cut | BodyError::Reset), Half::Received) => {
                Failure::ClientGone
            }
            (Broken::Source(error @ (BodyError::Chunk | BodyError::Trailers(_))), Half::Received) => {
                Failure::RequestBody(error)
            }
        }
    }

    /// The length of the body as the request's headers now announce it.
    fn announced(&self) -> Length {
        let stream = self.stream.borrow();
        let told = stream.request.as_ref().and_then(|request| request.headers.get(header::CONTENT_LENGTH));
        match (self.length, told.and_then(|told| told.to_str().ok()?.parse().ok())) {
            (Length::None, _) => Length::None,
            (Length::Known(_) | Length::Unknown, Some(length)) => Length::Known(length),
            (Length::Known(_) | Length::Unknown, None) => Length::Unknown,
        }
    }

    /// Receives the answer and sends it on. True when the protocol is to change.
    async fn receive(&self, upstream: &Upstream, began: Moment) -> Result<bool, Failure> {
        let Answered { mut response, marks, length, upgraded } = self.receive_head(upstream).await?;
        let now = Moment::now();
        self.record.borrow_mut().upstream_ms = Some(now.since(began));
        self.moved.set(true);
        if length == Length::None {
            self.stream.borrow_mut().info.upstream_ended = Some(now);
        }
        strip_hop_by_hop(&mut response.headers, marks);
        if upgraded && let Some(upgrade) = &self.upgrade {
            response.headers.insert(header::UPGRADE, upgrade.clone());
        }
        self.stream.borrow_mut().response = Some(response);
        let end = length == Length::None;
        let incoming = match upstream {
            Upstream::H1(_) => None,
            Upstream::H2 { incoming, .. } => incoming.take(),
        };
        let source = match (upstream, &incoming) {
            (Upstream::H1(http), _) => Source::H1(&http.connection),
            (Upstream::H2 { .. }, Some(incoming)) => Source::H2(incoming),
            (Upstream::H2 { .. }, None) => Source::Empty,
        };
        self.answer_received.set(end);
        self.filter_headers(Half::Answered, source, end).await?;
        if upgraded {
            self.switch_protocols().await?;
            return Ok(true);
        }
        if end {
            self.start_response(Length::None);
            let sink = self.down.sink();
            sink.end(None).map_err(|_| Failure::ClientGone)?;
            poll_fn(|cx| sink.poll_flush(cx)).await.map_err(|_| Failure::ClientGone)?;
            return Ok(false);
        }
        let pump = Pump { exchange: self, half: Half::Answered, source, sink: self.down.sink(), length };
        let moved = pump.run(|length| self.start_response(length)).await;
        self.stream.borrow_mut().info.upstream_ended = Some(Moment::now());
        moved.map(|()| false).map_err(|broken| self.broken(Half::Answered, broken))
    }

    /// The head of the answer. Interim responses are dropped: Weir has sent `100 Continue` itself.
    async fn receive_head(&self, upstream: &Upstream) -> Result<Answered, Failure> {
        let http = match upstream {
            Upstream::H1(http) => http,
            Upstream::H2 { answer, incoming, stale, .. } => {
                let answered = poll_fn(|cx| answer.borrow_mut().as_mut().poll(cx)).await;
                let (response, length, body) = answered.map_err(|none| {
                    stale.set(none.elsewhere);
                    if none.elsewhere {
                        Failure::UpstreamClosed(none.reason)
                    } else {
                        Failure::UpstreamReset(none.reason)
                    }
                })?;
                incoming.replace(Some(body));
                let marks = Marks::of(&response.headers);
                return Ok(Answered { response, marks, length, upgraded: false });
            }
        };
        for _ in 0..MOST_INTERIM {
            let method =
                self.stream.borrow().request.as_ref().map_or(Method::GET, |request| request.method.clone());
            let head = poll_fn(|cx| http.connection.poll_response(cx, &method)).await;
            let head = head.map_err(|error| match error {
                HeadFailure::Refused(error) => Failure::UpstreamHead(error),
                HeadFailure::Cut => Failure::UpstreamClosed("the connection was closed".to_owned()),
                HeadFailure::Io(error) => Failure::UpstreamReset(error.to_string()),
            })?;
            let h1::ResponseHead { response, length, keep_alive, marks } = head;
            match response.status {
                StatusCode::SWITCHING_PROTOCOLS if self.upgrade.is_some() => {
                    return Ok(Answered { response, marks, length: Length::None, upgraded: true });
                }
                // Nobody asked.
                StatusCode::SWITCHING_PROTOCOLS => break,
                status if status.is_informational() => {}
                _ => {
                    if !keep_alive {
                        http.connection.retire();
                    }
                    return Ok(Answered { response, marks, length, upgraded: false });
                }
            }
        }
        Err(Failure::UpstreamInterim)
    }

    /// Tells the client that the protocol changes.
    async fn switch_protocols(&self) -> Result<(), Failure> {
        let Downstream::H1(side) = self.down else {
            return Err(Failure::UpstreamClosed("HTTP/2 cannot change its protocol".to_owned()));
        };
        self.answered.set(true);
        self.record.borrow_mut().status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        if let Some(response) = &self.stream.borrow().response {
            side.connection.send_response(response, Length::None, &self.method, true, Persistence::Upgrade);
        }
        side.connection.flush().await.map_err(|_| Failure::ClientGone)
    }
}

/// The head of an answer.
struct Answered {
    response: Response,
    /// Those of its headers.
    marks: Marks,
    length: Length,
    /// Whether the protocol is to change.
    upgraded: bool,
}

/// How long the answer may take, from the end of the request on.
struct Deadline {
    timer: Timer,
    after: Option<std::time::Duration>,
}

impl Deadline {
    fn begin(&self) {
        if let Some(after) = self.after {
            self.timer.set(after);
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.after.is_some() { self.timer.poll_expired(cx) } else { Poll::Pending }
    }
}
