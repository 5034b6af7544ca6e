//! TLS passthrough: routed by server name, without a key, byte for byte.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::tls::{self, certificate, client_config, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

const TEMPLATE: &str = r#"{ template: "{env}.{app}.meshproxy.internal", cluster: "{app}-{env}" }"#;

fn gateway(router: &str, clusters: &[(&str, &Upstream)]) -> Gateway {
    let clusters: Vec<_> = clusters
        .iter()
        .map(|(name, upstream)| format!("{{ name: {name}, endpoints: [\"{}\"] }}", upstream.address))
        .collect();
    let config = format!(
        "listeners:\n\
         \x20 - name: mesh\n\
         \x20   address: 127.0.0.1:0\n\
         \x20   tls: {{ mode: passthrough }}\n\
         \x20   filters: [ {{ plugin: sni-router, config: {router} }} ]\n\
         clusters: [ {} ]",
        clusters.join(", ")
    );
    Setup::new().plugin("sni-router").config(config).start()
}

async fn greeting(gateway: &Gateway, name: &str) -> std::io::Result<String> {
    let mut stream = tls::connect(gateway.address("mesh"), name, client_config(None, &[])).await?;
    let mut text = String::new();
    soon("the greeting", stream.read_to_string(&mut text)).await?;
    Ok(text)
}

#[tokio::test]
async fn the_server_name_decides_where_an_encrypted_connection_goes() {
    let names = ["prod.orders.meshproxy.internal", "test.orders.meshproxy.internal"];
    let config = || server_config(&certificate(&names), false, &[]);
    let prod = Upstream::tls_greeting(config(), "this is prod").await;
    let test = Upstream::tls_greeting(config(), "this is test").await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &prod), ("orders-test", &test)]);
    assert_eq!(greeting(&gateway, names[0]).await.expect("prod"), "this is prod");
    assert_eq!(greeting(&gateway, names[1]).await.expect("test"), "this is test");
    let entry = gateway.wait_for_access(names[0]);
    assert_eq!(entry["cluster"], "orders-prod");
    assert_eq!(entry["upstream"], prod.address.to_string());
}

#[tokio::test]
async fn client_bytes_arrive_identical_for_a_client_hello_split_at_every_byte() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &upstream)]);
    let address = gateway.address("mesh");
    let hello = client_hello("prod.orders.meshproxy.internal");
    let mut sent = hello.clone();
    sent.extend_from_slice(b"and what comes right behind it");
    // Every split, in batches: each connection sends the two parts as separate segments.
    for split in 1..hello.len() {
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        socket.write_all(&sent[..split]).await.expect("the gateway takes it");
        tokio::task::yield_now().await;
        socket.write_all(&sent[split..]).await.expect("the gateway takes it");
        socket.shutdown().await.expect("a socket");
        let received = soon("the bytes", told.recv()).await.expect("the upstream");
        assert!(received == sent, "split at {split}: {} of {} bytes", received.len(), sent.len());
    }
}

#[tokio::test]
async fn a_client_hello_in_single_bytes_and_tiny_records_arrives_identical() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &upstream)]);
    // The handshake message of one record, in records of 40 bytes.
    let hello = client_hello("prod.orders.meshproxy.internal");
    let mut sent = Vec::new();
    for chunk in hello[5..].chunks(40) {
        sent.extend_from_slice(&[22, 3, 1]);
        sent.extend_from_slice(&(chunk.len() as u16).to_be_bytes());
        sent.extend_from_slice(chunk);
    }
    let mut socket = TcpStream::connect(gateway.address("mesh")).await.expect("it listens");
    socket.set_nodelay(true).expect("a socket");
    for byte in &sent {
        socket.write_all(&[*byte]).await.expect("the gateway takes it");
    }
    socket.shutdown().await.expect("a socket");
    assert!(soon("the bytes", told.recv()).await.expect("the upstream") == sent);
}

