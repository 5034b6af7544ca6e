//! Handshakes that begin before it changes who is trusted, and end after that: what counts is who is trusted at the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use weir_tests::http::{get, raw, reflect, serve};
use weir_tests::tls::{authority, certificate, client_config, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};
use xtask::certs::{Authority, Certificate};

use super::trust::{IDENTITY, gateway, hour, returning, rotations};
use super::{NAME, put, setup};

/// A client that has heard the server out, and has not said its last word in the handshake yet.
struct Hesitating {
    socket: TcpStream,
    session: ClientConnection,
}

impl Hesitating {
    async fn begin(gateway: &Gateway, config: &ClientConfig) -> Self {
        let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
        let name = ServerName::try_from(NAME).expect("a name");
        let mut session = ClientConnection::new(Arc::new(config.clone()), name).expect("a session");
        while session.is_handshaking() {
            if session.wants_write() {
                say(&mut session, &mut socket).await.expect("the gateway listens");
            } else {
                hear(&mut session, &mut socket).await.expect("the gateway answers");
            }
        }
        Self { socket, session }
    }

    /// Says the last word, asks for something, and tells what comes until the end.
    async fn end(mut self) -> String {
        let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
        io::Write::write_all(&mut self.session.writer(), request.as_bytes()).expect("there is room");
        // Whoever is refused finds the connection closed, sooner or later.
        let _ = say(&mut self.session, &mut self.socket).await;
        let mut answer = Vec::new();
        while let Ok(1..) = soon("the end", hear(&mut self.session, &mut self.socket)).await {
            let _ = io::Read::read_to_end(&mut self.session.reader(), &mut answer);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Sends what the session has to say.
async fn say(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes)?;
    }
    socket.write_all(&bytes).await
}

/// Takes what comes; zero is the end.
async fn hear(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let read = socket.read(&mut bytes).await?;
    session.read_tls(&mut &bytes[..read])?;
    session.process_new_packets().map_err(io::Error::other)?;
    Ok(read)
}

/// What changes while a handshake is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The authority goes.
    Authority,
    /// The certificate is revoked.
    Revoked,
    /// Another authority comes, and another certificate is revoked.
    Others,
}

const CHANGES: [Change; 3] = [Change::Authority, Change::Revoked, Change::Others];

impl Change {
    /// Does it to the files of a gateway that trusts the authority, by a list.
    fn happen(self, gateway: &Gateway, of: &Certificate) {
        let other = Authority::new("other").expect("a key");
        let list = |revoked: &Certificate| authority().revoke(&[revoked], hour()).expect("a list");
        match self {
            Self::Authority => put(gateway.folder(), "ca.pem", other.pem()),
            Self::Revoked => put(gateway.folder(), "crl.pem", list(of)),
            Self::Others => put(gateway.folder(), "crl.pem", list(&certificate(&["x"]))),
        }
    }
}

fn none() -> String {
    authority().revoke(&[], hour()).expect("a list")
}

#[tokio::test]
async fn a_client_that_is_not_trusted_any_more_when_its_handshake_ends_is_not_served() {
    for change in CHANGES {
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let setup = setup(&certificate(&[NAME])).file("crl.pem", none());
            let gateway = gateway(setup, ", client_crl: crl.pem");
            let own = certificate(&[IDENTITY]);
            let config = match kind {
                HandshakeKind::Resumed => returning(&gateway, &own).await,
                _ => client_config(Some(&own), &[]),
            };
            let client = Hesitating::begin(&gateway, &config).await;
            assert_eq!(client.session.handshake_kind(), Some(kind));
            change.happen(&gateway, &own);
            rotations(&gateway, 1).await;
            let answer = client.end().await;
            if change == Change::Others {
                assert!(answer.ends_with("secret"), "it is trusted as before, {kind:?}: {answer}");
            } else {
                assert_eq!(answer, "", "{change:?}, {kind:?}");
                let closed = "weir_listener_closed_total{listener=\"web\",reason=\"handshake_failure\"}";
                assert_eq!(super::metric(&gateway, closed).await, 1, "{change:?}, {kind:?}");
            }
        }
    }
}

