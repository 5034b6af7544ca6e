//! Clusters that tell their endpoints who the client is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use weir_tests::http::{Client, reflect, serve};
use weir_tests::proxied::{read, told};
use weir_tests::tls::{authority, certificate, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup, puppet};

/// An HTTP server that wants a header first, then TLS when there is a configuration for it. Tells what each header says;
/// and how many connections are open.
async fn told_server(tls: Option<ServerConfig>) -> (Upstream, UnboundedReceiver<String>, Arc<AtomicUsize>) {
    let (tell, heard) = unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    let (acceptor, count) = (tls.map(|tls| TlsAcceptor::from(Arc::new(tls))), Arc::clone(&open));
    let upstream = Upstream::new(move |mut socket| {
        let (tell, acceptor, count) = (tell.clone(), acceptor.clone(), Arc::clone(&count));
        async move {
            let header = read(&mut socket).await.expect("a header");
            // A test that is over listens no more.
            let _ = tell.send(told(&header));
            count.fetch_add(1, Ordering::SeqCst);
            match acceptor {
                None => serve(socket, reflect).await,
                Some(acceptor) => serve(acceptor.accept(socket).await.expect("TLS"), reflect).await,
            }
            count.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, heard, open)
}

fn gateway(upstream: &Upstream, cluster: &str) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], {cluster} }} ]",
        upstream.address
    );
    Setup::new().file("ca.pem", authority().pem()).config(config).start()
}

/// A client, and what is to be told of it.
async fn client(gateway: &Gateway, h2: bool) -> (Client, String) {
    let socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let own = socket.local_addr().expect("an address").port();
    let expected = format!("127.0.0.1 {own} > 127.0.0.1 {}", gateway.address("web").port());
    (if h2 { Client::h2_over(socket).await } else { Client::h1_over(socket).await }, expected)
}

#[tokio::test]
async fn a_connection_of_bytes_begins_with_who_the_client_is_to_the_letter() {
    for version in ["v1", "v2"] {
        let (upstream, mut heard) = Upstream::recording().await;
        let config = format!(
            "listeners: [ {{ name: tcp, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"], proxy_protocol: {version} }} ]",
            upstream.address
        );
        let gateway = Setup::new().config(config).start();
        let address = gateway.address("tcp");
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        let own = socket.local_addr().expect("an address").port();
        socket.write_all(b"and then the rest").await.expect("sent");
        socket.shutdown().await.expect("a socket");
        let bytes = soon("the bytes", heard.recv()).await.expect("the upstream");
        let header = if version == "v1" {
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {}\r\n", address.port()).into_bytes()
        } else {
            let ports = [own.to_be_bytes(), address.port().to_be_bytes()].concat();
            [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01", &ports[..]].concat()
        };
        assert_eq!(bytes, [&header[..], b"and then the rest"].concat(), "{version}");
    }
}

#[tokio::test]
async fn the_header_comes_before_tls_whatever_is_spoken_inside() {
    for (version, alpn, protocol) in [
        ("v1", &["http/1.1"][..], "HTTP/1.1"),
        ("v2", &["http/1.1"], "HTTP/1.1"),
        ("v2", &["h2"], "HTTP/2.0"),
    ] {
        let server = server_config(&certificate(&["api.internal"]), false, alpn);
        let (upstream, mut heard, _) = told_server(Some(server)).await;
        let cluster = format!("proxy_protocol: {version}, tls: {{ ca: ca.pem, sni: api.internal }}");
        let gateway = gateway(&upstream, &cluster);
        let (mut client, expected) = client(&gateway, false).await;
        let answer = client.get("/").await;
        assert!(answer.text().contains(protocol), "{}", answer.text());
        assert_eq!(soon("a header", heard.recv()).await, Some(expected), "{version} {alpn:?}");
    }
}

#[tokio::test]
async fn clients_do_not_share_connections_and_each_keeps_its_own_while_it_is_there() {
    for (protocol, h2) in [("http1", false), ("http1", true), ("http2", false), ("http2", true)] {
        let (upstream, mut heard, open) = told_server(None).await;
        let gateway = gateway(&upstream, &format!("proxy_protocol: v2, protocol: {protocol}"));
        let mut of_clients = BTreeMap::new();
        let (mut one, expected) = client(&gateway, h2).await;
        of_clients.insert(expected, 1);
        let (mut two, expected) = client(&gateway, h2).await;
        of_clients.insert(expected, 1);
        for _ in 0..5 {
            assert_eq!(one.get("/").await.status, 200);
            assert_eq!(two.get("/").await.status, 200);
        }
        let mut told = BTreeMap::new();
        while let Ok(header) = heard.try_recv() {
            *told.entry(header).or_insert(0) += 1;
        }
        assert_eq!(told, of_clients, "one connection for each client: {protocol}, {h2}");
        assert_eq!(open.load(Ordering::SeqCst), 2);
        // With the client its connection goes, and not the other's.
        drop(one);
        until("the end of the one", async || (open.load(Ordering::SeqCst) == 1).then_some(())).await;
        assert_eq!(two.get("/").await.status, 200);
        assert!(heard.try_recv().is_err(), "the other's is used again: {protocol}, {h2}");
        drop(two);
        until("the end of the other", async || (open.load(Ordering::SeqCst) == 0).then_some(())).await;
        drop(gateway);
    }
}

#[tokio::test]
async fn a_websocket_through_such_a_cluster_is_told_of_its_client_too() {
    let upgraded = Upstream::new(|mut socket| async move {
        let header = read(&mut socket).await.expect("a header");
        weir_tests::http::read_head(&mut socket).await;
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: told\r\n\r\n";
        socket.write_all(format!("{head}{}", told(&header)).as_bytes()).await.expect("sent");
        let _ = socket.shutdown().await;
    })
    .await;
    let gateway = gateway(&upgraded, "proxy_protocol: v1");
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let own = socket.local_addr().expect("an address").port();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: told\r\n\r\n";
    socket.write_all(request).await.expect("sent");
    let mut answer = String::new();
    soon("the end", socket.read_to_string(&mut answer)).await.expect("an end in order");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains(&format!("127.0.0.1 {own} > 127.0.0.1 ")), "{answer}");
}

#[tokio::test]
async fn calls_of_plugins_are_weirs_own_connections_and_no_clients() {
    for version in ["v1", "v2"] {
        let (upstream, mut heard, _) = told_server(None).await;
        let call = "proxy_http_call up [:method=GET|:path=/call|:authority=o] \"\" [] 2000";
        let mut filter = puppet::filter(&format!("request_headers: {call}"));
        filter["grants"] = serde_json::json!({ "clusters": ["up"] });
        let config = format!(
            "runtime: {{ workers: 1 }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {filter} ], \
               routes: [ {{ respond: {{ status: 200 }} }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"], proxy_protocol: {version} }} ]",
            upstream.address
        );
        let gateway = Setup::new().plugin("puppet").config(config).start();
        assert_eq!(weir_tests::http::get(gateway.address("web"), "/").await.status, 200);
        assert_eq!(soon("a header", heard.recv()).await.as_deref(), Some("nobody"), "{version}");
        gateway.wait_for_log("root http_call_response [");
    }
}
