//! Certificates of listeners: taken up when their files change, and the last good ones stay.

mod clusters;
mod lists;
mod odd_files;
mod reloads;
mod straddling;
mod trust;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_tests::http::Client;
use weir_tests::tls::{self, authority, certificate, client_config};
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};
use xtask::certs::Certificate;

const NAME: &str = "a.example";

/// A certificate for `a.example` that is valid from and to some seconds from now.
fn valid(from: i64, to: i64) -> Certificate {
    let at = |seconds: i64| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let now = SystemTime::now();
        if seconds < 0 { now - distance } else { now + distance }
    };
    authority().sign_for("test", &[NAME], Some((at(from), at(to)))).expect("good names")
}

/// A listener that answers by itself, with these TLS fields besides its certificate in `a.pem` and `a.key`.
fn listening(tls: &str) -> String {
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", tls: {{ mode: terminate, \
           certificates: [ {{ cert: a.pem, key: a.key }} ] {tls} }}, \
           http: {{ routes: [ {{ respond: {{ status: 200, body: secret }} }} ] }} }} ]"
    )
}

fn setup(own: &Certificate) -> Setup {
    Setup::new().file("ca.pem", authority().pem()).file("a.pem", &own.cert).file("a.key", &own.key)
}

/// Writes a file as operators do: beside it, and renamed into its place.
fn put(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let beside = folder.join(format!("{name}.new"));
    std::fs::write(&beside, content).expect("the folder can be written");
    std::fs::rename(beside, folder.join(name)).expect("a rename within a folder");
}

/// What a client sees that visits: how it shook hands, and the certificate that it was shown. Every visit ends with an
/// answer, and tickets for the next.
async fn visit(gateway: &Gateway, config: &ClientConfig) -> io::Result<(HandshakeKind, Vec<u8>)> {
    let mut stream = tls::connect(gateway.address("web"), NAME, config.clone()).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await?;
    let (_, session) = stream.get_ref();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("secret"), "{answer}");
    let shown = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    Ok((session.handshake_kind().expect("it is over"), shown.unwrap_or_default()))
}

/// The certificate that a new client is shown.
async fn shown(gateway: &Gateway) -> Vec<u8> {
    visit(gateway, &client_config(None, &[])).await.expect("a visit").1
}

/// The certificate itself.
fn der(certificate: &Certificate) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(certificate.cert.as_bytes()).expect("PEM").to_vec()
}

/// Waits until a certificate is shown.
async fn until_shown(gateway: &Gateway, certificate: &Certificate) {
    let wanted = der(certificate);
    until("the new certificate", async || (shown(gateway).await == wanted).then_some(())).await;
}

async fn ready(gateway: &Gateway) -> String {
    let answer = gateway.admin("GET", "/ready").await;
    assert_eq!(answer.status, 200, "what serves is ready");
    answer.text()
}

/// Waits until `/ready` says that something is wrong, with this text in it.
async fn until_degraded(gateway: &Gateway, text: &str) -> String {
    until(text, async || Some(ready(gateway).await).filter(|ready| ready.contains(text))).await
}

async fn until_ready(gateway: &Gateway) {
    until("ready", async || (ready(gateway).await == "ready\n").then_some(())).await;
}

async fn metric(gateway: &Gateway, series: &str) -> i64 {
    let text = gateway.admin("GET", "/metrics").await.text();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in:\n{text}"))
}

#[tokio::test]
async fn a_new_pair_is_taken_up_by_itself_and_old_connections_go_on() {
    let (first, second) = (valid(-10, 1000), valid(-10, 2000));
    let gateway = setup(&first).config(listening("")).start();
    let config = client_config(None, &["http/1.1"]);
    let mut old = Client::tls(gateway.address("web"), NAME, config).await.expect("a handshake");
    assert_eq!(old.get("/").await.status, 200);
    assert_eq!(shown(&gateway).await, der(&first));
    let file = gateway.folder().join("a.pem").display().to_string();
    let expiry = format!("weir_tls_certificate_not_after_seconds{{listener=\"web\",file=\"{file}\"}}");
    let before = metric(&gateway, &expiry).await;
    put(gateway.folder(), "a.pem", &second.cert);
    put(gateway.folder(), "a.key", &second.key);
    until_shown(&gateway, &second).await;
    assert_eq!(old.get("/").await.status, 200, "an old connection goes on");
    until_ready(&gateway).await;
    gateway.wait_for_log("listener `web`: new certificates are in force");
    let taken = "weir_tls_rotations_total{listener=\"web\",result=\"taken\"}";
    assert_eq!(metric(&gateway, taken).await, 1);
    assert_eq!(metric(&gateway, &expiry).await - before, 1000);
    let told = gateway.admin("GET", "/certificates").await.json();
    assert_eq!(
        (&told["degraded"], told["certificates"].as_array().map(Vec::len)),
        (&serde_json::json!([]), Some(1))
    );
}

