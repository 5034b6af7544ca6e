//! HTTP connections: requests one after the other over HTTP/1, side by side (`streams`) over HTTP/2.

mod streams;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use crate::clock::{Timer, coarse_millis};
use crate::config::limits::Limits;
use crate::http::h1::connection::Failure as HeadFailure;
use crate::http::h1::{self, HeadError, RequestHead};
use crate::http::h2::PREFACE;
use crate::http::message::{Request, Response, Scheme};
use crate::http::path::PathRules;
use crate::net::connection::{Connection, Tls};
use crate::net::relay::{Relay, Relayed};
use crate::net::stream::Stream;
use crate::net::tls::H2;
use crate::overload::Level;
use crate::plugin::stream::LocalReply;
use crate::proxy::downstream::{Downstream, H1Side};
use crate::proxy::exchange::Begin;
use crate::proxy::forward::Upgraded;
use crate::proxy::local::{Local, LocalListener};
use crate::proxy::record::{self, Record};
use crate::proxy::reply::{refusal, render};
use crate::proxy::request::prepare;
use crate::proxy::session::SessionCx;
use crate::proxy::worker::Worker;
use crate::snapshot::{Service, SocketKey};

/// What a client that was refused may still send before its connection is closed.
const LINGER: usize = 256 * 1024;

/// How long it may take to do so.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How long a connection of HTTP/1 has to be idle before a drain, or the end of its listener, closes it: a client that is
/// about to send its next request cannot know yet. Half of the drain's time at most.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a connection that is silent keeps the buffers of its last exchange: it may be about to send the next request.
const REST: Duration = Duration::from_secs(1);

/// A connection's worker, and what is known of it. The snapshot is not here: each exchange takes the one in force.
pub struct Session {
    worker: Rc<Worker>,
    /// The socket that it came from, by which its listener is known in every snapshot.
    key: SocketKey,
    connection: Arc<Connection>,
    scheme: Scheme,
}

/// What is done to paths.
fn path_rules(limits: &Limits) -> PathRules {
    PathRules {
        normalize: limits.normalize_path,
        merge_slashes: limits.merge_slashes,
        escaped_slashes: limits.path_with_escaped_slashes_action,
    }
}

