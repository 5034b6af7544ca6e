//! A downstream connection, from its acceptance to its end: identify it, then hand it to what its listener does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::clock::{Moment, Timer};
use crate::config::listener::{Others, ProxyProtocol};
use crate::net::admission;
use crate::net::client_hello::{ClientHello, Reader};
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Tls as TlsInfo};
use crate::net::proxy_protocol::{self, Header};
use crate::net::stream::Stream;
use crate::net::tls::server::ServerTls;
use crate::overload::{self, Level};
use crate::proxy::local::{Local, LocalListener};
use crate::proxy::worker::Worker;
use crate::proxy::{behind_filters, http, tcp};
use crate::snapshot::{Service, SocketKey, Tls};
use crate::telemetry::access_log::Entry;
use crate::telemetry::metrics::{Counter, Held};
use crate::telemetry::seldom::Seldom;

/// What a session has to do with.
pub struct SessionCx {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The snapshot that the session began with.
    pub local: Rc<Local>,
    /// Its listener.
    pub listener: Rc<LocalListener>,
}

/// A connection that is identified, and is to be served.
pub struct Identified {
    session: Serving,
    _admitted: Admitted,
    _open: Held,
}

/// What a listener does with a connection. It is in a box, so that a connection takes the memory of what it does, and not
/// that of all that one may do.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

impl Identified {
    /// Serves it.
    pub async fn serve(self) {
        self.session.await;
    }
}

/// Lets a connection in, and finds out who is at its other end. `None` when it is not served.
pub async fn identify(
    worker: Rc<Worker>,
    key: Rc<SocketKey>,
    mut socket: TcpStream,
    peer: SocketAddr,
) -> Option<Identified> {
    let (local, listener) = worker.listener_at(&key)?;
    listener.listener.metrics.accepted.inc();
    let (mut admitted, client) = match admit(&worker, &local, &listener, peer) {
        Ok(admitted) => admitted,
        Err(reason) => {
            turn_away(&listener, &socket, peer, reason);
            return None;
        }
    };
    let open = listener.listener.metrics.open.hold();
    let own = own_address(&socket, listener.listener.address);
    let (at, started) = (SystemTime::now(), Moment::now());
    let mut accepted = Accepted { id: next_id(), peer, local: own, at, started, deadline: None };
    let cx = SessionCx { worker, local, listener };
    if client == Client::Told {
        let told = match accepted.be_told(&cx, &mut socket).await {
            Ok(told) => told,
            Err(reason) => {
                let connection = accepted.connection(&cx, None);
                refuse(&cx, &connection, &accepted, reason, 0);
                return None;
            }
        };
        let most = cx.listener.listener.connections.most_per_client;
        // A connection of the proxy's own is no client's.
        if told && let Err(full) = admitted.1.count_for(accepted.peer.ip(), most) {
            turn_away(&cx.listener, &socket, accepted.peer, full.into());
            return None;
        }
    }
    let session = match &cx.listener.listener.tls {
        Tls::None => {
            let connection = accepted.connection(&cx, None);
            Some(dispatch(cx, connection, Stream::Tcp(socket), Bytes::new()))
        }
        Tls::Passthrough => passthrough(cx, accepted, socket).await,
        Tls::Terminate(tls) => {
            let tls = Arc::clone(tls);
            terminate(cx, accepted, socket, &tls).await
        }
    };
    Some(Identified { session: session?, _admitted: admitted, _open: open })
}

/// The address that was called: the listener's, unless that listens at all of them, or at a port that the kernel chose.
fn own_address(socket: &TcpStream, listens: SocketAddr) -> SocketAddr {
    let is_one = !listens.ip().is_unspecified() && listens.port() != 0;
    if is_one { listens } else { socket.local_addr().unwrap_or(listens) }
}

/// A connection that was let in, until it is dropped.
type Admitted = (overload::Admitted, admission::Admitted);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Whoever connected.
    Peer,
    /// Whoever the PROXY protocol names.
    Told,
}

