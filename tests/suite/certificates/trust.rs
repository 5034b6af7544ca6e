//! Whom listeners trust: authorities and revocation lists, and sessions that began under others.

use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, HandshakeKind};
use weir_tests::http::Client;
use weir_tests::tls::{authority, certificate, client_config};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};
use xtask::certs::{Authority, Certificate};

use super::{NAME, listening, metric, put, setup, until_degraded, until_ready, valid, visit};

pub(super) const IDENTITY: &str = "spiffe://mesh.internal/orders";

pub(super) fn hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// A gateway that wants certificates of the authorities in `ca.pem`.
pub(super) fn gateway(setup: Setup, more: &str) -> Gateway {
    setup.config(listening(&format!(", client_ca: ca.pem, client_certificate: required {more}"))).start()
}

/// A client that comes back with what it was given on its first visit.
pub(super) async fn returning(gateway: &Gateway, own: &Certificate) -> ClientConfig {
    let config = client_config(Some(own), &[]);
    assert_eq!(visit(gateway, &config).await.expect("a visit").0, HandshakeKind::Full);
    config
}

pub(super) async fn resumes(gateway: &Gateway, config: &ClientConfig) {
    assert_eq!(visit(gateway, config).await.expect("a visit").0, HandshakeKind::Resumed);
}

pub(super) async fn rotations(gateway: &Gateway, count: usize) {
    gateway.wait_for_log_count("listener `web`: new certificates are in force", count);
}

#[tokio::test]
async fn clients_of_an_authority_that_is_removed_are_refused_with_new_sessions_and_with_old_ones() {
    let leaving = Authority::new("leaving").expect("a key");
    let both = format!("{}{}", authority().pem(), leaving.pem());
    let gateway = gateway(setup(&certificate(&[NAME, "example.com"])).file("ca.pem", both), "");
    let (theirs, ours) = (leaving.sign("x", &[IDENTITY]).expect("a name"), certificate(&[IDENTITY]));
    let (they, we) = (returning(&gateway, &theirs).await, returning(&gateway, &ours).await);
    resumes(&gateway, &they).await;
    resumes(&gateway, &we).await;
    let config = client_config(Some(&theirs), &["http/1.1"]);
    let mut old = Client::tls(gateway.address("web"), NAME, config).await.expect("a handshake");
    assert_eq!(old.get("/").await.status, 200);
    put(gateway.folder(), "ca.pem", authority().pem());
    rotations(&gateway, 1).await;
    visit(&gateway, &they).await.expect_err("a session of before");
    visit(&gateway, &client_config(Some(&theirs), &[])).await.expect_err("a new session");
    assert_eq!(visit(&gateway, &we).await.expect("they are trusted").0, HandshakeKind::Full);
    resumes(&gateway, &we).await;
    assert_eq!(old.get("/").await.status, 200, "an old connection goes on");
}

#[tokio::test]
async fn a_certificate_that_is_revoked_is_refused_with_a_new_session_and_with_an_old_one() {
    let (good, bad) = (certificate(&[IDENTITY]), certificate(&[IDENTITY]));
    let none = authority().revoke(&[], hour()).expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("crl.pem", none), ", client_crl: crl.pem");
    let (one, other) = (returning(&gateway, &good).await, returning(&gateway, &bad).await);
    resumes(&gateway, &other).await;
    put(gateway.folder(), "crl.pem", authority().revoke(&[&bad], hour()).expect("a list"));
    rotations(&gateway, 1).await;
    visit(&gateway, &other).await.expect_err("a session of before");
    visit(&gateway, &client_config(Some(&bad), &[])).await.expect_err("a new session");
    assert_eq!(visit(&gateway, &one).await.expect("nobody has revoked it").0, HandshakeKind::Full);
}

#[tokio::test]
async fn authorities_and_lists_that_are_of_no_use_leave_the_last_good_ones() {
    let (good, bad) = (certificate(&[IDENTITY]), certificate(&[IDENTITY]));
    let list = authority().revoke(&[&bad], hour()).expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("crl.pem", &list), ", client_crl: crl.pem");
    let stale = authority().revoke(&[], SystemTime::now() - Duration::from_secs(60)).expect("a list");
    for (file, content, reason) in [
        ("ca.pem", "", "holds no certificate in PEM form"),
        ("crl.pem", "", "holds no certificate revocation list"),
        ("crl.pem", authority().pem(), "holds no certificate revocation list"),
        ("crl.pem", &stale, "was to be replaced at"),
    ] {
        put(gateway.folder(), file, content);
        until_degraded(&gateway, reason).await;
        visit(&gateway, &client_config(Some(&good), &[])).await.expect("it is trusted");
        visit(&gateway, &client_config(Some(&bad), &[])).await.expect_err("it is revoked");
        put(gateway.folder(), "ca.pem", authority().pem());
        put(gateway.folder(), "crl.pem", &list);
        until_ready(&gateway).await;
    }
    assert_eq!(metric(&gateway, "weir_tls_rotations_total{listener=\"web\",result=\"refused\"}").await, 4);
}

#[tokio::test]
async fn sessions_outlive_a_new_pair_when_the_same_clients_are_trusted() {
    let gateway = gateway(setup(&certificate(&[NAME])), "");
    let client = returning(&gateway, &certificate(&[IDENTITY])).await;
    let next = certificate(&[NAME]);
    put(gateway.folder(), "a.pem", &next.cert);
    put(gateway.folder(), "a.key", &next.key);
    rotations(&gateway, 1).await;
    resumes(&gateway, &client).await;
}

#[tokio::test]
async fn a_session_does_not_outlive_the_clients_certificate_and_the_next_one_is_welcome() {
    let gateway = gateway(setup(&certificate(&[NAME])), "");
    let brief = returning(&gateway, &valid(-10, 8)).await;
    let lasting = returning(&gateway, &certificate(&[IDENTITY])).await;
    resumes(&gateway, &brief).await;
    until("the end of its time", async || visit(&gateway, &brief).await.err()).await;
    gateway.wait_for_log("what the client's session began with is not good any more");
    // Not even tickets that it still has are good for anything, and others lose nothing but their sessions.
    visit(&gateway, &brief).await.expect_err("it has nothing else to show");
    visit(&gateway, &lasting).await.expect("a visit");
    resumes(&gateway, &lasting).await;
}

#[tokio::test]
async fn a_list_that_is_out_of_date_is_told_of_and_fails_closed() {
    let stale = authority().revoke(&[], SystemTime::now() - Duration::from_secs(60)).expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("crl.pem", stale), ", client_crl: crl.pem");
    until_degraded(&gateway, "was to be replaced at").await;
    let good = client_config(Some(&certificate(&[IDENTITY])), &[]);
    visit(&gateway, &good).await.expect_err("nobody knows whether it is revoked");
    put(gateway.folder(), "crl.pem", authority().revoke(&[], hour()).expect("a list"));
    until_ready(&gateway).await;
    visit(&gateway, &good).await.expect("it is not revoked");
}

#[tokio::test]
async fn who_comes_back_once_a_list_is_out_of_date_is_refused_as_everybody_is() {
    let soon = SystemTime::now() + Duration::from_secs(10);
    let list = authority().revoke(&[], soon).expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("crl.pem", list), ", client_crl: crl.pem");
    let config = returning(&gateway, &certificate(&[IDENTITY])).await;
    until_degraded(&gateway, "was to be replaced at").await;
    visit(&gateway, &config).await.expect_err("nobody knows whether it is revoked");
}
