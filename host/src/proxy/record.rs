//! What is told of an exchange when it is over: the access log line and the metrics. It is told on cancellation too.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};

use crate::net::connection::Connection;
use crate::plugin::stream::{LocalReply, SharedStream};
use crate::proxy::local::{Local, LocalListener};
use crate::proxy::request::REQUEST_ID;
use crate::proxy::worker::Worker;
use crate::route::Route;
use crate::telemetry::access_log::{Entry, RequestPart};

/// The record of one exchange. It tells when it is dropped.
pub struct Record {
    /// The exchange's state.
    pub stream: SharedStream,
    /// The client's address: the peer's, or the one that trusted proxies tell.
    pub client: IpAddr,
    /// How long it took until the upstream's headers were there.
    pub upstream_ms: Option<Duration>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// Method, authority and target as they came, before any filter or route changed them.
    pub received: Option<(Method, HeaderValue, HeaderValue)>,
    /// Why the exchange was answered by Weir, or cut.
    pub cause: Option<Arc<str>>,
    /// The status that was sent.
    pub status: Option<u16>,
    worker: Rc<Worker>,
    local: Rc<Local>,
    listener: Rc<LocalListener>,
}

impl Record {
    /// The record of an exchange that begins.
    pub fn new(
        worker: &Rc<Worker>,
        stream: SharedStream,
        local: Rc<Local>,
        listener: Rc<LocalListener>,
    ) -> Self {
        let client = stream.borrow().connection.peer.ip().to_canonical();
        Self {
            worker: Rc::clone(worker),
            client,
            stream,
            upstream_ms: None,
            route: None,
            received: None,
            cause: None,
            status: None,
            local,
            listener,
        }
    }

    /// How long bytes that are relayed may be silent; zero is no limit.
    pub fn relay_idle(&self) -> Duration {
        self.listener.listener.connections.tcp_idle_timeout
    }

    /// Counts why the exchange was not answered by its upstream.
    pub fn fail(&self, reason: &str) {
        self.listener.listener.metrics.fail(reason);
    }

    /// Counts that the request's body could not be read.
    pub fn refuse(&self, reason: &str) {
        self.listener.listener.metrics.refuse(reason);
    }
}

/// Logs what could not be read as a request.
pub fn refused(local: &Local, connection: &Connection, reply: &LocalReply) {
    let Some(log) = &local.snapshot.access_log else { return };
    log.write(&Entry {
        time: SystemTime::now(),
        listener: &connection.listener,
        peer: connection.peer,
        sni: connection.server_name(),
        identity: connection.identity(),
        request: Some(RequestPart {
            client: connection.peer.ip().to_canonical(),
            method: "-",
            authority: "-",
            path: "-",
            protocol: "-",
            request_id: "-",
            route: None,
            status: Some(reply.status.as_u16()),
        }),
        filter: None,
        reason: Some(&reply.details),
        cluster: None,
        upstream: None,
        bytes_received: 0,
        bytes_sent: reply.body.len() as u64,
        duration_ms: Duration::ZERO,
        upstream_ms: None,
    });
}

impl Drop for Record {
    fn drop(&mut self) {
        let stream = self.stream.borrow();
        let (info, connection) = (&stream.info, &stream.connection);
        let duration = info.started.elapsed();
        let metrics = &self.listener.listener.metrics;
        metrics.request(self.route.as_deref(), self.status, duration);
        metrics.received.add(info.received_bytes);
        metrics.sent.add(info.answered_bytes);
        let Some(log) = &self.local.snapshot.access_log else { return };
        let text = |value: Option<&HeaderValue>| {
            value.and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
        };
        let request = stream.request.as_ref();
        let received = self.received.as_ref();
        let authority = text(received.map(|(_, authority, _)| authority));
        let path = text(received.map(|(_, _, path)| path));
        let id = text(request.and_then(|request| request.headers.get(REQUEST_ID)));
        log.write(&Entry {
            time: info.started_at(),
            listener: &connection.listener,
            peer: connection.peer,
            sni: connection.server_name(),
            identity: connection.identity(),
            request: request.map(|request| RequestPart {
                client: self.client,
                method: received.map_or("", |(method, ..)| method.as_str()),
                authority: &authority,
                path: &path,
                protocol: request.version.as_str(),
                request_id: &id,
                route: info.route.as_ref().map(|route| &*route.name),
                status: self.status,
            }),
            filter: info.decided_by.as_deref(),
            reason: self.cause.as_deref().or(self.worker.drain.cuts()),
            cluster: info.cluster.as_ref().map(|cluster| &*cluster.name),
            upstream: info.upstream.as_ref().map(|upstream| upstream.address),
            bytes_received: info.received_bytes,
            bytes_sent: info.answered_bytes,
            duration_ms: duration,
            upstream_ms: self.upstream_ms,
        });
    }
}
