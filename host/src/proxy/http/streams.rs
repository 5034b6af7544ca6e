//! HTTP/2 connections: requests side by side, and what ends a connection that has none.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timer;
use crate::config::limits::Limits;
use crate::config::value::Size;
use crate::http::h1::HeadError;
use crate::http::h2::{self, Begun, Course, Ended, FrameLimits, Front, Received, Refusal};
use crate::http::marks::Marks;
use crate::http::message::Response;
use crate::net::stream::Stream;
use crate::proxy::downstream::Downstream;
use crate::proxy::exchange::Begin;
use crate::proxy::http::{LINGER, LINGER_TIME, Session, path_rules};
use crate::proxy::request::{Said, prepare};
use crate::snapshot::Service;
use crate::telemetry::metrics::Counter;

/// How long a client that was told to go may take to do so when nothing is under way.
const GOODBYE: Duration = Duration::from_secs(5);

/// The largest window (RFC 9113 section 6.9.1).
const LARGEST_WINDOW: u32 = u32::MAX >> 1;

/// What one HTTP/2 connection may ask for.
fn limits_of(limits: &Limits) -> h2::Limits {
    let number = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
    let window = |size| number(size).min(LARGEST_WINDOW);
    h2::Limits {
        streams: limits.max_concurrent_streams,
        stream_window: window(limits.initial_stream_window_size),
        connection_window: window(limits.initial_connection_window_size),
        header_bytes: number(limits.max_header_bytes),
        send_buffer: number(limits.per_connection_buffer_limit) as usize,
        frames: FrameLimits {
            resets: limits.max_stream_resets,
            errors: limits.max_stream_errors,
            control: limits.max_control_frames,
        },
        head_timeout: limits.request_headers_timeout,
        stream_idle: limits.stream_idle_timeout,
        linger: (LINGER, LINGER_TIME),
        fields: limits.max_headers.into(),
        target: limits.max_target.0,
        underscores: limits.headers_with_underscores_action,
        path: path_rules(limits),
    }
}

impl Session {
    /// Serves requests side by side.
    pub(super) async fn serve_h2(self, stream: Stream, first: Bytes, limits: &Limits, timer: Timer) {
        // Woken when the drain starts, too.
        let idle = Rc::new(Idle::new(self.worker.timers.timer(), limits.idle_timeout));
        let timers = [timer, self.worker.timers.timer()];
        let begun = Begun { stream, first, scheme: self.scheme, timers };
        h2::serve(begun, limits_of(limits), Rc::new(Streams { session: self, idle })).await;
    }
}

/// The streams of a connection.
struct Streams {
    session: Session,
    idle: Rc<Idle>,
}

impl Front for Streams {
    fn course(&self, cx: &Context<'_>) -> Course {
        let expired = self.idle.poll_expired(cx);
        let session = &self.session;
        let leaves = session.leaves() || (self.idle.was_busy.get() && session.ends());
        match self.idle.leaving.get() {
            true if expired => Course::End,
            false if !expired && !leaves => Course::On,
            true => Course::Drain,
            false => {
                self.idle.leave(cx);
                Course::Drain
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.idle.busy.get() == 0
    }

    fn refuse(&self, error: HeadError) -> (Response, Bytes) {
        self.session.refuse(error)
    }

    fn note(&self, refusal: Refusal) {
        let session = &self.session;
        match refusal {
            // It was answered as other requests are.
            Refusal::TooLarge => drop(session.refuse(HeadError::TooLarge)),
            Refusal::Malformed | Refusal::TooMany | Refusal::Connect => {
                if let Some((_, listener)) = session.listener() {
                    listener.listener.metrics.refuse(refusal.as_str());
                }
                let (listener, peer) = (&*session.connection.listener, session.connection.peer);
                tracing::debug!(listener, %peer, reason = refusal.as_str(), "stream reset");
            }
        }
    }

    async fn answer(self: Rc<Self>, received: Received) {
        let busy = Idle::busy(&self.idle);
        self.exchange(received).await;
        drop(busy);
    }

    fn ended(&self, ended: Ended) {
        let Ended { reason, text } = ended;
        let (listener, peer) = (&*self.session.connection.listener, self.session.connection.peer);
        let Some(reason) = reason else {
            return tracing::debug!(listener, %peer, reason = text, "HTTP/2 connection ended");
        };
        if let Some((_, listener)) = self.session.listener() {
            listener.listener.metrics.closed(reason).into_iter().for_each(Counter::inc);
        }
        tracing::info!(listener, %peer, reason = reason.as_str(), text, "HTTP/2 connection closed");
    }
}

impl Streams {
    async fn exchange(&self, received: Received) {
        let session = &self.session;
        let Some((local, listener)) = session.listener() else { return };
        let Received { mut request, length, body, responder, redirected } = received;
        if let Err(error) = session.check_authority(&request) {
            let (response, body) = session.refuse(error);
            return responder.send_whole(response, body);
        }
        let (marks, trusted) = (Marks::of(&request.headers), &local.snapshot.config.sections.trusted_proxies);
        let said = prepare(&mut request, marks, &session.connection, trusted);
        let said = Said { upgrade: None, ..said };
        let down = Downstream::H2 { body: &body, responder: &responder };
        let shared = Rc::clone(&listener);
        let Service::Http(http) = &shared.listener.service else { return };
        let (worker, connection) = (&session.worker, &session.connection);
        let begin = Begin { worker, local, listener, connection, down, request, length, said, redirected };
        // In a box: the task of a stream is moved to its place, and copied once more when it has ended.
        Box::pin(begin.run(http)).await;
    }
}

/// Ends a connection on which no exchange has been for too long.
struct Idle {
    timer: Timer,
    after: Cell<Duration>,
    /// Exchanges that are under way.
    busy: Cell<usize>,
    /// Whether there has been one.
    was_busy: Cell<bool>,
    /// Whether the client was told to go.
    leaving: Cell<bool>,
}

/// An exchange that is under way.
struct Busy(Rc<Idle>);

impl Idle {
    fn new(timer: Timer, after: Duration) -> Self {
        timer.set_limit(after);
        let (busy, was_busy, leaving) = Default::default();
        Self { timer, after: Cell::new(after), busy, was_busy, leaving }
    }

    fn busy(idle: &Rc<Self>) -> Busy {
        idle.busy.set(idle.busy.get() + 1);
        idle.was_busy.set(true);
        Busy(Rc::clone(idle))
    }

    /// The client is told to go: from now on there is little patience with a connection on which nothing is under way.
    fn leave(&self, cx: &Context<'_>) {
        self.leaving.set(true);
        self.after.set(GOODBYE);
        self.timer.set(GOODBYE);
        let _ = self.timer.poll_expired(cx);
    }

    fn poll_expired(&self, cx: &Context<'_>) -> bool {
        if self.timer.poll_expired(cx).is_pending() {
            return false;
        }
        let idle = self.busy.get() == 0;
        if !idle {
            // Whoever waits is to be woken again, and not only by this.
            self.timer.set_limit(self.after.get());
            let _ = self.timer.poll_expired(cx);
        }
        idle
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let busy = self.0.busy.get() - 1;
        self.0.busy.set(busy);
        if busy == 0 {
            self.0.timer.set_limit(self.0.after.get());
        }
    }
}
