//! `tcp-access`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_tests::http::{Client, empty, mirror};
use weir_tests::tls::{authority, certificate, client_config, connect, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};
use xtask::certs::Certificate;

/// A gateway with this TLS, these rules and a TCP upstream.
fn gateway(tls: &str, rules: &str, upstream: &Upstream) -> Gateway {
    gateway_of(tls, rules, "tcp: { cluster: up }", upstream)
}

fn gateway_of(tls: &str, rules: &str, service: &str, upstream: &Upstream) -> Gateway {
    let own = certificate(&["a.example", "b.example", "example.com"]);
    let config = format!(
        "listeners: [ {{ name: gate, address: \"127.0.0.1:0\", {tls} \
           filters: [ {{ plugin: tcp-access, config: {{ rules: {rules} }} }} ], {service} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let files = Setup::new().file("ca.pem", authority().pem()).file("a.pem", own.cert).file("a.key", own.key);
    files.plugin("tcp-access").config(config).start()
}

const TERMINATE: &str = "tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ], client_ca: ca.pem, \
                         client_certificate: optional },";

/// What the upstream says through the gateway; nothing when the connection is closed.
async fn heard(gateway: &Gateway, name: &str, who: Option<&Certificate>, alpn: &[&str]) -> String {
    let stream = soon("a handshake", connect(gateway.address("gate"), name, client_config(who, alpn))).await;
    let Ok(mut stream) = stream else { return String::new() };
    let mut text = String::new();
    // A connection that is closed may be reset.
    let _ = stream.write_all(b"hello").await;
    let _ = soon("the end", stream.read_to_string(&mut text)).await;
    text
}

async fn greeting() -> Upstream {
    Upstream::new(|mut socket| async move {
        let mut hello = [0; 5];
        let _ = socket.read_exact(&mut hello).await;
        let _ = socket.write_all(b"welcome").await;
        let _ = socket.shutdown().await;
    })
    .await
}

#[tokio::test]
async fn a_client_certificate_opens_by_identity_name_and_digest() {
    let upstream = greeting().await;
    let orders = certificate(&["spiffe://mesh.internal/orders"]);
    let named = certificate(&["worker.jobs.internal"]);
    let other = certificate(&["spiffe://mesh.internal/other"]);
    let two = certificate(&["spiffe://mesh.internal/orders", "spiffe://mesh.internal/admin"]);
    let rules = r#"[ { name: orders, allow: ["spiffe://mesh.internal/orders", "dns:*.jobs.internal"] } ]"#;
    let gateway = gateway(TERMINATE, rules, &upstream);
    for (who, text) in [
        (Some(&orders), "welcome"),
        (Some(&named), "welcome"),
        (Some(&other), ""),
        (Some(&two), ""),
        (None, ""),
    ] {
        assert_eq!(heard(&gateway, "a.example", who, &[]).await, text);
    }
    let line = gateway.wait_for_access("closed_by_filter");
    assert_eq!(line["filter"], "tcp-access");
    gateway.wait_for_log("is refused by default");
}

#[tokio::test]
async fn server_name_and_negotiated_protocol_decide_in_front_of_http() {
    let mirror = mirror().await;
    let rules = r#"[ { name: no-b, deny: ["*"], server_names: [B.example] }, { allow: ["*"], alpn: [h2] } ]"#;
    let http = "http: { routes: [ { cluster: up } ] }";
    let gateway = gateway_of(TERMINATE, rules, http, &mirror);
    for (name, alpn, status) in [
        ("a.example", &["h2"][..], 200),
        ("a.example", &["http/1.1", "h2"], 200),
        ("a.example", &["http/1.1"], 0),
        ("a.example", &[], 0),
        ("b.example", &["h2"], 0),
    ] {
        let client = Client::tls(gateway.address("gate"), name, client_config(None, alpn)).await;
        let answer = match client {
            Ok(mut client) => {
                let request = client.request("GET", "/").body(empty()).expect("a request");
                client.call(request).await.map_or(0, |answer| answer.status.as_u16())
            }
            Err(_) => 0,
        };
        assert_eq!(answer, status, "{name} {alpn:?}");
    }
}

#[tokio::test]
async fn server_name_and_all_protocols_on_offer_decide_where_tls_passes_through() {
    let config = server_config(&certificate(&["a.example", "b.example"]), false, &["h2", "http/1.1", "odd"]);
    let upstream = Upstream::tls_greeting(config, "welcome").await;
    let rules = r#"[ { name: mine, allow: ["*"], server_names: [a.example], alpn: [h2, http/1.1], addresses: ["127.0.0.0/8"] } ]"#;
    let gateway = gateway("tls: { mode: passthrough },", rules, &upstream);
    for (name, alpn, text) in [
        ("a.example", &["h2"][..], "welcome"),
        ("a.example", &["h2", "http/1.1"], "welcome"),
        ("a.example", &["h2", "odd"], ""),
        ("a.example", &[], ""),
        ("b.example", &["h2"], ""),
    ] {
        assert_eq!(heard(&gateway, name, None, alpn).await, text, "{name} {alpn:?}");
    }
}

#[tokio::test]
async fn addresses_decide_in_the_clear_and_the_upstream_sees_no_connection_that_is_refused() {
    let (upstream, mut told) = Upstream::recording().await;
    let rules = r#"[ { name: near, deny: ["*"], addresses: ["::ffff:127.0.0.1"] }, { allow: ["*"] } ]"#;
    let refusing = gateway("", rules, &upstream);
    let mut socket = tokio::net::TcpStream::connect(refusing.address("gate")).await.expect("it listens");
    let mut text = Vec::new();
    let _ = socket.write_all(b"hello").await;
    let _ = soon("the end", socket.read_to_end(&mut text)).await;
    assert_eq!(text, b"");
    refusing.wait_for_log("is refused by near");
    let allowing = gateway("", r#"[ { allow: ["*"], addresses: ["127.0.0.1"] } ]"#, &upstream);
    let mut socket = tokio::net::TcpStream::connect(allowing.address("gate")).await.expect("it listens");
    socket.write_all(b"through").await.expect("it is open");
    socket.shutdown().await.expect("it is open");
    assert_eq!(
        soon("what the upstream got", told.recv()).await,
        Some(b"through".to_vec()),
        "and nothing before it"
    );
}
