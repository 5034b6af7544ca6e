//! Who the client is behind proxies that are trusted, and what is made of it.

use weir_tests::http::{Client, empty, mirror};
use weir_tests::proxied::v2;
use weir_tests::tls::{self, authority, certificate, client_config};
use weir_tests::{Gateway, Setup};

/// A gateway that trusts these proxies.
fn gateway(trusted: &str, listener: &str, upstream: std::net::SocketAddr) -> Gateway {
    let own = certificate(&["a.example", "example.com"]);
    let config = format!(
        "trusted_proxies: {trusted}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", {listener} \
           http: {{ filters: [ {{ plugin: sharing }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]"
    );
    let setup = Setup::new().file("a.pem", own.cert).file("a.key", own.key).file("ca.pem", authority().pem());
    setup.plugin("sharing").config(config).start()
}

/// A request with these headers, and what came of it: what the upstream saw, and what a filter did.
async fn ask(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> weir_tests::http::Answer {
    let mut request = client.request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.call(request.body(empty()).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_the_last_address_that_is_not_theirs() {
    let mirror = mirror().await;
    let gateway = gateway("[\"127.0.0.0/8\", \"10.0.0.0/8\"]", "", mirror.address);
    for h2 in [false, true] {
        let address = gateway.address("web");
        let mut client = if h2 { Client::h2(address).await } else { Client::h1(address).await };
        for (number, (list, expected)) in [
            ("203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
            ("2001:db8::9, 10.1.2.3", "2001:db8::9"),
            ("203.0.113.9, nonsense, 10.1.2.3", "10.1.2.3"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("/{h2}/{number}");
            let answer = ask(&mut client, &path, &[("x-forwarded-for", list)]).await;
            // The upstream sees the list, and who the nearest proxy is.
            assert!(
                answer.text().contains(&format!("x-forwarded-for: {list}, 127.0.0.1\n")),
                "{}",
                answer.text()
            );
            // Plugins see whose connection it is; the list is a header to them.
            assert!(answer.header("x-source").starts_with("127.0.0.1:"), "{}", answer.header("x-source"));
            let entry = gateway.wait_for_access(&format!("\"path\":\"{path}\""));
            assert_eq!(entry["client"], expected, "{list}");
            assert!(entry["peer"].to_string().starts_with("\"127.0.0.1:"), "{entry}");
        }
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_the_client_is_dropped() {
    let mirror = mirror().await;
    let gateway = gateway("[\"10.0.0.0/8\"]", "", mirror.address);
    let mut client = Client::h1(gateway.address("web")).await;
    let claims = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "claimed"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=203.0.113.9"),
    ];
    let seen = ask(&mut client, "/claims", &claims).await.text();
    assert!(
        seen.contains("x-forwarded-for: 127.0.0.1\n") && seen.contains("x-forwarded-proto: http\n"),
        "{seen}"
    );
    assert!(
        !seen.contains("203.0.113.9") && !seen.contains("claimed") && !seen.contains("x-forwarded-port"),
        "{seen}"
    );
    assert_eq!(gateway.wait_for_access("/claims")["client"], "127.0.0.1");
}

#[tokio::test]
async fn a_scheme_is_believed_of_trusted_proxies_when_it_is_one() {
    let mirror = mirror().await;
    let gateway = gateway("[\"127.0.0.1\"]", "", mirror.address);
    let mut client = Client::h1(gateway.address("web")).await;
    for (claim, seen) in [("https", "https"), ("http", "http"), ("ftp", "http"), ("https, http", "http")] {
        let text = ask(&mut client, "/", &[("x-forwarded-proto", claim)]).await.text();
        assert!(text.contains(&format!("x-forwarded-proto: {seen}\n")), "{claim}: {text}");
    }
}

#[tokio::test]
async fn whom_the_proxy_protocol_names_is_trusted_or_not_as_if_it_had_connected() {
    let mirror = mirror().await;
    let proxies = "proxy_protocol: { from: [\"127.0.0.1\"] },";
    let gateway = gateway("[\"10.0.0.0/8\"]", proxies, mirror.address);
    for (told, client) in [("10.0.0.7:1", "203.0.113.9"), ("192.0.2.1:1", "192.0.2.1")] {
        let mut socket = tokio::net::TcpStream::connect(gateway.address("web")).await.expect("it listens");
        tokio::io::AsyncWriteExt::write_all(&mut socket, &v2(told)).await.expect("sent");
        let mut http = Client::h1_over(socket).await;
        let path = format!("/told-{client}");
        ask(&mut http, &path, &[("x-forwarded-for", "203.0.113.9")]).await;
        let entry = gateway.wait_for_access(&path);
        assert_eq!((&entry["client"], &entry["peer"]), (&client.into(), &told.into()));
    }
}

#[tokio::test]
async fn a_certificate_is_told_of_the_connection_alone_even_behind_a_trusted_proxy() {
    let mirror = mirror().await;
    let tls = "tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ], client_ca: ca.pem, \
               client_certificate: required },";
    let gateway = gateway("[\"127.0.0.0/8\"]", tls, mirror.address);
    let orders = certificate(&["spiffe://mesh.internal/orders"]);
    let config = client_config(Some(&orders), &["http/1.1"]);
    let stream = tls::connect(gateway.address("web"), "a.example", config).await.expect("a handshake");
    let mut client = Client::h1_over(stream).await;
    let forged = [("x-forwarded-client-cert", "URI=spiffe://mesh.internal/admin")];
    let seen = ask(&mut client, "/", &forged).await.text();
    assert!(seen.contains("URI=spiffe://mesh.internal/orders"), "{seen}");
    assert!(!seen.contains("admin"), "{seen}");
}