fn poll_more(
    stream: &mut Stream,
    first: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<usize>> {
    if let (true, Some(socket)) = (first.is_empty(), stream.as_tcp()) {
        // A connection that says nothing holds no buffer.
        ready!(socket.poll_read_ready(cx))?;
    }
    pin!(stream.read_buf(first)).poll(cx)
}

impl Session {
    /// A connection that was accepted.
    pub fn new(cx: &SessionCx, connection: Arc<Connection>) -> Self {
        let scheme = if connection.tls.is_some() { Scheme::Https } else { Scheme::Http };
        Self { worker: Rc::clone(&cx.worker), key: cx.listener.listener.socket_key(), connection, scheme }
    }

    /// Serves the connection.
    pub async fn serve(self, mut stream: Stream, limits: Limits) {
        let negotiated = self.connection.tls.as_ref().and_then(|tls| tls.alpn.clone());
        let timer = self.worker.timers.timer();
        let mut first = BytesMut::new();
        let h2 = match negotiated {
            Some(protocol) => protocol == H2,
            None => match self.speaks_h2(&mut stream, &mut first, &limits, &timer).await {
                Some(h2) => h2,
                None => return,
            },
        };
        if h2 {
            // Each in a box, so that HTTP/1 connections are no larger than what they need.
            Box::pin(self.serve_h2(stream, first.freeze(), &limits, timer)).await;
        } else {
            self.serve_h1(stream, first.freeze(), &limits, &timer).await;
        }
    }

    /// The listener, and its snapshot.
    fn listener(&self) -> Option<(Rc<Local>, Rc<LocalListener>)> {
        self.worker.http_listener(&self.key)
    }

    /// Whether a connection that nothing was asked for on is to end, idle since `idle`. When it is not yet, `timer` says
    /// when.
    fn leaves_idle(&self, idle: u64, timer: &Timer) -> bool {
        if self.worker.overload.at_least(Level::NoConnections) {
            return true;
        }
        if !self.worker.is_leaving(&self.key) {
            return false;
        }
        let drain = self.worker.local().map(|local| local.snapshot.config.sections.drain_timeout);
        let last_call = LAST_CALL.min(drain.unwrap_or_default() / 2);
        let idle = Duration::from_millis(coarse_millis().saturating_sub(idle));
        match last_call.checked_sub(idle) {
            Some(left) if !left.is_zero() => {
                timer.set(left);
                false
            }
            Some(_) | None => true,
        }
    }

    /// Whether the connection is to end with what was asked for on it.
    fn leaves(&self) -> bool {
        self.worker.is_leaving(&self.key) || self.worker.overload.at_least(Level::NoConnections)
    }

    /// Whether the connection is to end with an answer that is given now.
    fn ends(&self) -> bool {
        self.worker.overload.at_least(Level::NoKeepalive) || self.leaves()
    }

    /// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge. What was read is in `first`.
    /// `None` when the connection is over: it failed, its time is up, or it is to end and nothing was asked for.
    async fn speaks_h2(
        &self,
        stream: &mut Stream,
        first: &mut BytesMut,
        limits: &Limits,
        timer: &Timer,
    ) -> Option<bool> {
        timer.set_limit(limits.idle_timeout);
        let idle = coarse_millis();
        loop {
            let known = first.len().min(PREFACE.len());
            if first.get(..known) != PREFACE.get(..known) {
                return Some(false);
            }
            if known == PREFACE.len() {
                return Some(true);
            }
            let read = poll_fn(|cx| match poll_more(stream, first, cx) {
                Poll::Ready(read) => Poll::Ready(read.ok()),
                Poll::Pending
                    if first.is_empty() && self.leaves_idle(idle, timer) && !stream.has_arrived() =>
                {
                    Poll::Ready(None)
                }
                // HTTP/1 knows what to say to a request that does not arrive.
                Poll::Pending => timer.poll_expired(cx).map(|()| (known > 0).then_some(0)),
            });
            if read.await? == 0 {
                return Some(false);
            }
            if known == 0 {
                // From its first byte on it is a request that has to arrive.
                timer.set_limit(limits.request_headers_timeout);
            }
        }
    }

    /// Serves requests one after the other.
    async fn serve_h1(&self, stream: Stream, first: Bytes, limits: &Limits, timer: &Timer) {
        let head = h1::Limits {
            bytes: limits.max_header_bytes.0,
            fields: limits.max_headers.into(),
            target: limits.max_target.0,
            underscores: limits.headers_with_underscores_action,
            path: path_rules(limits),
            buffer: limits.per_connection_buffer_limit.0,
        };
        let connection = h1::Connection::with_first(stream, head, first);
        loop {
            match self.next_request(&connection, limits, timer).await {
                Next::Request(head) => match self.exchange(&connection, *head).await {
                    After::Next => {
                        if connection.has_buffered() {
                            // Whoever asks ahead waits for the others between its requests.
                            tokio::task::yield_now().await;
                        }
                    }
                    After::Close => break,
                    // An end in order would tell the client that the answer is complete.
                    After::Cut => return,
                    After::Upgraded(upgraded) => {
                        let (upgraded, record) = *upgraded;
                        return Box::pin(self.tunnel(connection, upgraded, record, timer)).await;
                    }
                },
                Next::Refused(error) => {
                    let (response, body) = self.refuse(error);
                    self.send_last(&connection, &response, body).await;
                    break;
                }
                Next::TimedOut => {
                    self.time_out(&connection).await;
                    break;
                }
                Next::End => return,
            }
        }
        timer.set(LINGER_TIME);
        // The client may be gone, or send for ever.
        let _ = timer.limit(connection.linger(LINGER)).await;
    }

    /// Waits for a request: long for its first byte, shorter for the rest of its head.
    async fn next_request(&self, connection: &h1::Connection, limits: &Limits, timer: &Timer) -> Next {
        let (begun, idle) = (Cell::new(connection.has_buffered()), coarse_millis());
        // Zero is no limit.
        let rests = !begun.get() && (limits.idle_timeout.is_zero() || limits.idle_timeout > 2 * REST);
        let (rests, mut silent) = (Cell::new(rests), None);
        if rests.get() {
            timer.set_roughly(REST);
        } else {
            timer.set_limit(if begun.get() { limits.request_headers_timeout } else { limits.idle_timeout });
        }
        let read = poll_fn(|cx| {
            match connection.poll_request(cx, self.scheme) {
                Poll::Ready(read) => return Poll::Ready(Some(read)),
                Poll::Pending if !begun.get() && connection.has_buffered() => {
                    begun.set(true);
                    timer.set_limit(limits.request_headers_timeout);
                }
                Poll::Pending => {}
            }
            // To look for what has arrived is a system call.
            if !begun.get() && self.leaves_idle(idle, timer) && !connection.with_stream(Stream::has_arrived) {
                return Poll::Ready(None);
            }
            ready!(timer.poll_expired(cx));
            if begun.get() || !rests.replace(false) {
                return Poll::Ready(None);
            }
            connection.rest();
            silent = Some(self.worker.overload.fall_silent());
            timer.set_limit(limits.idle_timeout.saturating_sub(REST));
            timer.poll_expired(cx).map(|()| None)
        });
        match read.await {
            Some(Ok(Some(head))) => match self.check_authority(&head.request) {
                Ok(()) => Next::Request(Box::new(head)),
                Err(error) => Next::Refused(error),
            },
            Some(Err(HeadFailure::Refused(error))) => Next::Refused(error),
            None if begun.get() => Next::TimedOut,
            Some(Ok(None) | Err(HeadFailure::Cut | HeadFailure::Io(_))) | None => Next::End,
        }
    }

    async fn exchange(&self, connection: &h1::Connection, head: RequestHead) -> After {
        let Some((local, listener)) = self.listener() else { return After::Close };
        let RequestHead { mut request, length, keep_alive, expects_continue, redirected, marks } = head;
        let trusted = &local.snapshot.config.sections.trusted_proxies;
        let said = prepare(&mut request, marks, &self.connection, trusted);
        let side = H1Side {
            connection,
            version: request.version,
            expects_continue: Cell::new(expects_continue),
            closes: Cell::new(!keep_alive),
            cut: Cell::new(false),
            leaves: &|| self.ends(),
        };
        let down = Downstream::H1(&side);
        let shared = Rc::clone(&listener);
        let Service::Http(http) = &shared.listener.service else { return After::Close };
        let begin = Begin {
            worker: &self.worker,
            local,
            listener,
            connection: &self.connection,
            down,
            request,
            length,
            said,
            redirected,
        };
        // In a box, so that a connection takes that memory only while something is asked for.
        match Box::pin(begin.run(http)).await {
            Some(upgraded) => After::Upgraded(Box::new(upgraded)),
            None if side.cut.get() => After::Cut,
            None if side.closes.get() || !connection.is_between_messages() => After::Close,
            None => After::Next,
        }
    }

    /// Whether a request is for a host that the connection is for (RFC 9110 section 7.4).
    fn check_authority(&self, request: &Request) -> Result<(), HeadError> {
        let allows = |tls: &Tls| tls.allows(request.host());
        if self.connection.tls.as_ref().is_none_or(allows) { Ok(()) } else { Err(HeadError::Misdirected) }
    }

    /// The answer to what is no request.
    fn refuse(&self, error: HeadError) -> (Response, Bytes) {
        if let Some((_, listener)) = self.listener() {
            listener.listener.metrics.refuse(error.as_str());
        }
        let reply = refusal(error);
        self.record_refusal(&reply);
        let (listener, peer) = (&*self.connection.listener, self.connection.peer);
        tracing::debug!(listener, %peer, reason = error.as_str(), "request refused");
        render(reply, None)
    }

    /// Answers a client whose request does not arrive.
    async fn time_out(&self, connection: &h1::Connection) {
        let failure = crate::proxy::reply::Failure::RequestTimeout;
        if let Some(reply) = failure.reply() {
            if let Some((_, listener)) = self.listener() {
                listener.listener.metrics.fail(&reply.details);
            }
            self.record_refusal(&reply);
            let (response, body) = render(reply, None);
            self.send_last(connection, &response, body).await;
        }
    }

    /// Counts and logs what could not be read as a request.
    fn record_refusal(&self, reply: &LocalReply) {
        let Some((local, listener)) = self.listener() else { return };
        let status = Some(reply.status.as_u16());
        listener.listener.metrics.request(None, status, Duration::ZERO);
        record::refused(&local, &self.connection, reply);
    }

    async fn send_last(&self, connection: &h1::Connection, response: &Response, body: Bytes) {
        use crate::http::h1::Length;
        use crate::http::h1::connection::Persistence;
        let length = if body.is_empty() { Length::None } else { Length::Known(body.len() as u64) };
        connection.send_response(response, length, &http::Method::GET, true, Persistence::Close);
        // The client may be gone.
        if connection.send_data(body).is_ok() && connection.send_end(None).is_ok() {
            let _ = connection.flush().await;
        }
    }

    /// Relays what the two sides say in their new protocol.
    async fn tunnel(&self, connection: h1::Connection, upgraded: Upgraded, record: Record, timer: &Timer) {
        let idle = record.relay_idle();
        let (mut downstream, first) = connection.into_parts();
        let Upgraded { mut stream, rest } = upgraded;
        let mut relayed = Relayed::default();
        let (scratch, pipes) = (&self.worker.scratch, &self.worker.pipes);
        if tokio::io::AsyncWriteExt::write_all(&mut downstream, &rest).await.is_ok() {
            let (downstream, upstream) = (&mut downstream, &mut stream);
            let relay = Relay { downstream, upstream, first, scratch, pipes, timer, idle };
            relay.run(&mut relayed).await;
        }
        let mut stream = record.stream.borrow_mut();
        stream.info.received_bytes += relayed.received;
        stream.info.answered_bytes += relayed.sent + rest.len() as u64;
        drop(stream);
        drop(record);
    }
}

/// What came next on a connection.
enum Next {
    Request(Box<RequestHead>),
    Refused(HeadError),
    TimedOut,
    End,
}

/// What becomes of a connection after an exchange.
enum After {
    Next,
    Close,
    Cut,
    Upgraded(Box<(Upgraded, Record)>),
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.clients.gone(self.connection.id);
    }
}
