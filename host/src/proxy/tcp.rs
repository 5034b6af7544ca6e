//! TCP: network filters, then a relay to the cluster that was chosen.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir_abi::{PeerKind, TCP_PROXY_CLUSTER};

use crate::clock::Moment;
use crate::net::close::CloseReason;
use crate::net::connection::Connection;
use crate::net::relay::{End, Relay, Relayed};
use crate::net::stream::Stream;
use crate::plugin::chain::{Chain, Half, Stop};
use crate::plugin::stream::{SharedStream, Stream as StreamState, Upstream};
use crate::proxy::filtered::Filtered;
use crate::proxy::reply::connect_flags;
use crate::proxy::session::SessionCx;
use crate::snapshot::Service;
use crate::telemetry::access_log::Entry;
use crate::upstream::connection::{Client, ConnectError, Connected};
use crate::upstream::local::LocalCluster;

/// Serves a connection. `first`: bytes that were read from it already.
pub async fn serve(cx: &SessionCx, connection: Arc<Connection>, downstream: Stream, first: Bytes) {
    let stream = StreamState::new(Arc::clone(&connection));
    let (mut chain, begun) = Chain::begin(cx.listener.filters.iter().cloned(), &stream, &cx.worker.timers);
    let mut record = Record::new(cx, stream, None);
    let reason = match begun {
        Ok(()) => run(&mut record, &mut chain, downstream, first).await,
        Err(stop) => Some(reason_of(&stop)),
    };
    record.reason = reason.map(CloseReason::as_str);
    if let Some(reason) = reason {
        cx.closed(&connection, reason);
    }
    chain.closed_by(record.closed_by);
    chain.finish();
}

/// What is told of a connection when it is over, on cancellation too.
pub(super) struct Record<'a> {
    cx: &'a SessionCx,
    stream: SharedStream,
    relayed: Relayed,
    reason: Option<&'static str>,
    /// Who closed the connection to the client: the client itself only when it broke it off, as in Envoy.
    closed_by: PeerKind,
    upstream_ms: Option<Duration>,
}

impl<'a> Record<'a> {
    pub(super) fn new(cx: &'a SessionCx, stream: SharedStream, reason: Option<CloseReason>) -> Self {
        let reason = reason.map(CloseReason::as_str);
        let (relayed, closed_by) = (Relayed::default(), PeerKind::Local);
        Self { cx, stream, relayed, reason, closed_by, upstream_ms: None }
    }
}

/// Everything after the filters have their contexts. The reason, when the connection was closed instead of served.
async fn run(
    record: &mut Record<'_>,
    chain: &mut Chain,
    mut downstream: Stream,
    first: Bytes,
) -> Option<CloseReason> {
    let cx = record.cx;
    if let Err(stop) = chain.on_new_connection().await {
        return Some(reason_of(&stop));
    }
    let cluster = match choose(cx, &record.stream) {
        Ok(cluster) => cluster,
        Err(reason) => return Some(reason),
    };
    let started = Moment::now();
    let client = Client::from(&*record.stream.borrow().connection);
    let Connected { address, ends, mut stream, open: _open } =
        match chain.unless_stopped(cluster.connect(client)).await {
            Ok(Ok(connected)) => connected,
            Err(stop) => return Some(reason_of(&stop)),
            Ok(Err(error)) => {
                tracing::warn!("{error}");
                let info = &mut record.stream.borrow_mut().info;
                (info.flags, info.transport_failure) = (connect_flags(&error), error.transport());
                return Some(match error {
                    ConnectError::NoEndpoints(_) => CloseReason::NoEndpoints,
                    ConnectError::Timeout { .. } => CloseReason::ConnectTimeout,
                    ConnectError::Failed { .. } | ConnectError::Private { .. } => CloseReason::ConnectFailure,
                });
            }
        };
    record.upstream_ms = Some(started.elapsed());
    let upstream = Upstream { address, local: ends.local, tls: ends.tls };
    record.stream.borrow_mut().info.upstream = Some(upstream);
    record.relayed.received += first.len() as u64;
    let end = relay(record, chain, &mut downstream, &mut stream, first).await;
    match end {
        Err(stop) => Some(reason_of(&stop)),
        Ok(End::Closed) => None,
        Ok(End::Idle) => Some(CloseReason::Idle),
        Ok(End::Downstream(_)) => {
            record.closed_by = PeerKind::Remote;
            stream.reset();
            None
        }
        // What the upstream cut off must not look complete to the downstream.
        Ok(End::Upstream(_)) => {
            downstream.reset();
            None
        }
    }
}

