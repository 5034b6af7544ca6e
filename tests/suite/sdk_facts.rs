//! The typed accessors of our SDK, in a gateway with real TLS: each says what the client, its certificate and the configuration
//! say, in the request, in the response and when the exchange is over.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use weir_tests::http::{Answer, Body, Client, empty, fed, full, mirror};
use weir_tests::tls::{authority, certificate, client_config};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};
use xtask::certs::Certificate;

/// A gateway with the filter that tells, behind TLS unless `tls` is empty.
fn gateway(tls: &str, own: &Certificate, upstream: &Upstream) -> Gateway {
    let metadata = "metadata: { mesh: { team: payments, slo: { tier: gold } } }";
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", {tls} http: {{ filters: [ {{ plugin: tells }} ], routes: [ \
           {{ name: orders, match: {{ path_prefix: /orders }}, cluster: up, {metadata} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let setup = Setup::new().plugin("tells").file("ca.pem", authority().pem());
    setup.file("own.pem", &own.cert).file("own.key", &own.key).config(config).start()
}

/// TLS that is ended here, with clients that may show a certificate.
const TERMINATE: &str = "tls: { mode: terminate, certificates: [ { cert: own.pem, key: own.key } ], client_ca: ca.pem, \
                         client_certificate: optional },";

fn told(answer: &Answer) -> Value {
    serde_json::from_str(&answer.header("x-told"))
        .unwrap_or_else(|error| panic!("{error}: {}", answer.header("x-told")))
}

