//! Network filters in front of HTTP.

use rustls::ClientConfig;
use weir_tests::http::{Client, mirror, raw};
use weir_tests::tls::{certificate, client_config};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

/// A gateway that speaks HTTP behind these network filters, in the clear and through TLS.
fn gateway(filters: &str, upstream: &Upstream) -> Gateway {
    let listener = |name: &str, tls: &str| {
        format!(
            "{{ name: {name}, address: \"127.0.0.1:0\", {tls} filters: [ {filters} ], \
               http: {{ filters: [ {{ plugin: http-version }} ], routes: [ {{ cluster: up }} ] }} }}"
        )
    };
    let tls = "tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ] },";
    let config = format!(
        "listeners: [ {}, {} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        listener("web", ""),
        listener("safe", tls),
        upstream.address
    );
    let own = certificate(&["a.example"]);
    let setup = Setup::new().file("a.pem", own.cert).file("a.key", own.key);
    setup.plugin("tcp-tap").plugin("sni-router").plugin("http-version").config(config).start()
}

fn h2() -> ClientConfig {
    client_config(None, &["h2"])
}

#[tokio::test]
async fn network_filters_see_and_change_the_bytes_of_http_before_it_is_read() {
    let mirror = mirror().await;
    let gateway = gateway("{ plugin: tcp-tap }", &mirror);
    let request = "GET /path HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.address("web"), request).await;
    assert!(answer.starts_with("> HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("GET /PATH "), "{answer}");
    assert!(answer.contains("x-version: this-is-version-0000"), "HTTP filters run behind them: {answer}");
}

#[tokio::test]
async fn a_network_filter_closes_an_http_connection_and_the_log_says_who_did() {
    let mirror = mirror().await;
    let gateway = gateway("{ plugin: tcp-tap, name: guard, config: { forbidden: attack } }", &mirror);
    let answer = raw(gateway.address("web"), "GET /attack HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer, "");
    let line = gateway.wait_for_access("\"filter\":\"guard\"");
    assert_eq!(line["reason"], "closed_by_filter");
    assert_eq!(line["listener"], "web");
}

#[tokio::test]
async fn a_network_filter_that_only_wants_to_know_the_name_decides_before_http_on_both_protocols() {
    let mirror = mirror().await;
    let gateway = gateway("{ plugin: sni-router, config: { names: { a.example: up } } }", &mirror);
    // In the clear there is no server name.
    assert_eq!(raw(gateway.address("web"), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    gateway.wait_for_access("\"filter\":\"sni-router\"");
    for config in [h2(), client_config(None, &["http/1.1"])] {
        let mut client =
            Client::tls(gateway.address("safe"), "a.example", config).await.expect("a handshake");
        for _ in 0..3 {
            assert_eq!(client.get("/x").await.status, 200);
        }
    }
}

#[tokio::test]
async fn large_bodies_and_many_requests_pass_a_filter_that_leaves_them_alone() {
    let mirror = mirror().await;
    // It holds what has no end yet, so every head and body is held and let go.
    let gateway = gateway("{ plugin: tcp-tap, config: { until: \"\\n\" } }", &mirror);
    for _ in 0..5 {
        let body = "BODY ".repeat(40_000) + "\n";
        let request = format!(
            "POST / HTTP/1.1\r\nHOST: A\r\nCONNECTION: CLOSE\r\nCONTENT-LENGTH: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw(gateway.address("web"), request).await;
        // Each piece of the answer has its mark, so pieces are counted out.
        assert!(answer.replace("> ", "").contains(&body), "the body came back whole: {} bytes", answer.len());
    }
    // Nobody is left over on the worker: it serves as before.
    assert!(
        raw(gateway.address("web"), "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .contains("200 OK")
    );
}
