//! The standard filters, through the real host.

mod api_key;
mod cors;
mod described;
mod ext_authz;
mod files;
mod ip_access;
mod jwt;
mod rate_limit;
mod tcp_access;

use weir_tests::Setup;
use weir_tests::http::{Answer, Client, empty, mirror, raw};
use weir_tests::tls::{authority, certificate, client_config};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, wait};
use xtask::certs::Certificate;

/// A gateway that asks for client certificates and sends everything through one filter.
fn gateway(plugin: &str, config: &str, upstream: &Upstream) -> Gateway {
    let own = certificate(&["edge.example", "example.com", "spiffe://mesh.internal/edge"]);
    let text = format!(
        "listeners: [ {{ name: edge, address: \"127.0.0.1:0\", tls: {{ mode: terminate, \
           certificates: [ {{ cert: edge.pem, key: edge.key }} ], client_ca: ca.pem, client_certificate: optional }}, \
           http: {{ filters: [ {{ plugin: {plugin}, config: {config} }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new()
        .plugin(plugin)
        .file("ca.pem", authority().pem())
        .file("edge.pem", own.cert)
        .file("edge.key", own.key)
        .config(text)
        .start()
}

/// A gateway that speaks plain HTTP and sends everything through one filter.
fn plain(plugin: &str, config: &str, upstream: &Upstream) -> Gateway {
    Setup::new().plugin(plugin).config(plain_config(plugin, config, upstream)).start()
}

fn plain_config(plugin: &str, config: &str, upstream: &Upstream) -> String {
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: {plugin}, config: {config} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

/// What a plain gateway answers a request with these lines of headers.
async fn ask(gateway: &Gateway, method: &str, path: &str, headers: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{headers}connection: close\r\n\r\n");
    wait::soon("an answer", raw(gateway.address("web"), request)).await
}

async fn call(
    gateway: &Gateway,
    who: Option<&Certificate>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let config = client_config(who, &["http/1.1"]);
    let mut client = Client::tls(gateway.address("edge"), "edge.example", config).await.expect("a handshake");
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.call(request.body(empty()).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn authz_allows_and_denies_by_the_client_certificate() {
    let mirror = mirror().await;
    let config = r#"{ decision_header: x-decision, rules: [
        { name: no-secrets, deny: ["*"], path_prefix: /v1/secret },
        { name: orders-read, allow: ["spiffe://mesh.internal/orders"], methods: [GET], path_prefix: /v1 } ] }"#;
    let gateway = gateway("authz", config, &mirror);
    let orders = certificate(&["spiffe://mesh.internal/orders"]);
    let other = certificate(&["spiffe://mesh.internal/other"]);
    let allowed = call(&gateway, Some(&orders), "GET", "/v1/x", &[]).await;
    assert_eq!((allowed.status.as_u16(), allowed.header("x-decision").as_str()), (200, "orders-read"));
    for (who, method, path, decision) in [
        (Some(&orders), "POST", "/v1/x", "default"),
        (Some(&orders), "GET", "/v1/secret/x", "no-secrets"),
        (Some(&orders), "GET", "/v2", "default"),
        (Some(&other), "GET", "/v1/x", "default"),
        (None, "GET", "/v1/x", "default"),
    ] {
        let denied = call(&gateway, who, method, path, &[]).await;
        assert_eq!(
            (denied.status.as_u16(), denied.header("x-decision").as_str()),
            (403, decision),
            "{method} {path}"
        );
        assert_eq!(denied.text(), "denied\n");
    }
    let entry = gateway.wait_for_access("denied by no-secrets");
    assert_eq!(
        (entry["filter"].as_str(), entry["identity"].as_str()),
        (Some("authz"), Some("spiffe://mesh.internal/orders"))
    );
}

#[tokio::test]
async fn authz_believes_no_header_about_who_is_calling() {
    let mirror = mirror().await;
    let gateway = gateway("authz", r#"{ rules: [ { allow: ["spiffe://mesh.internal/orders"] } ] }"#, &mirror);
    let forged =
        [("x-forwarded-client-cert", "URI=spiffe://mesh.internal/orders"), ("x-forwarded-for", "10.0.0.1")];
    assert_eq!(call(&gateway, None, "GET", "/", &forged).await.status, 403);
    let two = certificate(&["spiffe://mesh.internal/orders", "spiffe://mesh.internal/admin"]);
    assert_eq!(call(&gateway, Some(&two), "GET", "/", &[]).await.status, 403, "two identities are none");
}

#[tokio::test]
async fn authz_says_nothing_of_its_rules_unless_it_is_told_to() {
    let mirror = mirror().await;
    let gateway = gateway("authz", r#"{ rules: [ { name: hush, deny: ["*"] } ] }"#, &mirror);
    let denied = call(&gateway, None, "GET", "/", &[]).await;
    assert!(
        denied.headers.iter().all(|(_, value)| !String::from_utf8_lossy(value.as_bytes()).contains("hush"))
    );
}

#[tokio::test]
async fn header_rewrite_edits_requests_and_responses_with_properties() {
    let mirror = mirror().await;
    let config = r#"{
        request: { remove: [x-debug], rename: { x-old: x-new }, set: { x-caller: "%{connection.uri_san_peer_certificate}",
          x-team: payments }, add: { x-tag: b } },
        response: { remove: [date], set: { x-served-by: "%{upstream.address} for %{request.method} 100%%" } } }"#;
    let gateway = gateway("header-rewrite", config, &mirror);
    let orders = certificate(&["spiffe://mesh.internal/orders"]);
    let headers =
        [("x-debug", "1"), ("x-old", "kept"), ("x-tag", "a"), ("x-team", "other"), ("x-caller", "forged")];
    let answer = call(&gateway, Some(&orders), "GET", "/", &headers).await;
    let seen = answer.text();
    for line in
        ["x-new: kept", "x-caller: spiffe://mesh.internal/orders", "x-team: payments", "x-tag: a\nx-tag: b"]
    {
        assert!(seen.contains(&format!("{line}\n")), "{line} in {seen}");
    }
    for gone in ["x-debug", "x-old", "forged"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert_eq!(answer.header("x-served-by"), format!("{} for GET 100%", mirror.address));
    assert_eq!(answer.header("date"), "");
}

#[tokio::test]
async fn three_filters_in_a_chain_work_together() {
    let mirror = mirror().await;
    let own = certificate(&["edge.example", "example.com"]);
    let text = format!(
        "listeners: [ {{ name: edge, address: \"127.0.0.1:0\", tls: {{ mode: terminate, \
           certificates: [ {{ cert: edge.pem, key: edge.key }} ], client_ca: ca.pem, client_certificate: required }}, \
           http: {{ filters: [ {{ plugin: header-rewrite, name: first, config: {{ request: {{ set: {{ x-step: one }} }} }} }}, \
             {{ plugin: authz, config: {{ rules: [ {{ allow: [authenticated], headers: {{ x-step: one }} }} ] }} }}, \
             {{ plugin: header-rewrite, name: last, config: {{ request: {{ add: {{ x-step: two }} }} }} }} ], \
             routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new()
        .plugin("header-rewrite")
        .plugin("authz")
        .file("ca.pem", authority().pem())
        .file("edge.pem", own.cert)
        .file("edge.key", own.key)
        .config(text)
        .start();
    let orders = certificate(&["spiffe://mesh.internal/orders"]);
    let answer = wait::soon("an answer", call(&gateway, Some(&orders), "GET", "/", &[])).await;
    assert!(answer.text().contains("x-step: one\nx-step: two\n"), "{}", answer.text());
}