/// Lets a connection in, when there is room for it. A proxy is no client, and is not counted as one.
fn admit(
    worker: &Worker,
    local: &Local,
    listener: &LocalListener,
    peer: SocketAddr,
) -> Result<(Admitted, Client), CloseReason> {
    if worker.overload.at_least(Level::NoConnections) {
        return Err(CloseReason::Overload);
    }
    let client = match &listener.listener.proxy_protocol {
        None => Client::Peer,
        Some(proxies) if proxies.from.iter().any(|net| net.contains(peer.ip())) => Client::Told,
        Some(ProxyProtocol { others: Others::Plain, .. }) => Client::Peer,
        Some(ProxyProtocol { others: Others::Refuse, .. }) => return Err(CloseReason::ProxyUnlisted),
    };
    let most = local.snapshot.config.sections.overload.max_connections;
    let admitted = worker.overload.admit(most).ok_or(CloseReason::ProcessFull)?;
    let (listener, limits) = (&listener.listener, &listener.listener.connections);
    let mut own = listener.admission.admit(limits.most)?;
    if client == Client::Peer {
        own.count_for(peer.ip(), limits.most_per_client)?;
    }
    Ok(((admitted, own), client))
}

/// Resets a connection that is not let in: whoever floods is not to leave anything behind, a log line least of all.
fn turn_away(listener: &LocalListener, socket: &TcpStream, peer: SocketAddr, reason: CloseReason) {
    static SELDOM: Seldom = Seldom::new();
    listener.listener.metrics.closed(reason).into_iter().for_each(Counter::inc);
    if SELDOM.now() {
        let (listener, reason) = (&*listener.listener.name, reason.as_str());
        tracing::warn!(listener, %peer, reason, "connections are turned away");
    }
    // A socket that is gone needs no reset.
    let _ = socket.set_zero_linger();
}

/// Shakes hands.
async fn terminate(
    cx: SessionCx,
    mut accepted: Accepted,
    socket: TcpStream,
    tls: &ServerTls,
) -> Option<Serving> {
    let timer = accepted.deadline(&cx);
    let shaken = timer.limit(tls.accept(socket)).await;
    drop(timer);
    let reason = match shaken {
        Some(Ok((stream, info))) if info.peer.is_none() || is_trusted_now(&cx, tls, &stream) => {
            let connection = accepted.connection(&cx, Some(info));
            return Some(dispatch(cx, connection, stream, Bytes::new()));
        }
        // It began before it changed who is trusted.
        Some(Ok(_)) => CloseReason::Handshake,
        Some(Err(error)) => {
            let (listener, peer) = (&*cx.listener.listener.name, accepted.peer);
            tracing::debug!(listener, %peer, %error, "TLS handshake failed");
            CloseReason::Handshake
        }
        None => CloseReason::HandshakeTimeout,
    };
    let connection = accepted.connection(&cx, None);
    refuse(&cx, &connection, &accepted, reason, 0);
    None
}

/// Whether the listener trusts, as it is now, the client that has shaken hands with it as it was.
fn is_trusted_now(cx: &SessionCx, tls: &ServerTls, stream: &Stream) -> bool {
    let Some((_, listener)) = cx.worker.listener_at(&cx.listener.listener.socket_key()) else { return true };
    match &listener.listener.tls {
        Tls::Terminate(now) => now.trusts(stream, tls),
        Tls::None | Tls::Passthrough => true,
    }
}

/// What is known of a connection before it is identified.
struct Accepted {
    id: u64,
    /// The client, as far as anybody knows.
    peer: SocketAddr,
    /// The address that it connected to.
    local: SocketAddr,
    at: SystemTime,
    started: Moment,
    /// When it has to be identified; from when that begins.
    deadline: Option<Timer>,
}

impl Accepted {
    fn connection(&self, cx: &SessionCx, tls: Option<TlsInfo>) -> Arc<Connection> {
        Arc::new(Connection {
            id: self.id,
            listener: Arc::clone(&cx.listener.listener.name),
            peer: self.peer,
            local: self.local,
            accepted: self.at,
            tls,
            told: OnceLock::new(),
        })
    }

    /// One deadline for all that identifies a connection.
    fn deadline(&mut self, cx: &SessionCx) -> Timer {
        self.deadline.take().unwrap_or_else(|| {
            let timer = cx.worker.timers.timer();
            timer.set_limit(cx.listener.listener.connections.handshake_timeout);
            timer
        })
    }

    /// Lets the proxy at the other end tell who the client is.
    async fn be_told(&mut self, cx: &SessionCx, socket: &mut TcpStream) -> Result<bool, CloseReason> {
        let timer = self.deadline(cx);
        let header = timer.limit(read_header(socket)).await.unwrap_or(Err(CloseReason::ProxyTimeout));
        self.deadline = Some(timer);
        let Header::Told { source, destination } = header? else { return Ok(false) };
        (self.peer, self.local) = (source, destination);
        Ok(true)
    }
}

