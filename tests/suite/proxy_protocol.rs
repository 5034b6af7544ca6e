//! The PROXY protocol on listeners: believed of those who are listed, and of nobody else.

mod haproxy;
mod outgoing;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weir_tests::http::{Client, mirror, read_head};
use weir_tests::proxied::{self, SIGNATURE, v1, v2, v2_of};
use weir_tests::tls::{self, certificate, client_config, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

const CLIENT: &str = "203.0.113.9:4711";

/// A listener `web` that believes 127.0.0.1, with more fields, in front of an upstream.
fn gateway(upstream: SocketAddr, proxies: &str, more: &str) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", proxy_protocol: {{ from: [\"127.0.0.1\"] {proxies} }}, \
           {more} http: {{ filters: [ {{ plugin: sharing }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]"
    );
    Setup::new().plugin("sharing").config(config).start()
}

/// A connection from a loopback address.
async fn from(from: &str, address: SocketAddr) -> TcpStream {
    connect(from, address).await.expect("it listens")
}

/// The same, where it may be reset at once: that can be known before the connection is.
async fn connect(from: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from: IpAddr = from.parse().expect("an address");
    socket.bind((from, 0).into()).expect("a loopback address");
    socket.connect(address).await
}

/// A connection that has said so much already.
async fn said(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut socket = from("127.0.0.1", address).await;
    socket.set_nodelay(true).expect("a socket");
    socket.write_all(bytes.as_ref()).await.expect("sent");
    socket
}

/// What comes until the connection ends, however that is.
async fn rest(mut socket: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = soon("the end", socket.read_to_end(&mut rest)).await;
    String::from_utf8_lossy(&rest).into_owned()
}

async fn closed(gateway: &Gateway, reason: &str) -> u64 {
    let series = format!("weir_listener_closed_total{{listener=\"web\",reason=\"{reason}\"}} ");
    let text = gateway.admin("GET", "/metrics").await.text();
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("the series is there")
}

#[tokio::test]
async fn what_a_listed_proxy_tells_is_the_clients_address_for_filters_the_upstream_and_the_log() {
    let mirror = mirror().await;
    let gateway = gateway(mirror.address, "", "");
    for (number, client) in [CLIENT, "[2001:db8::9]:65535"].into_iter().enumerate() {
        let host = client.parse::<SocketAddr>().expect("an address").ip();
        for (version, header) in [v1(client), v2(client)].into_iter().enumerate() {
            for h2 in [false, true] {
                let socket = said(gateway.address("web"), &header).await;
                let mut http = if h2 { Client::h2_over(socket).await } else { Client::h1_over(socket).await };
                let path = format!("/{number}/{version}/{h2}");
                let answer = http.get(&path).await;
                assert!(answer.text().contains(&format!("x-forwarded-for: {host}\n")), "{}", answer.text());
                assert_eq!(answer.header("x-source"), client);
                let entry = gateway.wait_for_access(&path);
                assert_eq!((&entry["peer"], &entry["client"]), (&client.into(), &host.to_string().into()));
            }
        }
    }
}