#[tokio::test]
async fn half_of_a_rotation_leaves_the_last_good_pair_and_ready_says_so() {
    let (first, second) = (certificate(&[NAME]), certificate(&[NAME]));
    let gateway = setup(&first).config(listening("")).start();
    put(gateway.folder(), "a.pem", &second.cert);
    let told = until_degraded(&gateway, "does not match the certificate in").await;
    assert!(told.starts_with("ready, but degraded:\nlistener `web`: "), "{told}");
    assert_eq!(shown(&gateway).await, der(&first), "nothing mixed is ever shown");
    gateway.wait_for_log("listener `web`: what served goes on: ");
    let refused = "weir_tls_rotations_total{listener=\"web\",result=\"refused\"}";
    assert_eq!(metric(&gateway, refused).await, 1);
    let told = gateway.admin("GET", "/certificates").await.json();
    assert_eq!(told["degraded"][0]["used_by"]["listener"], "web");
    assert!(told["degraded"][0]["reason"].to_string().contains("does not match"), "{told}");
    assert!(told["degraded"][0]["since"].is_string(), "{told}");
    // Whoever asks for a reload is told, too.
    let answer = gateway.admin("POST", "/reload").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("does not match"), "{}", answer.text());
    assert_eq!(metric(&gateway, refused).await, 1, "it is one trouble");
    put(gateway.folder(), "a.key", &second.key);
    until_shown(&gateway, &second).await;
    until_ready(&gateway).await;
    assert_eq!(gateway.admin("POST", "/reload").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_read_or_used_leaves_the_last_good_pair() {
    let first = certificate(&[NAME]);
    let gateway = setup(&first).config(listening("")).start();
    let folder = gateway.folder();
    for (file, content, reason) in [
        ("a.pem", Some("not PEM"), "holds no certificate in PEM form"),
        ("a.key", Some(""), "holds no private key in PEM form"),
        ("a.key", None, "cannot be read"),
        ("a.pem", None, "cannot be read"),
    ] {
        match content {
            Some(content) => put(folder, file, content),
            None => std::fs::remove_file(folder.join(file)).expect("it is there"),
        }
        until_degraded(&gateway, reason).await;
        assert_eq!(shown(&gateway).await, der(&first), "{reason}");
        put(folder, "a.pem", &first.cert);
        put(folder, "a.key", &first.key);
        until_ready(&gateway).await;
    }
}

#[tokio::test]
async fn a_pair_that_has_expired_or_is_not_valid_yet_is_not_taken_up_before_its_time() {
    let first = certificate(&[NAME]);
    let gateway = setup(&first).config(listening("")).start();
    let expired = valid(-100, -10);
    put(gateway.folder(), "a.pem", &expired.cert);
    put(gateway.folder(), "a.key", &expired.key);
    until_degraded(&gateway, "expired at").await;
    assert_eq!(shown(&gateway).await, der(&first));
    let early = valid(8, 1000);
    put(gateway.folder(), "a.pem", &early.cert);
    put(gateway.folder(), "a.key", &early.key);
    until_degraded(&gateway, "is not valid before").await;
    assert_eq!(shown(&gateway).await, der(&first));
    // Nobody touches the files any more.
    until_shown(&gateway, &early).await;
    until_ready(&gateway).await;
}

#[tokio::test]
async fn a_certificate_that_expires_while_it_serves_is_told_of_and_so_is_one_that_serves_from_the_start() {
    let brief = valid(-10, 3);
    let gateway = setup(&brief).config(listening("")).start();
    until_degraded(&gateway, "expired at").await;
    gateway.wait_for_log("expired at");
    assert!(visit(&gateway, &client_config(None, &[])).await.is_err(), "clients see it, too");
    let gateway = gateway.stop().start();
    until_degraded(&gateway, "expired at").await;
    let next = certificate(&[NAME]);
    put(gateway.folder(), "a.pem", &next.cert);
    put(gateway.folder(), "a.key", &next.key);
    until_ready(&gateway).await;
    assert_eq!(shown(&gateway).await, der(&next));
}

#[tokio::test]
async fn one_pair_that_is_broken_does_not_hold_up_another() {
    let (one, other) = (certificate(&[NAME]), certificate(&["b.example"]));
    let config = listening("").replace("a.key }", "a.key }, { cert: b.pem, key: b.key }");
    let gateway = setup(&one).file("b.pem", &other.cert).file("b.key", &other.key).config(config).start();
    put(gateway.folder(), "b.key", "garbage");
    until_degraded(&gateway, "b.key holds no private key").await;
    let next = certificate(&[NAME]);
    put(gateway.folder(), "a.pem", &next.cert);
    put(gateway.folder(), "a.key", &next.key);
    until_shown(&gateway, &next).await;
    until_degraded(&gateway, "b.key holds no private key").await;
    let stream = tls::connect(gateway.address("web"), "b.example", client_config(None, &[])).await;
    let stream = stream.expect("the last good pair");
    assert_eq!(stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec(), der(&other));
}

#[tokio::test]
async fn symbolic_links_are_followed_when_they_are_swapped_as_kubernetes_does_it() {
    let pairs = [certificate(&[NAME]), certificate(&[NAME]), certificate(&[NAME])];
    let [first, second, third] = &pairs;
    let setup = Setup::new();
    let folder = setup.folder().join("secret");
    std::fs::create_dir(&folder).expect("a folder");
    let version = |number: u32, pair: &Certificate| {
        let version = folder.join(format!("..version-{number}"));
        std::fs::create_dir(&version).expect("a folder");
        pair.write(&version, "tls").expect("it can be written");
    };
    let link = |from: &Path, to: &str, name: &str| {
        std::os::unix::fs::symlink(to, from.join("..next")).expect("a link");
        std::fs::rename(from.join("..next"), from.join(name)).expect("a rename within a folder");
    };
    version(1, first);
    link(&folder, "..version-1", "..data");
    link(&folder, "..data/tls.pem", "tls.pem");
    link(&folder, "..data/tls.key", "tls.key");
    // And a folder that is a link itself, whose own entries never change.
    link(setup.folder(), "secret/..data", "live");
    for place in ["secret", "live"] {
        let config = listening("").replace("a.pem", &format!("{place}/tls.pem"));
        let config = config.replace("a.key", &format!("{place}/tls.key"));
        link(&folder, "..version-1", "..data");
        let absolute = config.replace(place, &setup.folder().join(place).display().to_string());
        let gateway = Setup::new().config(absolute).start();
        assert_eq!(shown(&gateway).await, der(first));
        for (number, pair) in [(2, second), (3, third)] {
            if place == "secret" {
                version(number, pair);
            }
            link(&folder, &format!("..version-{number}"), "..data");
            until_shown(&gateway, pair).await;
        }
        until_ready(&gateway).await;
        assert!(!gateway.logged("does not match"), "it was never seen half");
    }
}

#[tokio::test]
async fn a_configuration_is_taken_up_while_a_pair_is_half_rotated() {
    let first = certificate(&[NAME]);
    let gateway = setup(&first).config(listening("")).start();
    put(gateway.folder(), "a.key", &certificate(&[NAME]).key);
    until_degraded(&gateway, "does not match").await;
    gateway.write_config(&listening("").replace("secret", "other secret"));
    gateway.wait_for_log("the configuration is in force");
    let config = client_config(None, &["http/1.1"]);
    let mut client = Client::tls(gateway.address("web"), NAME, config).await.expect("a handshake");
    assert_eq!(client.get("/").await.text(), "other secret");
    until_degraded(&gateway, "does not match").await;
    // What is named anew has nothing good before it.
    gateway.write_config(&listening("").replace("a.pem", "missing.pem"));
    gateway.wait_for_log("missing.pem cannot be read");
    assert_eq!(client.get("/").await.text(), "other secret");
}

#[tokio::test]
async fn a_check_notes_what_would_be_served_and_is_not_valid() {
    let setup = setup(&valid(-100, -10)).config(listening(""));
    let (good, report) = crate::check::check(&setup.write_config());
    assert!(good, "it would be served: {report}");
    assert!(
        report.contains("listener `web`: the certificate in ") && report.contains("expired at"),
        "{report}"
    );
}