/// Reads a PROXY protocol header, and not a byte of what follows it.
async fn read_header(socket: &mut TcpStream) -> Result<Header, CloseReason> {
    const MOST: usize = 256;
    let mut reader = proxy_protocol::Reader::default();
    let mut bytes = [0; MOST];
    loop {
        let seen = socket.peek(&mut bytes).await.map_err(|_| CloseReason::ProxyCut)?;
        let (taken, header) = reader.feed(bytes.get(..seen).unwrap_or(&[]))?;
        let read = socket.read_exact(bytes.get_mut(..taken).unwrap_or(&mut [])).await;
        match (read, header) {
            (Err(_), _) => return Err(CloseReason::ProxyCut),
            (Ok(_), Some(header)) => return Ok(header),
            // That was the end.
            (Ok(_), None) if seen == 0 => return Err(CloseReason::ProxyCut),
            (Ok(_), None) => {}
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Hands an identified connection to what its listener does.
fn dispatch(cx: SessionCx, connection: Arc<Connection>, stream: Stream, first: Bytes) -> Serving {
    let limits = match &cx.listener.listener.service {
        Service::Tcp { .. } => {
            return Box::pin(async move { tcp::serve(&cx, connection, stream, first).await });
        }
        Service::Http(service) => service.limits.clone(),
    };
    if !cx.listener.filters.is_empty() {
        return Box::pin(behind_filters::serve(cx, connection, stream, limits));
    }
    let session = http::Session::new(&cx, connection);
    // Each exchange takes the snapshot in force.
    drop(cx);
    Box::pin(session.serve(stream, limits))
}

/// Reads the ClientHello, and keeps its bytes for the upstream.
async fn passthrough(cx: SessionCx, mut accepted: Accepted, mut socket: TcpStream) -> Option<Serving> {
    let mut bytes = BytesMut::with_capacity(2048);
    let timer = accepted.deadline(&cx);
    let hello =
        timer.limit(read_hello(&mut socket, &mut bytes)).await.unwrap_or(Err(CloseReason::HelloTimeout));
    drop(timer);
    let refusal = match &hello {
        Ok(ClientHello { server_name: Some(_), .. }) => None,
        Ok(ClientHello { server_name: None, .. }) => Some(CloseReason::NoServerName),
        Err(reason) => Some(*reason),
    };
    let (server_name, offered) =
        hello.map(|hello| (hello.server_name.map(Arc::from), hello.alpn)).unwrap_or_default();
    let connection = accepted.connection(&cx, Some(TlsInfo { server_name, offered, ..TlsInfo::default() }));
    match refusal {
        None => Some(dispatch(cx, connection, Stream::Tcp(socket), bytes.freeze())),
        Some(reason) => {
            refuse(&cx, &connection, &accepted, reason, bytes.len() as u64);
            None
        }
    }
}

async fn read_hello(socket: &mut TcpStream, bytes: &mut BytesMut) -> Result<ClientHello, CloseReason> {
    let mut reader = Reader::default();
    loop {
        let known = bytes.len();
        match socket.read_buf(bytes).await {
            Ok(0) | Err(_) => return Err(CloseReason::HelloCut),
            Ok(_) => {}
        }
        if let Some(hello) = reader.feed(bytes.get(known..).unwrap_or(&[]))? {
            return Ok(hello);
        }
    }
}

/// Closes a connection that could not be identified: counted, logged.
fn refuse(cx: &SessionCx, connection: &Connection, accepted: &Accepted, reason: CloseReason, received: u64) {
    cx.closed(connection, reason);
    if let Some(log) = &cx.local.snapshot.access_log {
        log.write(&Entry {
            time: accepted.at,
            listener: &connection.listener,
            peer: connection.peer,
            sni: connection.server_name(),
            identity: connection.identity(),
            request: None,
            filter: None,
            reason: Some(reason.as_str()),
            cluster: None,
            upstream: None,
            bytes_received: received,
            bytes_sent: 0,
            duration_ms: accepted.started.elapsed(),
            upstream_ms: None,
        });
    }
}

impl SessionCx {
    /// How long bytes that are relayed may be silent; zero is no limit.
    pub fn relay_idle(&self) -> Duration {
        self.listener.listener.connections.tcp_idle_timeout
    }

    /// Counts and logs a connection that was closed instead of served.
    pub fn closed(&self, connection: &Connection, reason: CloseReason) {
        if let Some(counter) = self.listener.listener.metrics.closed(reason) {
            counter.inc();
        }
        tracing::info!(
            listener = &*connection.listener, peer = %connection.peer, sni = connection.server_name(),
            reason = reason.as_str(), "connection closed"
        );
    }
}