#[tokio::test]
async fn tcp_passthrough_and_terminated_tls_begin_behind_the_header_all_the_same() {
    let names = ["prod.orders.meshproxy.internal"];
    let echo = Upstream::echo().await;
    let greeting = Upstream::tls_greeting(server_config(&certificate(&names), false, &[]), "hello").await;
    let own = certificate(&["a.example"]);
    let proxies = "proxy_protocol: { from: [\"127.0.0.0/8\"] }";
    let config = format!(
        "listeners:\n\
         - {{ name: tcp, address: \"127.0.0.1:0\", {proxies}, tcp: {{ cluster: echo }} }}\n\
         - {{ name: sni, address: \"127.0.0.1:0\", {proxies}, tls: {{ mode: passthrough }}, tcp: {{ cluster: greeting }} }}\n\
         - {{ name: tls, address: \"127.0.0.1:0\", {proxies}, tls: {{ mode: terminate, certificates: [ {{ cert: a.pem, key: a.key }} ] }}, \
             http: {{ routes: [ {{ respond: {{ status: 200, body: secret }} }} ] }} }}\n\
         clusters: [ {{ name: echo, endpoints: [\"{}\"] }}, {{ name: greeting, endpoints: [\"{}\"] }} ]",
        echo.address, greeting.address
    );
    let gateway = Setup::new().file("a.pem", own.cert).file("a.key", own.key).config(config).start();
    for header in [v1(CLIENT), v2(CLIENT)] {
        let mut socket =
            said(gateway.address("tcp"), [&header[..], b"PROXY is not read twice"].concat()).await;
        socket.shutdown().await.expect("a socket");
        assert_eq!(rest(socket).await, "PROXY is not read twice");
        let socket = said(gateway.address("sni"), &header).await;
        let mut stream = tls::handshake(socket, names[0], client_config(None, &[])).await.expect("TLS");
        let mut text = String::new();
        soon("the greeting", stream.read_to_string(&mut text)).await.expect("an end in order");
        assert_eq!(text, "hello");
        let socket = said(gateway.address("tls"), &header).await;
        let stream = tls::handshake(socket, "a.example", client_config(None, &[])).await.expect("TLS");
        assert_eq!(Client::h1_over(stream).await.get("/").await.text(), "secret");
    }
    for listener in ["tcp", "sni", "tls"] {
        let entry = gateway.wait_for_access(&format!("\"listener\":\"{listener}\""));
        assert_eq!(entry["peer"], CLIENT, "{listener}");
    }
}

#[tokio::test]
async fn a_header_split_at_every_byte_is_read_and_not_a_byte_behind_it_is_lost() {
    let (upstream, mut told) = Upstream::recording().await;
    let config = format!(
        "listeners: [ {{ name: tcp, address: \"127.0.0.1:0\", proxy_protocol: {{ from: [\"::/0\", \"0.0.0.0/0\"] }}, \
           tcp: {{ cluster: up }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let gateway = Setup::new().config(config).start();
    for header in [v1(CLIENT), v2(CLIENT)] {
        let sent = [&header[..], b"behind"].concat();
        // All first parts, then all the others, so that the gateway has seen the one before the other comes.
        let mut sockets = Vec::new();
        for split in 1..sent.len() {
            sockets.push((split, said(gateway.address("tcp"), &sent[..split]).await));
        }
        for (split, socket) in &mut sockets {
            socket.write_all(&sent[*split..]).await.expect("the gateway takes it");
            socket.shutdown().await.expect("a socket");
        }
        for _ in &sockets {
            assert_eq!(soon("the bytes", told.recv()).await.expect("the upstream"), b"behind");
        }
    }
    let mut socket = said(gateway.address("tcp"), "").await;
    for byte in v2(CLIENT).iter().chain(b"x") {
        socket.write_all(&[*byte]).await.expect("the gateway takes it");
    }
    socket.shutdown().await.expect("a socket");
    assert_eq!(soon("the bytes", told.recv()).await.expect("the upstream"), b"x");
}

#[tokio::test]
async fn a_listed_proxy_that_sends_no_header_or_a_bad_one_is_closed_with_the_reason() {
    let mirror = mirror().await;
    let gateway = gateway(mirror.address, "", "handshake_timeout: 300ms,");
    let line = |filling: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(filling)).into_bytes();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for (bytes, reason) in [
        (request.to_vec(), "proxy_protocol_missing"),
        (vec![0x16, 3, 1, 0, 5], "proxy_protocol_missing"),
        (b"PROXY TCP4 203.0.113.9 1.2.3 1 2\r\n".to_vec(), "proxy_protocol_malformed"),
        (v2_of(0x21, 0x11, &[0; 11]), "proxy_protocol_malformed"),
        ([&line(92)[..], request].concat(), "proxy_protocol_too_long"),
        ([SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), "proxy_protocol_too_long"),
        (b"PROXY TCP4 203".to_vec(), "proxy_protocol_timeout"),
        (Vec::new(), "proxy_protocol_timeout"),
        (v2(CLIENT)[..20].to_vec(), "proxy_protocol_timeout"),
    ] {
        let before = closed(&gateway, reason).await;
        let socket = said(gateway.address("web"), &bytes).await;
        assert_eq!(rest(socket).await, "", "{}", bytes.escape_ascii());
        assert_eq!(closed(&gateway, reason).await, before + 1, "{reason}: {}", bytes.escape_ascii());
        // Nobody has said otherwise, so it is whoever connected.
        let peer = gateway.wait_for_access(reason)["peer"].to_string();
        assert!(peer.starts_with("\"127.0.0.1:"), "{peer}");
    }
    let mut socket = said(gateway.address("web"), &v1(CLIENT)[..9]).await;
    socket.shutdown().await.expect("a socket");
    assert_eq!(rest(socket).await, "");
    gateway.wait_for_access("proxy_protocol_cut");
}