/// The SHA-256 of a certificate, in hexadecimal.
fn fingerprint(certificate: &Certificate) -> String {
    let der = CertificateDer::from_pem_slice(certificate.cert.as_bytes()).expect("PEM");
    let digest = digest::digest(&digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn send(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
    let request = headers
        .iter()
        .fold(client.request(method, path), |request, (name, value)| request.header(*name, *value));
    client.call(request.body(body).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn identity_tls_connection_and_route_are_told_in_every_phase_over_both_protocols() {
    let mirror = mirror().await;
    let caller = certificate(&["spiffe://mesh.internal/ns/prod/orders", "orders.internal"]);
    let gateway = gateway(TERMINATE, &certificate(&["example.com"]), &mirror);
    let facts = json!({
        "identity": { "id": "spiffe://mesh.internal/ns/prod/orders", "domain": "mesh.internal", "path": "/ns/prod/orders" },
        "is_mutual_tls": true,
        "tls_version": "TLSv1.3",
        "server_name": "example.com",
        "client_subject": "CN=spiffe://mesh.internal/ns/prod/orders",
        "client_dns_name": "orders.internal",
        "client_certificate_digest": fingerprint(&caller),
        "client_ip": "127.0.0.1",
        "local_port": gateway.address("web").port(),
        "route_name": "orders",
        "team": "payments",
        "tier": "gold",
        "none": null,
        "cluster_name": "up",
    });
    for protocol in ["http/1.1", "h2"] {
        let config = client_config(Some(&caller), &[protocol]);
        let mut client = Client::tls(gateway.address("web"), "example.com", config).await.expect("TLS");
        let answer = send(&mut client, "GET", "/orders", &[], empty()).await;
        let told = told(&answer);
        assert_eq!((answer.status.as_u16(), &told["status"]), (207, &json!(200)), "{protocol}");
        assert_eq!(told["facts_of_request"], facts, "{protocol}: in the request");
        assert_eq!(told["facts"], facts, "{protocol}: in the response");
        // A status that a filter has set is the client's.
        let line = gateway.wait_for_log("over: GET 207 ");
        assert!(line.contains(r#"\"tier\":\"gold\""#) || line.contains(r#""tier":"gold""#), "{line}");
    }
    gateway.wait_for_log_count("over: GET 207 ", 2);
}

#[tokio::test]
async fn who_shows_no_certificate_has_no_identity_and_without_tls_there_is_nothing_of_it() {
    let mirror = mirror().await;
    let own = certificate(&["example.com"]);
    let nothing = [
        "identity",
        "client_subject",
        "client_dns_name",
        "client_certificate_digest",
        "team",
        "tier",
        "none",
    ];
    let behind_tls = gateway(TERMINATE, &own, &mirror);
    let mut client = Client::tls(behind_tls.address("web"), "example.com", client_config(None, &["h2"]))
        .await
        .expect("TLS");
    let told_behind_tls = told(&send(&mut client, "GET", "/", &[], empty()).await)["facts"].clone();
    let plain = gateway("", &own, &mirror);
    let mut client = Client::h1(plain.address("web")).await;
    let told_plain = told(&send(&mut client, "GET", "/", &[], empty()).await)["facts"].clone();
    for (told, version, name) in
        [(&told_behind_tls, json!("TLSv1.3"), json!("example.com")), (&told_plain, Value::Null, Value::Null)]
    {
        assert_eq!((&told["tls_version"], &told["server_name"]), (&version, &name), "{told}");
        assert_eq!(
            (&told["is_mutual_tls"], &told["client_ip"]),
            (&json!(false), &json!("127.0.0.1")),
            "{told}"
        );
        for field in nothing {
            assert_eq!(told[field], Value::Null, "{field} of {told}");
        }
    }
}

#[tokio::test]
async fn an_identity_that_is_not_well_formed_is_none() {
    let mirror = mirror().await;
    let gateway = gateway(TERMINATE, &certificate(&["example.com"]), &mirror);
    for names in [&["https://mesh.internal/orders"][..], &["spiffe://mesh.internal/../orders"]] {
        let config = client_config(Some(&certificate(names)), &["http/1.1"]);
        let mut client = Client::tls(gateway.address("web"), "example.com", config).await.expect("TLS");
        let told = told(&send(&mut client, "GET", "/", &[], empty()).await);
        assert_eq!(
            (&told["facts"]["identity"], &told["facts"]["is_mutual_tls"]),
            (&Value::Null, &json!(true)),
            "{names:?}"
        );
    }
}

#[tokio::test]
async fn headers_cookies_and_queries_are_told_as_they_came() {
    let mirror = mirror().await;
    let gateway = gateway("", &certificate(&["example.com"]), &mirror);
    let headers = [
        ("x-many", "1"),
        ("cookie", "a=b; other2=x"),
        ("x-one", "one"),
        ("X-Many", "2, 2b"),
        ("cookie", "session=\"s 1\"; session=second"),
    ];
    for is_h2 in [false, true] {
        let address = gateway.address("web");
        let mut client = if is_h2 { Client::h2(address).await } else { Client::h1(address).await };
        let path = "/reply?a=1&b=x%20y+z&a=%C3%A4&c";
        let headers: Vec<_> =
            headers.iter().filter(|(name, _)| !is_h2 || *name != "X-Many").copied().collect();
        let headers: Vec<_> = headers.into_iter().chain(is_h2.then_some(("x-many", "2, 2b"))).collect();
        let answer = send(&mut client, "GET", path, &headers, empty()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type").as_str()),
            (203, "application/json")
        );
        let told: Value = serde_json::from_str(&answer.text()).expect("JSON");
        for (field, wanted) in [
            ("method", json!("GET")),
            ("path", json!(path)),
            ("cookie", json!("s 1")),
            ("no_cookie", Value::Null),
            ("query", json!([["a", "1"], ["b", "x y z"], ["a", "ä"], ["c", ""]])),
            ("first", json!("1")),
            ("many", json!(["1", "2, 2b"])),
            ("only_of_many", Value::Null),
            ("only", json!("one")),
            ("no_header", Value::Null),
        ] {
            assert_eq!(told[field], wanted, "{field}");
        }
    }
}

#[tokio::test]
async fn a_body_of_json_is_read_whole_and_one_that_is_none_or_too_large_is_answered() {
    let mirror = mirror().await;
    let gateway = gateway("", &certificate(&["example.com"]), &mirror);
    let mut client = Client::h2(gateway.address("web")).await;
    let (feed, body) = fed();
    for piece in [r#"{"items": [1, 2"#, r#", 3], "who": "ä"}"#] {
        feed.send(hyper::body::Frame::data(piece.into())).expect("it is taken");
    }
    drop(feed);
    let answer = send(&mut client, "POST", "/reply", &[], body).await;
    let told: Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!(told["json"], json!({ "items": [1, 2, 3], "who": "ä" }));
    for (body, status) in [(r#"{"items": "#.to_owned(), 400), (format!("\"{}\"", "x".repeat(1000)), 413)] {
        let answer = send(&mut client, "POST", "/reply", &[], full(body)).await;
        assert_eq!(answer.status, status);
    }
    // What goes on is the body as it came.
    let answer = send(&mut client, "POST", "/", &[("x-many", "1")], full("[1, 2]")).await;
    assert!(
        answer.text().ends_with("\n\n[1, 2]") && answer.text().contains("x-many: 1\nx-many: 3\n"),
        "{}",
        answer.text()
    );
    assert_eq!(told_json(&answer), json!([1, 2]));
}

fn told_json(answer: &Answer) -> Value {
    told(answer)["json"].clone()
}