/// A server that does not shake hands before it may.
struct Slow {
    upstream: Upstream,
    /// Tells of each connection.
    came: UnboundedReceiver<()>,
    may: Arc<Semaphore>,
    served: Arc<AtomicUsize>,
}

impl Slow {
    async fn new(config: ServerConfig) -> Self {
        let (tell, came) = unbounded_channel();
        let (acceptor, served) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
        let (may, count) = (Arc::new(Semaphore::new(0)), Arc::clone(&served));
        let leave = Arc::clone(&may);
        let upstream = Upstream::new(move |socket| {
            let (tell, acceptor) = (tell.clone(), acceptor.clone());
            let (leave, count) = (Arc::clone(&leave), Arc::clone(&count));
            async move {
                // A test that is over listens no more.
                let _ = tell.send(());
                let _leave = leave.acquire().await.expect("it is never closed");
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let answer = move |request| {
                    count.fetch_add(1, Ordering::SeqCst);
                    reflect(request)
                };
                serve(stream, answer).await;
            }
        })
        .await;
        Self { upstream, came, may, served }
    }
}

fn towards(upstream: &Upstream, verify: &str) -> String {
    format!(
        "runtime: {{ workers: 1 }}\n\
         listeners:\n\
         - {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         - {{ name: tcp, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], connect_timeout: 60s, \
           tls: {{ ca: ca.pem, crl: crl.pem, {verify} }} }} ]",
        upstream.address
    )
}

#[tokio::test]
async fn an_endpoint_that_is_not_trusted_any_more_when_its_handshake_ends_gets_nothing() {
    const API: &str = "spiffe://mesh.internal/api";
    let by_identity = format!("verify_identity: [\"{API}\"]");
    for change in CHANGES {
        for (name, verify, alpn) in
            [("api.internal", "sni: api.internal", "http/1.1"), (API, by_identity.as_str(), "h2")]
        {
            let theirs = certificate(&[name]);
            let mut slow = Slow::new(server_config(&theirs, false, &[alpn])).await;
            let setup = Setup::new().file("ca.pem", authority().pem()).file("crl.pem", none());
            let gateway = setup.config(towards(&slow.upstream, verify)).start();
            let address = gateway.address("web");
            let request = tokio::spawn(async move { get(address, "/").await });
            soon("a connection", slow.came.recv()).await.expect("the server runs");
            change.happen(&gateway, &theirs);
            gateway.wait_for_log("cluster `up`: new certificates are in force");
            slow.may.add_permits(100);
            let answer = soon("an answer", request).await.expect("an exchange");
            let (status, served) = if change == Change::Others { (200, 1) } else { (503, 0) };
            assert_eq!(answer.status, status, "{change:?}, {alpn}");
            assert_eq!(slow.served.load(Ordering::SeqCst), served, "{change:?}, {alpn}");
        }
    }
}

#[tokio::test]
async fn bytes_go_to_no_endpoint_that_is_not_trusted_any_more_when_its_handshake_ends() {
    for change in CHANGES {
        let theirs = certificate(&["api.internal"]);
        let mut slow = Slow::new(server_config(&theirs, false, &[])).await;
        let setup = Setup::new().file("ca.pem", authority().pem()).file("crl.pem", none());
        let gateway = setup.config(towards(&slow.upstream, "sni: api.internal")).start();
        let address = gateway.address("tcp");
        let request = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
        let exchange = tokio::spawn(async move { raw(address, request).await });
        soon("a connection", slow.came.recv()).await.expect("the server runs");
        change.happen(&gateway, &theirs);
        gateway.wait_for_log("cluster `up`: new certificates are in force");
        slow.may.add_permits(100);
        let answer = soon("an answer", exchange).await.expect("an exchange");
        let served = usize::from(change == Change::Others);
        assert_eq!(slow.served.load(Ordering::SeqCst), served, "{change:?}");
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), served == 1, "{change:?}: {answer}");
    }
}
