//! What is told of an exchange when it is over: the access log line and the metrics. It is told on cancellation too.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::plugin::stream::SharedStream;
use crate::proxy::local::{Local, LocalListener};
use crate::proxy::request::REQUEST_ID;
use crate::telemetry::access_log::{Entry, RequestPart};

/// The record of one exchange. It tells when it is dropped.
pub struct Record {
    /// The exchange's state.
    pub stream: SharedStream,
    /// How long it took until the upstream's headers were there.
    pub upstream_ms: Option<Duration>,
    /// Why the exchange was answered by Weir, or cut.
    pub cause: Option<Arc<str>>,
    /// The status that was sent.
    pub status: Option<u16>,
    local: Rc<Local>,
    listener: Rc<LocalListener>,
}

impl Record {
    /// The record of an exchange that begins.
    pub fn new(stream: SharedStream, local: Rc<Local>, listener: Rc<LocalListener>) -> Self {
        Self { stream, upstream_ms: None, cause: None, status: None, local, listener }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let stream = self.stream.borrow();
        let (info, connection) = (&stream.info, &stream.connection);
        let duration = info.started.elapsed();
        let metrics = &self.listener.listener.metrics;
        metrics.request(self.status, duration);
        metrics.received.add(info.received_bytes);
        metrics.sent.add(info.answered_bytes);
        let Some(log) = &self.local.snapshot.access_log else { return };
        let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let request = stream.request.as_ref();
        let authority = text(request.map(|request| &request.authority));
        let id = text(request.and_then(|request| request.headers.get(REQUEST_ID)));
        log.write(&Entry {
            time: info.started_at,
            listener: &connection.listener,
            peer: connection.peer,
            sni: connection.server_name(),
            identity: connection.identity(),
            request: request.map(|request| RequestPart {
                method: request.method.as_str(),
                authority: &authority,
                path: request.target(),
                protocol: request.version.as_str(),
                request_id: &id,
                route: info.route.as_deref(),
                status: self.status,
            }),
            filter: info.decided_by.as_deref(),
            reason: self.cause.as_deref(),
            cluster: info.cluster.as_deref(),
            upstream: info.upstream.as_ref().map(|upstream| upstream.address),
            bytes_received: info.received_bytes,
            bytes_sent: info.answered_bytes,
            duration_ms: duration,
            upstream_ms: self.upstream_ms,
        });
    }
}