#[tokio::test]
async fn what_cannot_be_routed_is_closed_counted_and_logged_with_its_reason() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &upstream)]);
    let mut many_names = client_hello("prod.orders.meshproxy.internal");
    many_names.truncate(100);
    let named = |name: &str| client_hello_for("abcdefghijklmno.example", name);
    let cases: [(&str, Vec<u8>); 12] = [
        ("not_tls", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("no_server_name", client_hello("127.0.0.1")),
        ("closed_by_filter", client_hello("evil.example")),
        ("unknown_cluster", client_hello("prod.stranger.meshproxy.internal")),
        ("client_hello_cut", many_names),
        ("client_hello_too_long", vec![22, 3, 1, 0x40, 0, 1, 0, 0x80, 0]),
        // Names that are none: an address in three forms, a label that decodes to nothing, an empty one, a blank.
        ("invalid_server_name", named("abcdefghijklmn.10.0.0.1")),
        ("invalid_server_name", named("abcdefghijklmnopq.0X7f1")),
        ("invalid_server_name", named("00000000000002130706433")),
        ("invalid_server_name", named("xn--abcdefghijk.example")),
        ("invalid_server_name", named("abcdefghijklmn..example")),
        ("invalid_server_name", named("abcdefghijklmn .example")),
    ];
    let mut counted = BTreeMap::new();
    for (reason, bytes) in cases {
        *counted.entry(reason).or_insert(0) += 1;
        let mut socket = TcpStream::connect(gateway.address("mesh")).await.expect("it listens");
        socket.write_all(&bytes).await.expect("the gateway takes it");
        if reason == "client_hello_cut" {
            socket.shutdown().await.expect("a socket");
        }
        let mut answer = Vec::new();
        // Closed in order, or reset because bytes were left unread: either way nothing is answered.
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{reason}");
        let entry = gateway.wait_for_access(reason);
        assert_eq!(entry["listener"], "mesh");
        gateway.wait_for_log_count(&format!("reason=\"{reason}\""), counted[reason]);
    }
    let metrics = gateway.admin("GET", "/metrics").await.text();
    for (reason, count) in counted {
        let series = format!("weir_listener_closed_total{{listener=\"mesh\",reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&series), "no {series} in {metrics}");
    }
    assert!(told.try_recv().is_err(), "the upstream saw something");
}

#[tokio::test]
async fn one_host_has_one_name_however_it_is_written() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &upstream)]);
    for (like, name) in [
        ("prod.orders.meshproxy.internal", "PROD.orders.MeshProxy.internal"),
        ("xprod.orders.meshproxy.internal", "prod.orders.meshproxy.internal."),
    ] {
        let sent = client_hello_for(like, name);
        let mut socket = TcpStream::connect(gateway.address("mesh")).await.expect("it listens");
        socket.write_all(&sent).await.expect("the gateway takes it");
        socket.shutdown().await.expect("a socket");
        assert!(soon("the bytes", told.recv()).await.expect("the upstream") == sent, "{name}");
    }
    gateway.wait_for_access("\"sni\":\"prod.orders.meshproxy.internal\"");
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_hello_is_closed_after_ten_seconds() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = gateway(TEMPLATE, &[("orders-prod", &upstream)]);
    let hello = client_hello("prod.orders.meshproxy.internal");
    let mut socket = TcpStream::connect(gateway.address("mesh")).await.expect("it listens");
    socket.write_all(&hello[..hello.len() - 1]).await.expect("the gateway takes it");
    let mut answer = Vec::new();
    // Closed in order, or reset because bytes were left unread.
    let _ = soon("the end", socket.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    let entry = gateway.wait_for_access("client_hello_timeout");
    let took = entry["duration_ms"].as_f64().expect("a number");
    assert!((10_000.0..15_000.0).contains(&took), "{took} ms");
    assert!(told.try_recv().is_err(), "the upstream saw something");
}

/// What a client says first to `name`, which no TLS library would send: in the place of `like`, of the same length.
fn client_hello_for(like: &'static str, name: &str) -> Vec<u8> {
    assert_eq!(like.len(), name.len(), "the lengths around it must stay as they are");
    let mut bytes = client_hello(like);
    let place = bytes.windows(like.len()).position(|window| window == like.as_bytes()).expect("it is there");
    bytes[place..place + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// What a client says first to `name`. An address sends no server name.
fn client_hello(name: &'static str) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from(name).expect("a name");
    let config = std::sync::Arc::new(client_config(None, &["h2"]));
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes all");
    bytes
}
