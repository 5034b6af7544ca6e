//! TCP: network filters, then a relay to the cluster that was chosen.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use weir_abi::{PeerKind, TCP_PROXY_CLUSTER};

use crate::net::close::CloseReason;
use crate::net::connection::Connection;
use crate::net::relay::{End, Relay, Relayed, Scratch};
use crate::net::stream::Stream;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Chain, Half, Stop};
use crate::plugin::stream::{SharedStream, Stream as StreamState, Upstream};
use crate::proxy::session::SessionCx;
use crate::snapshot::Service;
use crate::telemetry::access_log::Entry;
use crate::upstream::local::{ConnectError, Connected, LocalCluster};

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(3600);

/// What filters may hold of a connection's data.
const MAX_HELD: usize = 1 << 20;

/// Serves a connection. `first`: bytes that were read from it already.
pub async fn serve(cx: &SessionCx, connection: Arc<Connection>, downstream: Stream, first: Bytes) {
    let stream = StreamState::new(Arc::clone(&connection));
    let (mut chain, begun) = Chain::begin(cx.listener.filters.iter().cloned(), &stream, &cx.worker.timers);
    let mut record = Record { cx, stream, relayed: Relayed::default(), reason: None, upstream_ms: None };
    let reason = match begun {
        Ok(()) => run(&mut record, &mut chain, downstream, first).await,
        Err(stop) => Some(reason_of(&stop)),
    };
    record.reason = reason.map(CloseReason::as_str);
    if let Some(reason) = reason {
        cx.closed(reason);
        tracing::info!(
            listener = &*connection.listener, peer = %connection.peer, sni = connection.server_name(),
            reason = reason.as_str(), "connection closed"
        );
    }
    chain.on_close(Half::Received, PeerKind::Unknown);
    chain.finish();
}

/// What is told of a connection when it is over, on cancellation too.
struct Record<'a> {
    cx: &'a SessionCx,
    stream: SharedStream,
    relayed: Relayed,
    reason: Option<&'static str>,
    upstream_ms: Option<Duration>,
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
    let started = Instant::now();
    let Connected { address, mut stream, open: _open } = match cluster.connect().await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::warn!("{error}");
            return Some(match error {
                ConnectError::NoEndpoints(_) => CloseReason::NoEndpoints,
                ConnectError::Timeout { .. } => CloseReason::ConnectTimeout,
                ConnectError::Failed { .. } => CloseReason::ConnectFailure,
            });
        }
    };
    record.upstream_ms = Some(started.elapsed());
    let local = stream.socket().local_addr().ok();
    record.stream.borrow_mut().info.upstream = Some(Upstream { address, local });
    record.relayed.received += first.len() as u64;
    let end = if chain.wants_data(Half::Received) || chain.wants_data(Half::Answered) {
        filtered(record, chain, &mut downstream, &mut stream, first).await
    } else {
        let timer = cx.worker.timers.timer();
        let (scratch, idle) = (&cx.worker.scratch, IDLE);
        let relay = Relay { downstream: &mut downstream, upstream: &mut stream, first, scratch, timer: &timer, idle };
        Ok(relay.run(&mut record.relayed).await)
    };
    chain.on_close(Half::Answered, PeerKind::Unknown);
    match end {
        Err(stop) => Some(reason_of(&stop)),
        Ok(End::Closed) => None,
        Ok(End::Idle) => Some(CloseReason::Idle),
        Ok(End::Downstream(_)) => {
            reset(&stream);
            None
        }
        // What the upstream cut off must not look complete to the downstream.
        Ok(End::Upstream(_)) => {
            reset(&downstream);
            None
        }
    }
}

/// Has a connection reset when it is dropped, so that the peer sees that it did not end in order.
fn reset(stream: &Stream) {
    // A socket that is gone needs no reset.
    let _ = stream.socket().set_zero_linger();
}

/// The cluster: the one that a filter chose, or else the listener's.
fn choose(cx: &SessionCx, stream: &SharedStream) -> Result<Rc<LocalCluster>, CloseReason> {
    let snapshot = &cx.local.snapshot;
    let chosen = stream.borrow().state(TCP_PROXY_CLUSTER.as_bytes()).cloned();
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
    stream.borrow_mut().info.cluster = Some(Arc::clone(&cluster.cluster().name));
    Ok(Rc::clone(cluster))
}

fn reason_of(stop: &Stop) -> CloseReason {
    match stop {
        Stop::Reset(details) if &**details == "closed_by_filter" => CloseReason::Filter,
        Stop::Reset(_) | Stop::Reply(_) => CloseReason::FilterFailure,
    }
}

