//! TLS: terminated towards clients, spoken towards clusters.

use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::gateway::own_address;
use weir_tests::http::{Client, reflect, tls_upstream};
use weir_tests::tls::{self, authority, certificate, client_config, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::websocket::{converse, websocket};
use weir_tests::{Gateway, Setup};
use xtask::certs::{Authority, Certificate};

/// A setup with an authority and a certificate for `a.example`, and one for `*.b.example`.
fn setup() -> Setup {
    let (a, b) = (certificate(&["a.example"]), certificate(&["*.b.example"]));
    Setup::new()
        .file("ca.pem", authority().pem())
        .file("a.pem", a.cert)
        .file("a.key", a.key)
        .file("b.pem", b.cert)
        .file("b.key", b.key)
}

/// A listener that answers by itself, with these TLS fields besides its certificates.
fn listening(tls: &str) -> String {
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", tls: {{ mode: terminate, \
           certificates: [ {{ cert: a.pem, key: a.key }}, {{ cert: b.pem, key: b.key }} ] {tls} }}, \
           http: {{ routes: [ {{ respond: {{ status: 200, body: secret }} }} ] }} }} ]"
    )
}

async fn ask(gateway: &Gateway, name: &str, certificate: Option<&Certificate>) -> Result<String, String> {
    let config = client_config(certificate, &["http/1.1"]);
    let mut client = Client::tls(gateway.address("web"), name, config).await.map_err(|e| e.to_string())?;
    let request = http::Request::builder().uri("/").header("host", name);
    let request = request.body(weir_tests::http::empty()).expect("a request");
    client.call(request).await.map(|answer| answer.text()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let gateway = setup().config(listening("")).start();
    assert_eq!(ask(&gateway, "a.example", None).await.as_deref(), Ok("secret"));
    assert_eq!(ask(&gateway, "x.b.example", None).await.as_deref(), Ok("secret"));
    assert!(ask(&gateway, "x.y.b.example", None).await.is_err(), "an asterisk stands for one label");
    assert!(ask(&gateway, "c.example", None).await.is_err(), "nobody has a certificate for it");
}

#[tokio::test]
async fn a_websocket_goes_through_a_tls_cluster_that_prefers_http2() {
    let upstream = websocket(1).await;
    // Two listeners in a row, as two sidecars are: plain, then TLS that offers HTTP/2 first.
    let inner = own_address(74);
    let config = format!(
        "listeners:\n\
         \x20 - {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: mesh }} ] }} }}\n\
         \x20 - {{ name: mesh, address: \"{inner}\", tls: {{ mode: terminate, certificates: [ {{ cert: a.pem, key: a.key }} ] }}, http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         clusters:\n\
         \x20 - {{ name: mesh, endpoints: [\"{inner}\"], tls: {{ ca: ca.pem, sni: a.example }} }}\n\
         \x20 - {{ name: up, endpoints: [\"{}\"] }}",
        upstream.address
    );
    let gateway = setup().config(config).start();
    let address = gateway.address("web");
    // Everything else goes through HTTP/2.
    assert_eq!(weir_tests::http::get(address, "/plain").await.status, 200);
    let entry = gateway.wait_for_access("\"listener\":\"mesh\"");
    assert_eq!(entry["protocol"], "HTTP/2");
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    converse(&mut socket).await;
}

#[tokio::test]
async fn tls_1_2_and_1_3_with_a_post_quantum_key_exchange_are_spoken() {
    let gateway = setup().config(listening("")).start();
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(tls::roots(authority().pem()))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = tls::connect(gateway.address("web"), "a.example", config).await.expect("a handshake");
        let (_, session) = stream.get_ref();
        assert_eq!(session.protocol_version(), Some(expected));
        if expected == ProtocolVersion::TLSv1_3 {
            let group = session.negotiated_key_exchange_group().expect("a group").name();
            assert_eq!(group, NamedGroup::X25519MLKEM768);
        }
    }
}

