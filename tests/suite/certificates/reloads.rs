//! What becomes of certificates when the configuration changes that names them.

use rustls::HandshakeKind;
use weir_tests::http::get;
use weir_tests::tls::{authority, certificate, client_config, server_config};
use weir_tests::{Gateway, Setup};

use super::trust::{IDENTITY, resumes, returning};
use super::{NAME, clusters, der, listening, metric, put, setup, shown, until_degraded, until_ready, visit};

/// Puts another configuration in force.
fn reload(gateway: &Gateway, config: &str, count: usize) {
    gateway.write_config(config);
    gateway.wait_for_log_count("the configuration is in force", count);
}

#[tokio::test]
async fn the_last_good_pair_serves_on_when_something_else_of_its_section_changes() {
    let (first, second) = (certificate(&[NAME]), certificate(&["b.example"]));
    let setup = setup(&first).file("b.pem", &second.cert).file("b.key", &second.key);
    let gateway = setup.config(listening("")).start();
    put(gateway.folder(), "a.key", "garbage");
    until_degraded(&gateway, "a.key holds no private key").await;
    reload(&gateway, &listening(", authority: any"), 1);
    assert_eq!(shown(&gateway).await, der(&first));
    // It is known by its files, whatever its place in the list, and whoever names them.
    let pairs = "b.key }, { cert: a.pem, key: a.key }";
    let more = listening("").replace("a.pem", "b.pem").replace("a.key }", pairs);
    reload(&gateway, &more, 2);
    assert_eq!(shown(&gateway).await, der(&first));
    let renamed = listening("").replace("name: web", "name: other");
    reload(&gateway, &renamed, 3);
    until_degraded(&gateway, "listener `other`: ").await;
    let stream = weir_tests::tls::connect(gateway.address("other"), NAME, client_config(None, &[])).await;
    let stream = stream.expect("the last good pair");
    assert_eq!(stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec(), der(&first));
}

#[tokio::test]
async fn whom_a_listener_trusts_stays_when_something_else_of_its_section_changes() {
    let bad = certificate(&[IDENTITY]);
    let list = authority().revoke(&[&bad], super::trust::hour()).expect("a list");
    let setup = setup(&certificate(&[NAME])).file("crl.pem", list);
    let asking = ", client_ca: ca.pem, client_crl: crl.pem, client_certificate: required";
    let gateway = setup.config(listening(asking)).start();
    let good = returning(&gateway, &certificate(&[IDENTITY])).await;
    for file in ["ca.pem", "crl.pem"] {
        put(gateway.folder(), file, "garbage");
        until_degraded(&gateway, &format!("{file} holds no certificate")).await;
    }
    reload(&gateway, &listening(&format!("{asking}, authority: any")), 1);
    resumes(&gateway, &good).await;
    visit(&gateway, &client_config(Some(&bad), &[])).await.expect_err("it is revoked");
    visit(&gateway, &client_config(Some(&certificate(&[IDENTITY])), &[])).await.expect("it is trusted");
}

#[tokio::test]
async fn sessions_go_on_when_something_else_changes_and_end_when_more_is_asked_of_clients() {
    let asking = |how: &str| listening(&format!(", client_ca: ca.pem, client_certificate: {how}"));
    let gateway = setup(&certificate(&[NAME])).config(asking("optional")).start();
    let known = returning(&gateway, &certificate(&[IDENTITY])).await;
    let nobody = client_config(None, &[]);
    assert_eq!(visit(&gateway, &nobody).await.expect("a visit").0, HandshakeKind::Full);
    reload(&gateway, &asking("optional, authority: any"), 1);
    resumes(&gateway, &known).await;
    resumes(&gateway, &nobody).await;
    reload(&gateway, &asking("required"), 2);
    visit(&gateway, &nobody).await.expect_err("it has never shown a certificate");
    visit(&gateway, &known).await.expect("it shows one");
}

#[tokio::test]
async fn a_cluster_keeps_its_last_good_files_when_something_else_of_it_changes() {
    const API: &str = "spiffe://mesh.internal/api";
    let own = certificate(&["own"]);
    let server = server_config(&certificate(&[API]), true, &["http/1.1"]);
    let (upstream, mut told, _) = clusters::server(server).await;
    let setup = Setup::new().file("ca.pem", authority().pem());
    let setup = setup.file("own.pem", &own.cert).file("own.key", &own.key);
    let config = |identities: &str| {
        let tls = format!("cert: own.pem, key: own.key, verify_identity: [{identities}]");
        clusters::config(&upstream, &tls)
    };
    let gateway = setup.config(config(&format!("\"{API}\""))).start();
    for file in ["ca.pem", "own.pem"] {
        put(gateway.folder(), file, "garbage");
        until_degraded(&gateway, &format!("{file} holds no certificate")).await;
    }
    reload(&gateway, &config(&format!("\"{API}\", \"spiffe://mesh.internal/other\"")), 1);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    assert_eq!(weir_tests::wait::soon("a connection", told.recv()).await, Some(der(&own)));
    until_degraded(&gateway, "own.pem holds no certificate").await;
    put(gateway.folder(), "ca.pem", authority().pem());
    put(gateway.folder(), "own.pem", &own.cert);
    until_ready(&gateway).await;
}

#[tokio::test]
async fn metrics_tell_when_certificates_expire_that_are_configured_and_of_no_others() {
    const EXPIRY: &str = "weir_tls_certificate_not_after_seconds";
    let (one, other) = (certificate(&[NAME]), certificate(&[NAME]));
    let setup = setup(&one).file("b.pem", &other.cert).file("b.key", &other.key);
    let cluster = "\nclusters: [ { name: up, endpoints: [\"127.0.0.1:1\"], \
                   tls: { ca: ca.pem, cert: a.pem, key: a.key } } ]";
    let gateway = setup.config(listening("") + cluster).start();
    let of = |owner: &str, name: &str, file: &str| {
        let file = gateway.folder().join(file).display().to_string();
        format!("{EXPIRY}{{{owner}=\"{name}\",file=\"{file}\"}}")
    };
    let series = async || {
        let text = gateway.admin("GET", "/metrics").await.text();
        let series = text.lines().filter(|line| line.starts_with(EXPIRY));
        let mut series: Vec<_> = series.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
        series.sort();
        series
    };
    assert_eq!(series().await, [of("cluster", "up", "a.pem"), of("listener", "web", "a.pem")]);
    reload(&gateway, &listening("").replace("a.pem", "b.pem").replace("a.key", "b.key"), 1);
    assert_eq!(series().await, [of("listener", "web", "b.pem")]);
    assert!(
        metric(&gateway, &of("listener", "web", "b.pem")).await > 2_000_000_000,
        "it is valid until 2045"
    );
}
