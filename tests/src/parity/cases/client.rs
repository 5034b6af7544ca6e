//! The client of a case: who it is comes by the PROXY protocol, or by its certificate.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Frame;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::testbed::{
    ConnectionFacts, Direction, Protocol, RequestFacts, Seen, SeenResponse, TlsFacts, TlsVersion,
};

use crate::http::{Client, empty, fed};
use crate::parity::cases::servers::Servers;
use crate::parity::tls::NAMES;
use crate::tls::{certificate, client_config, handshake};
use crate::wait::soon;

/// A connection of any kind.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Connects as the client of a case; the bytes that were said before those of the case.
async fn connect(address: SocketAddr, facts: &ConnectionFacts) -> std::io::Result<(Box<dyn Io>, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(proxied(facts).as_bytes()).await?;
    match &facts.tls {
        None => Ok((Box::new(socket), Vec::new())),
        Some(tls) if tls.version == TlsVersion::Passthrough => {
            let hello = client_hello(tls);
            socket.write_all(&hello).await?;
            Ok((Box::new(socket), hello))
        }
        Some(tls) => {
            let names = tls.client.iter().flat_map(|own| own.uri_sans.iter().chain(&own.dns_sans));
            let names: Vec<&str> = names.map(String::as_str).collect();
            let own = tls.client.as_ref().map(|_| certificate(&names));
            let stream = handshake(socket, NAMES.0, client_config(own.as_ref(), &[])).await?;
            Ok((Box::new(stream), Vec::new()))
        }
    }
}

/// Version 1 of the PROXY protocol: both addresses are of one family.
fn proxied(ConnectionFacts { peer, local, .. }: &ConnectionFacts) -> String {
    let family = if peer.is_ipv4() { "TCP4" } else { "TCP6" };
    let to = if peer.is_ipv4() == local.is_ipv4() { local.ip() } else { Ipv6Addr::LOCALHOST.into() };
    format!("PROXY {family} {} {to} {} {}\r\n", peer.ip(), peer.port(), local.port())
}

/// What a client says first that speaks TLS to somebody behind.
fn client_hello(tls: &TlsFacts) -> Vec<u8> {
    let offered: Vec<&str> = tls.offered.iter().map(String::as_str).collect();
    let name = tls.server_name.clone().unwrap_or_else(|| NAMES.0.to_owned());
    let name = ServerName::try_from(name).expect("a server name");
    let mut client =
        rustls::ClientConnection::new(Arc::new(client_config(None, &offered)), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes all");
    hello
}

/// Sends a request; the response, or `None` when there is none.
pub(super) async fn exchange(
    address: SocketAddr,
    facts: &ConnectionFacts,
    wanted: &RequestFacts,
) -> Option<SeenResponse> {
    let (io, _) = connect(address, facts).await.ok()?;
    let (mut client, uri) = match wanted.protocol {
        Protocol::Http11 => (Client::h1_over(io).await, wanted.path.value.clone()),
        Protocol::Http2 => {
            (Client::h2_over(io).await, format!("http://{}{}", wanted.host, wanted.path.value))
        }
    };
    let mut request = Request::builder().method(wanted.method.as_str()).uri(uri);
    if let Protocol::Http11 = wanted.protocol {
        request = request.header("host", &wanted.host);
    }
    for (name, value) in &wanted.headers.0 {
        request = request.header(name, value);
    }
    let body = if wanted.body.0.is_empty() && wanted.trailers.0.is_empty() {
        empty()
    } else {
        let (feed, body) = fed();
        let trailers = (!wanted.trailers.0.is_empty()).then(|| Frame::trailers(wanted.trailers.0.clone()));
        let pieces = wanted.body.0.iter().cloned().map(Frame::<Bytes>::data);
        // Whoever reads it is there until the end of this function.
        pieces.chain(trailers).for_each(|frame| drop(feed.send(frame)));
        body
    };
    let response = soon("an answer", client.send(request.body(body).expect("a request"))).await.ok()?;
    let (parts, body) = response.into_parts();
    let collected = soon("a body", body.collect()).await.ok()?;
    Some(SeenResponse {
        status: parts.status.as_u16(),
        headers: parts.headers,
        trailers: collected.trailers().cloned().unwrap_or_default(),
        body: collected.to_bytes().to_vec(),
        local: false,
    })
}

/// Sends what comes on a connection, from both sides; then the client ends, and then the upstream.
pub(super) async fn relay(
    address: SocketAddr,
    facts: &ConnectionFacts,
    data: &[Direction],
    servers: &Servers,
    seen: &mut Seen,
) {
    let Ok((mut client, before)) = connect(address, facts).await else {
        seen.closed = true;
        return;
    };
    // Envoy connects to the upstream at once, or closes.
    let mut first = [0; 1];
    let mut accepted = servers.accepted.lock().await;
    let came = async {
        tokio::select! {
            accepted = accepted.recv() => accepted,
            _ = client.read(&mut first) => None,
        }
    };
    let Some((cluster, mut upstream)) = soon("a connection to the upstream, or the end", came).await else {
        seen.closed = true;
        return;
    };
    seen.cluster = (cluster != "up").then_some(cluster);
    let mut sent = Ok(());
    for direction in data {
        let (body, to): (_, &mut dyn Io) = match direction {
            Direction::Client(body) => (body, &mut client),
            Direction::Upstream(body) => (body, &mut upstream),
        };
        for piece in &body.0 {
            sent = sent.and(to.write_all(piece).await);
        }
    }
    let _ = client.shutdown().await;
    let read = soon("the end of the client", upstream.read_to_end(&mut seen.upstream_gets)).await;
    let _ = upstream.shutdown().await;
    let got = soon("the end of the upstream", client.read_to_end(&mut seen.client_gets)).await;
    seen.closed = sent.is_err() || read.is_err() || got.is_err();
    if let Some(rest) = seen.upstream_gets.strip_prefix(before.as_slice()) {
        seen.upstream_gets = rest.to_vec();
    }
}