/// A relay whose bytes pass the filters.
async fn filtered(
    record: &mut Record<'_>,
    chain: &mut Chain,
    downstream: &mut Stream,
    upstream: &mut Stream,
    first: Bytes,
) -> Result<End, Stop> {
    let shared = Filtered {
        chain: RefCell::new(chain),
        downstream: RefCell::new(downstream),
        upstream: RefCell::new(upstream),
        relayed: RefCell::new(&mut record.relayed),
        scratch: &record.cx.worker.scratch,
    };
    let mut up = pin!(shared.pump(Half::Received, first));
    let mut down = pin!(shared.pump(Half::Answered, Bytes::new()));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        if let Poll::Ready(stop) = shared.chain.borrow_mut().poll_interrupt(cx) {
            return Poll::Ready(Err(stop));
        }
        if !up_done {
            match up.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => up_done = true,
                Poll::Ready(Err(broken)) => return Poll::Ready(broken.end(Half::Received)),
                Poll::Pending => {}
            }
        }
        if !down_done {
            match down.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => down_done = true,
                Poll::Ready(Err(broken)) => return Poll::Ready(broken.end(Half::Answered)),
                Poll::Pending => {}
            }
        }
        if up_done && down_done { Poll::Ready(Ok(End::Closed)) } else { Poll::Pending }
    })
    .await
}

/// What the two directions of a filtered relay share.
struct Filtered<'a> {
    chain: RefCell<&'a mut Chain>,
    downstream: RefCell<&'a mut Stream>,
    upstream: RefCell<&'a mut Stream>,
    relayed: RefCell<&'a mut Relayed>,
    scratch: &'a Scratch,
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
    Stop(Stop),
}

impl Broken {
    fn end(self, half: Half) -> Result<End, Stop> {
        match (self, half) {
            (Self::Stop(stop), _) => Err(stop),
            (Self::Read(error), Half::Received) | (Self::Write(error), Half::Answered) => Ok(End::Downstream(error)),
            (Self::Write(error), Half::Received) | (Self::Read(error), Half::Answered) => Ok(End::Upstream(error)),
        }
    }
}

impl Filtered<'_> {
    /// Moves one direction through the filters until its end has been passed on.
    async fn pump(&self, half: Half, first: Bytes) -> Result<(), Broken> {
        let mut ended = false;
        if !first.is_empty() {
            let passed = self.chain.borrow_mut().on_data(half, first, false, MAX_HELD).map_err(Broken::Stop)?;
            self.write(half, passed).await?;
        }
        loop {
            let passed = poll_fn(|cx| {
                if let Poll::Ready(resumed) = self.chain.borrow_mut().poll_resumed(half, ended, cx) {
                    return Poll::Ready(resumed.map_err(Broken::Stop));
                }
                if ended {
                    return Poll::Pending;
                }
                let Poll::Ready(data) = self.poll_read(half, cx) else { return Poll::Pending };
                let data = data.map_err(Broken::Read)?;
                ended = data.is_empty();
                Poll::Ready(self.chain.borrow_mut().on_data(half, data, ended, MAX_HELD).map_err(Broken::Stop))
            })
            .await?;
            if self.write(half, passed).await? {
                return Ok(());
            }
        }
    }

    fn poll_read(&self, half: Half, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut stream = match half {
            Half::Received => self.downstream.borrow_mut(),
            Half::Answered => self.upstream.borrow_mut(),
        };
        let bytes = ready!(self.scratch.poll_read(cx, &mut stream))?;
        let mut relayed = self.relayed.borrow_mut();
        match half {
            Half::Received => relayed.received += bytes.len() as u64,
            Half::Answered => relayed.sent += bytes.len() as u64,
        }
        Poll::Ready(Ok(bytes))
    }

    /// Writes what has passed the filters; true when it was the end.
    async fn write(&self, half: Half, passed: Passed) -> Result<bool, Broken> {
        let (mut data, end) = match passed {
            Passed::Held => return Ok(false),
            Passed::Data(data, end) => (data, end),
            Passed::End(data, _) => (data, true),
        };
        let stream = match half {
            Half::Received => &self.upstream,
            Half::Answered => &self.downstream,
        };
        poll_fn(|cx| {
            let mut stream = stream.borrow_mut();
            while !data.is_empty() {
                match Pin::new(&mut **stream).poll_write(cx, &data) {
                    Poll::Ready(Ok(written)) => data.advance(written),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if end { Pin::new(&mut **stream).poll_shutdown(cx) } else { Pin::new(&mut **stream).poll_flush(cx) }
        })
        .await
        .map_err(Broken::Write)?;
        Ok(end)
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
            time: stream.info.started_at,
            listener: &connection.listener,
            peer: connection.peer,
            sni: connection.server_name(),
            identity: connection.identity(),
            request: None,
            filter: stream.info.decided_by.as_deref(),
            reason: self.reason.or(stream.info.details.as_deref()),
            cluster: stream.info.cluster.as_deref(),
            upstream: stream.info.upstream.as_ref().map(|upstream| upstream.address),
            bytes_received: self.relayed.received,
            bytes_sent: self.relayed.sent,
            duration_ms: stream.info.started.elapsed(),
            upstream_ms: self.upstream_ms,
        });
    }
}
