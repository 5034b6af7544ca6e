//! Escaped slashes in a path: the client is sent to the path without, as Envoy's edge guide has it, or whatever else is
//! configured.

use std::sync::atomic::Ordering;

use weir_tests::http::{Client, empty, full, mirror, raw};
use weir_tests::{Setup, puppet};

use super::refused::SLASHES;
use super::{Recorder, gateway, refusals, refuse};

async fn client(address: std::net::SocketAddr, h2: bool) -> Client {
    if h2 { Client::h2(address).await } else { Client::h1(address).await }
}

#[tokio::test]
async fn a_client_that_escapes_slashes_is_sent_to_the_canonical_path_and_nobody_else_sees_its_request() {
    let recorder = Recorder::new().await;
    let apart = "merge_slashes: false,";
    let raw = "normalize_path: false, merge_slashes: false,";
    let gateway = gateway(&recorder.upstream, &[("web", ""), ("apart", apart), ("raw", raw)]);
    for (listener, path, location) in [
        ("web", "/a%2Fb", "/a/b"),
        ("web", "/a%2fb?c=%2f&d=//", "/a/b?c=%2f&d=//"),
        ("web", "/public%2f..%5Cadmin", "/admin"),
        // Were dot segments resolved before slashes are unescaped, nothing would be left to be told of.
        ("web", "/x/a%2fb/../c", "/x/a/c"),
        ("web", "/%2f/evil.example", "/evil.example"),
        // No other host.
        ("apart", "/%2fevil.example/a%5cb", "/.//evil.example/a/b"),
        ("raw", "/private%2f../%2e%2fpublic", "/private/../%2e/public"),
    ] {
        for h2 in [false, true] {
            let mut client = client(gateway.address(listener), h2).await;
            // Of every method, and with the same connection again.
            for method in ["GET", "POST", "HEAD"] {
                let body = if method == "POST" { full("body") } else { empty() };
                let request = client.request(method, path).body(body).expect("a request");
                let answer = client.call(request).await.expect("an answer");
                assert_eq!(answer.status, 307, "{method} {path} {h2}");
                assert_eq!(answer.header("location"), location, "{method} {path} {h2}");
                assert!(answer.text().is_empty(), "{method} {path} {h2}");
            }
        }
    }
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw something");
    assert_eq!(refusals(&gateway, "web", "escaped_slash").await, 0);
}

#[tokio::test]
async fn the_redirect_comes_before_routes_and_filters_and_leads_to_what_they_see() {
    let mirror = mirror().await;
    let script = puppet::read("request_headers", &["request.path"]);
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
           filters: [ {} ], routes: [ {{ match: {{ path_prefix: /admin }}, respond: {{ status: 403 }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        puppet::filter(&script),
        mirror.address
    );
    let gateway = Setup::new().plugin("puppet").config(config).start();
    let mut client = client(gateway.address("web"), false).await;
    for (path, then) in [("/x%2f..%2Fadmin", 403), ("/a%2Fb?c=%2F", 200)] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 307, "{path}");
        let answer = client.get(&answer.header("location")).await;
        assert_eq!(answer.status, then, "{path}");
    }
    let line = gateway.wait_for_access("\"status\":307");
    assert_eq!((&line["path"], &line["reason"]), (&"/admin".into(), &"escaped_slash".into()));
    // The redirects began no stream of the filter's.
    assert_eq!(puppet::results(&gateway, 1, "request_headers"), ["0 \"/admin\""]);
    assert_eq!(puppet::results(&gateway, 2, "request_headers"), ["0 \"/a/b?c=%2F\""]);
}

#[tokio::test]
async fn grpc_that_escapes_slashes_is_told_internal_since_it_follows_no_redirect() {
    let recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, &[("web", "")]);
    let mut client = client(gateway.address("web"), true).await;
    let request = client.request("POST", "/s%2fm").header("content-type", "application/grpc").body(full("x"));
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), &*answer.header("grpc-status")), (200, "13"));
    assert_eq!(answer.header("location"), "");
    assert_eq!(refusals(&gateway, "web", "escaped_slash").await, 1);
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw something");
}

#[tokio::test]
async fn escaped_slashes_are_refused_where_that_is_configured() {
    let recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, &[("web", "path_with_escaped_slashes_action: reject,")]);
    for case in SLASHES {
        refuse(&gateway, "web", *case).await;
    }
    let mut client = client(gateway.address("web"), true).await;
    assert_eq!(client.get("/a%2f..%2fb").await.status, 400);
    assert_eq!(refusals(&gateway, "web", "escaped_slash").await, SLASHES.len() as u64 + 1);
    // A query has no slashes.
    recorder.wait_for.send(1).expect("the upstream is there");
    let answer =
        raw(gateway.address("web"), "GET /?a=%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