#[tokio::test]
async fn the_application_protocol_is_agreed_on() {
    let gateway = setup().config(listening("")).start();
    for (offer, expected) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let config = client_config(None, offer);
        let stream = tls::connect(gateway.address("web"), "a.example", config).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected, "{offer:?}");
    }
    let config = client_config(None, &["spdy/1"]);
    assert!(tls::connect(gateway.address("web"), "a.example", config).await.is_err(), "nothing in common");
}

#[tokio::test]
async fn client_certificates_are_not_asked_for_optional_or_required() {
    let good = certificate(&["spiffe://mesh.internal/orders"]);
    let stranger = Authority::new("stranger").expect("a key").sign("x", &["spiffe://mesh.internal/orders"]);
    let stranger = stranger.expect("a certificate");
    for (mode, without, with_good, with_stranger) in
        [("none", true, true, true), ("optional", true, true, false), ("required", false, true, false)]
    {
        let ca = if mode == "none" { "" } else { ", client_ca: ca.pem" };
        let gateway = setup().config(listening(&format!("{ca}, client_certificate: {mode}"))).start();
        assert_eq!(ask(&gateway, "a.example", None).await.is_ok(), without, "{mode}: no certificate");
        assert_eq!(ask(&gateway, "a.example", Some(&good)).await.is_ok(), with_good, "{mode}: a good one");
        let answered = ask(&gateway, "a.example", Some(&stranger)).await;
        assert_eq!(answered.is_ok(), with_stranger, "{mode}: one of another authority: {answered:?}");
    }
}

#[tokio::test]
async fn a_verified_identity_is_told_to_the_upstream_and_the_log_and_nothing_else_is() {
    let upstream = weir_tests::http::mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", tls: {{ mode: terminate, \
           certificates: [ {{ cert: a.pem, key: a.key }} ], client_ca: ca.pem, client_certificate: optional }}, \
           http: {{ routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let gateway = setup().config(config).start();
    let orders = certificate(&["spiffe://mesh.internal/orders", "orders.internal"]);
    let seen = ask(&gateway, "a.example", Some(&orders)).await.expect("an answer");
    assert!(seen.contains("URI=spiffe://mesh.internal/orders;DNS=orders.internal\n"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");
    assert_eq!(gateway.wait_for_access("spiffe")["identity"], "spiffe://mesh.internal/orders");
    let seen = ask(&gateway, "a.example", None).await.expect("an answer");
    assert!(!seen.contains("x-forwarded-client-cert"), "{seen}");
}

#[tokio::test]
async fn tls_can_be_terminated_for_plain_tcp() {
    let echo = Upstream::echo().await;
    let config = format!(
        "listeners: [ {{ name: db, address: \"127.0.0.1:0\", tcp: {{ cluster: echo }}, tls: {{ mode: terminate, \
           certificates: [ {{ cert: a.pem, key: a.key }} ] }} }} ]\nclusters: [ {{ name: echo, endpoints: [\"{}\"] }} ]",
        echo.address
    );
    let gateway = setup().config(config).start();
    let mut stream =
        tls::connect(gateway.address("db"), "a.example", client_config(None, &[])).await.expect("TLS");
    let block = vec![b'x'; 1 << 20];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let send = async {
        write.write_all(&block).await.expect("sent");
        write.shutdown().await.expect("sent");
    };
    let mut back = Vec::new();
    let ((), received) = soon("the echo", async { tokio::join!(send, read.read_to_end(&mut back)) }).await;
    received.expect("an end in order");
    assert!(back == block);
}

/// A gateway whose cluster is spoken to through TLS.
fn towards(upstream: &Upstream, tls: &str) -> Gateway {
    let own = certificate(&["spiffe://mesh.internal/gateway"]);
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], tls: {{ ca: ca.pem, {tls} }} }} ]",
        upstream.address
    );
    setup().file("own.pem", own.cert).file("own.key", own.key).config(config).start()
}