#[tokio::test]
async fn whoever_is_not_listed_is_refused_or_served_as_it_is_and_never_believed() {
    let mirror = mirror().await;
    let request = "GET /plain HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let strict = gateway(mirror.address, "", "");
    match connect("127.0.0.2", strict.address("web")).await {
        Ok(mut socket) => {
            let _ = socket.write_all(&[&v1(CLIENT)[..], request.as_bytes()].concat()).await;
            assert_eq!(rest(socket).await, "");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert_eq!(closed(&strict, "proxy_protocol_unlisted_peer").await, 1);
    let open = gateway(mirror.address, ", others: plain", "");
    let mut socket = from("127.0.0.2", open.address("web")).await;
    socket.write_all(request.as_bytes()).await.expect("sent");
    let answer = rest(socket).await;
    assert!(answer.contains("\r\n\r\n") && answer.contains("x-forwarded-for: 127.0.0.2\n"), "{answer}");
    assert!(open.wait_for_access("/plain")["peer"].to_string().starts_with("\"127.0.0.2:"));
    // Its header is a request line, and no good one.
    for header in [v1(CLIENT), v2(CLIENT)] {
        let mut socket = from("127.0.0.2", open.address("web")).await;
        socket.write_all(&[&header[..], request.as_bytes()].concat()).await.expect("sent");
        let answer = rest(socket).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(!open.log().contains("203.0.113.9"), "nobody has believed it");
}

#[tokio::test]
async fn connections_of_the_proxys_own_and_of_unix_sockets_keep_their_address() {
    let mirror = mirror().await;
    let gateway = gateway(mirror.address, "", "");
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.9 198.51.100.2 1 2\r\n".to_vec(),
        v2_of(0x20, 0, &[]),
        v2_of(0x20, 0x11, &[203, 0, 113, 9, 1, 1, 1, 1, 0, 1, 0, 1]),
        v2_of(0x21, 0, &[]),
        v2_of(0x21, 0x31, &[b'/'; 216]),
    ];
    for header in headers {
        let socket = said(gateway.address("web"), &header).await;
        let peer = socket.local_addr().expect("an address").to_string();
        let answer = Client::h1_over(socket).await.get("/").await;
        assert_eq!(answer.header("x-source"), peer, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn clients_are_counted_by_the_address_that_is_told_and_the_proxy_is_no_client() {
    let mirror = mirror().await;
    let gateway =
        gateway(mirror.address, ", others: plain", "max_connections_per_client: 1, max_connections: 4,");
    let served = async |client: &str| {
        let mut socket = said(gateway.address("web"), v2(client)).await;
        socket.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
        let mut byte = [0];
        let read = soon("an answer or the end", socket.read(&mut byte)).await;
        read.ok().filter(|read| *read > 0).map(|_| socket)
    };
    let one = served(CLIENT).await.expect("the first of this client");
    assert!(served("203.0.113.9:4712").await.is_none(), "the client has as many as it may");
    assert_eq!(closed(&gateway, "client_connection_limit").await, 1);
    let two = served("203.0.113.10:1").await.expect("another client through the same proxy");
    let three = served("[2001:db8::1]:1").await.expect("another one");
    assert!(served("[2001:db8::2]:1").await.is_none(), "it is of the same network");
    let four = served("[2001:db8:1::1]:1").await.expect("the listener has room for it");
    assert!(served("203.0.113.11:1").await.is_none(), "the listener is full");
    assert_eq!(closed(&gateway, "listener_connection_limit").await, 1);
    drop((one, two, three, four));
    until("room", async || served(CLIENT).await).await;
}

#[tokio::test]
async fn one_deadline_holds_for_the_header_and_the_handshake_together() {
    let own = certificate(&["a.example"]);
    let listener = |name: &str, limit: &str, what: &str| {
        format!(
            "- {{ name: {name}, address: \"127.0.0.1:0\", handshake_timeout: {limit}, \
                 proxy_protocol: {{ from: [\"127.0.0.1\"] }}, {what} }}\n"
        )
    };
    let terminate = "tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ] }, \
                     http: { routes: [ { respond: { status: 200 } } ] }";
    let config = [
        "listeners:\n",
        &listener("half", "500ms", "tcp: { cluster: up }"),
        &listener("web", "1s", terminate),
        &listener("sni", "1s", "tls: { mode: passthrough }, tcp: { cluster: up }"),
        "clusters: [ { name: up, endpoints: [\"127.0.0.1:1\"] } ]",
    ]
    .concat();
    let gateway = Setup::new().file("a.pem", own.cert).file("a.key", own.key).config(config).start();
    for (listener, reason) in [("web", "handshake_timeout"), ("sni", "client_hello_timeout")] {
        let begun = Instant::now();
        let mut socket = said(gateway.address(listener), &v2(CLIENT)[..20]).await;
        // Half of its time is what somebody else has.
        assert_eq!(rest(said(gateway.address("half"), "").await).await, "");
        let half = begun.elapsed();
        socket.write_all(&v2(CLIENT)[20..]).await.expect("there is time left");
        assert_eq!(rest(socket).await, "");
        let ended = begun.elapsed();
        assert!(ended < half + Duration::from_secs(1), "no second deadline began: {ended:?} after {half:?}");
        assert_eq!(gateway.wait_for_access(reason)["peer"], CLIENT);
    }
    // Whoever is in time is served.
    let socket = said(gateway.address("web"), v2(CLIENT)).await;
    let name = ServerName::try_from("a.example").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client_config(None, &[])));
    let mut stream = connector.connect(name, socket).await.expect("TLS");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_proxys_own_connections_are_not_counted_as_a_clients() {
    let mirror = mirror().await;
    let gateway = gateway(mirror.address, "", "max_connections_per_client: 1,");
    let mut open = Vec::new();
    // Both say that nobody is behind them: LOCAL, and UNKNOWN.
    for own in [v2_of(0x20, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec(), v2_of(0x20, 0, &[])] {
        let mut client = Client::h1_over(said(gateway.address("web"), own).await).await;
        assert_eq!(client.get("/").await.status, 200);
        open.push(client);
    }
    let mut client = Client::h1_over(said(gateway.address("web"), v1(CLIENT)).await).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(rest(said(gateway.address("web"), v1(CLIENT)).await).await, "", "one of a client's is enough");
    assert_eq!(closed(&gateway, "client_connection_limit").await, 1);
}

#[tokio::test]
async fn what_one_weir_tells_another_believes() {
    let mirror = mirror().await;
    for version in ["v1", "v2"] {
        let inner = gateway(mirror.address, "", "");
        let config = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", proxy_protocol: {{ from: [\"127.0.0.1\"] }}, tcp: {{ cluster: inner }} }} ]\n\
             clusters: [ {{ name: inner, endpoints: [\"{}\"], proxy_protocol: {version} }} ]",
            inner.address("web")
        );
        let outer = Setup::new().config(config).start();
        let socket = said(outer.address("web"), proxied::v2(CLIENT)).await;
        let answer = Client::h1_over(socket).await.get("/").await;
        assert_eq!(answer.header("x-source"), CLIENT, "{version}");
        assert!(answer.text().contains("x-forwarded-for: 203.0.113.9\n"), "{}", answer.text());
    }
}