/// Relays, through the filters as long as one of them wants the bytes.
async fn relay(
    record: &mut Record<'_>,
    chain: &mut Chain,
    downstream: &mut Stream,
    upstream: &mut Stream,
    first: Bytes,
) -> Result<End, Stop> {
    let cx = record.cx;
    let (timer, scratch, idle) = (cx.worker.timers.timer(), &cx.worker.scratch, cx.relay_idle());
    let (timer, pipes) = (&timer, &cx.worker.pipes);
    if !chain.wants_data(Half::Received) && !chain.wants_data(Half::Answered) {
        let relay = Relay { downstream, upstream, first, scratch, pipes, timer, idle };
        let end = chain.unless_stopped(relay.run(&mut record.relayed)).await?;
        if matches!(end, End::Closed) {
            chain.on_upstream_close();
        }
        return Ok(end);
    }
    let relayed = RefCell::new(&mut record.relayed);
    let (downstream, upstream) = (RefCell::new(downstream), RefCell::new(upstream));
    let (chain, one_way) = (RefCell::new(chain), false);
    Filtered { chain, downstream, upstream, relayed, scratch, timer, idle, one_way }.run(first).await
}

/// The cluster: the one that a filter chose, or else the listener's.
fn choose(cx: &SessionCx, stream: &SharedStream) -> Result<Rc<LocalCluster>, CloseReason> {
    let snapshot = &cx.local.snapshot;
    let chosen = stream.borrow().info.state.get(TCP_PROXY_CLUSTER.as_bytes()).cloned();
    let number = match (chosen, &cx.listener.listener.service) {
        (Some(name), _) => {
            let name = String::from_utf8_lossy(&name);
            snapshot.cluster_number(&name).ok_or_else(|| {
                tracing::warn!(cluster = &*name, "a filter chose a cluster that is not defined");
                CloseReason::UnknownCluster
            })?
        }
        (None, Service::Tcp { cluster: Some(number) }) => *number,
        (None, Service::Tcp { cluster: None } | Service::Http(_)) => return Err(CloseReason::NoCluster),
    };
    let cluster = cx.local.clusters.get(number).ok_or(CloseReason::UnknownCluster)?;
    let (info, known) = (&mut stream.borrow_mut().info, cluster.cluster());
    info.cluster = Some(Arc::clone(&known.facts));
    info.endpoints = Some(known.endpoints.len());
    Ok(Rc::clone(cluster))
}

pub(super) fn reason_of(stop: &Stop) -> CloseReason {
    match stop {
        Stop::Reset(details) if &**details == "closed_by_filter" => CloseReason::Filter,
        Stop::Reset(_) | Stop::Reply(_) => CloseReason::FilterFailure,
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let metrics = &self.cx.listener.listener.metrics;
        metrics.received.add(self.relayed.received);
        metrics.sent.add(self.relayed.sent);
        let Some(log) = &self.cx.local.snapshot.access_log else { return };
        let stream = self.stream.borrow();
        let connection = &stream.connection;
        log.write(&Entry {
            time: stream.info.started_at(),
            listener: &connection.listener,
            peer: connection.peer,
            sni: connection.server_name(),
            identity: connection.identity(),
            request: None,
            filter: stream.info.decided_by.as_deref(),
            reason: self.reason.or(self.cx.worker.drain.cuts()).or(stream.info.details.as_deref()),
            cluster: stream.info.cluster.as_ref().map(|cluster| &*cluster.name),
            upstream: stream.info.upstream.as_ref().map(|upstream| upstream.address),
            bytes_received: self.relayed.received,
            bytes_sent: self.relayed.sent,
            duration_ms: stream.info.started.elapsed(),
            upstream_ms: self.upstream_ms,
        });
    }
}