async fn through(gateway: &Gateway) -> (u16, String) {
    let answer = weir_tests::http::get(gateway.address("web"), "/").await;
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn an_upstream_is_verified_by_its_name() {
    let upstream =
        tls_upstream(server_config(&certificate(&["api.internal"]), false, &["http/1.1"]), reflect).await;
    assert_eq!(through(&towards(&upstream, "sni: api.internal")).await.0, 200);
    let (status, _) = through(&towards(&upstream, "sni: other.internal")).await;
    assert_eq!(status, 503, "the certificate is for another name");
    let (status, _) = through(&towards(&upstream, "")).await;
    assert_eq!(status, 503, "the certificate is not for the address");
}

#[tokio::test]
async fn an_upstream_is_verified_by_its_identity_and_shown_ours() {
    let identity = "spiffe://mesh.internal/api";
    let server = server_config(&certificate(&[identity]), true, &["h2", "http/1.1"]);
    let upstream = tls_upstream(server, reflect).await;
    let own = "cert: own.pem, key: own.key";
    let good = towards(&upstream, &format!("{own}, verify_identity: [\"{identity}\"]"));
    let (status, text) = through(&good).await;
    assert_eq!(status, 200);
    assert!(text.contains("HTTP/2"), "both agreed on it: {text}");
    let wrong = towards(&upstream, &format!("{own}, verify_identity: [\"spiffe://mesh.internal/other\"]"));
    assert_eq!(through(&wrong).await.0, 503);
    assert_eq!(wrong.wait_for_access("\"path\":\"/\"")["reason"], "connect_failure");
    let anonymous = towards(&upstream, &format!("verify_identity: [\"{identity}\"]"));
    assert_ne!(through(&anonymous).await.0, 200, "the upstream wants a certificate");
}

#[tokio::test]
async fn an_identity_signed_by_a_stranger_or_beside_another_is_none() {
    let identity = "spiffe://mesh.internal/api";
    let stranger = Authority::new("stranger").expect("a key").sign("x", &[identity]).expect("a certificate");
    let two = certificate(&[identity, "spiffe://mesh.internal/admin"]);
    for certificate in [stranger, two] {
        let upstream = tls_upstream(server_config(&certificate, false, &[]), reflect).await;
        let gateway = towards(&upstream, &format!("verify_identity: [\"{identity}\"]"));
        assert_eq!(through(&gateway).await.0, 503);
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_counted_and_hurts_nobody() {
    let gateway = setup().config(listening("")).start();
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut rest = Vec::new();
    let _ = soon("the end", socket.read_to_end(&mut rest)).await;
    gateway.wait_for_access("handshake_failure");
    assert_eq!(ask(&gateway, "a.example", None).await.as_deref(), Ok("secret"));
}

#[tokio::test]
async fn a_reload_takes_up_certificates_whose_files_have_changed() {
    let gateway = setup().config(listening("")).start();
    let serial = async || {
        let stream = tls::connect(gateway.address("web"), "a.example", client_config(None, &[])).await;
        let stream = stream.expect("a handshake");
        stream.get_ref().1.peer_certificates().expect("a chain")[0].as_ref().to_vec()
    };
    let before = serial().await;
    let renewed = certificate(&["a.example"]);
    std::fs::write(gateway.folder().join("a.pem"), renewed.cert).expect("it can be written");
    std::fs::write(gateway.folder().join("a.key"), renewed.key).expect("it can be written");
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_log("the configuration is in force");
    assert_ne!(serial().await, before);
    // A pair that does not match is refused, and the one before it stays.
    let serving = serial().await;
    std::fs::write(gateway.folder().join("a.key"), certificate(&["a.example"]).key)
        .expect("it can be written");
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_log("does not match the certificate in");
    assert_eq!(serial().await, serving);
}
