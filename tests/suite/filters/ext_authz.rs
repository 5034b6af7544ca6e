//! `ext-authz`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use weir_abi::protobuf::{bytes, put_bytes, put_varint};
use weir_tests::http::{full, mirror, upstream, with_trailers};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

use super::ask;

/// A gateway whose filter may ask the cluster `policy`.
fn gateway(
    config: &str,
    more: &str,
    protocol: &str,
    mirror: &Upstream,
    policy: std::net::SocketAddr,
) -> Gateway {
    let text = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: ext-authz, {more} grants: {{ clusters: [policy] }}, \
           config: {config} }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: policy, endpoints: [\"{policy}\"], protocol: {protocol} }} ]",
        mirror.address
    );
    Setup::new().plugin("ext-authz").config(text).start()
}

/// A message of protobuf: fields of bytes.
fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(number, bytes)| put_bytes(*number, bytes, &mut out));
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(field, value, &mut out);
    out
}

fn header(name: &str, value: &str) -> Vec<u8> {
    message(&[(1, &message(&[(1, name.as_bytes()), (2, value.as_bytes())]))])
}

/// What a service has been asked.
type Asked = Arc<Mutex<Vec<Vec<u8>>>>;

/// A service that speaks gRPC, and answers by the path that it is asked about.
async fn grpc_service() -> (Upstream, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let service = upstream(move |request| {
        let seen = Arc::clone(&seen);
        async move {
            assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
            let body = request.into_body().collect().await.expect("a message").to_bytes();
            let check = body.slice(5..);
            let attributes = bytes(&check, 1).expect("attributes");
            let http = bytes(bytes(attributes, 4).expect("a request"), 2).expect("an HTTP request").to_vec();
            let path = String::from_utf8_lossy(bytes(&http, 4).unwrap_or_default()).into_owned();
            seen.lock().expect("nobody panics").push(check.to_vec());
            let answer = answer(&path);
            let mut trailers = HeaderMap::new();
            let status = if path.starts_with("/failing") { "13" } else { "0" };
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            let mut framed = vec![0];
            framed.extend_from_slice(&u32::try_from(answer.len()).expect("short").to_be_bytes());
            framed.extend_from_slice(&answer);
            let body = if path.starts_with("/failing") { Bytes::new() } else { framed.into() };
            let mut response = Response::new(with_trailers(body, trailers));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
    });
    (service.await, asked)
}

fn answer(path: &str) -> Vec<u8> {
    match path.split('?').next().unwrap_or_default() {
        "/allowed" => {
            let ok = message(&[
                (2, &header("x-user", "anna")),
                (2, &header("host", "evil.example")),
                (5, b"x-secret"),
                (6, &header("x-checked", "yes")),
                (7, &message(&[(1, b"as"), (2, b"a b")])),
                (8, b"token"),
            ]);
            message(&[(1, b""), (3, &ok)])
        }
        "/login" => {
            let denied =
                message(&[(1, &number(1, 302)), (2, &header("location", "/sign-in")), (3, b"sign in")]);
            message(&[(1, &number(1, 16)), (2, &denied)])
        }
        "/nonsense" => b"\x0a\xff".to_vec(),
        "/split-body" | "/with-body" => {
            message(&[(1, b""), (3, &message(&[(2, &header("x-user", "anna"))]))])
        }
        _ => message(&[(1, &number(1, 7))]),
    }
}

const GRPC: &str =
    "{ service: { grpc: { cluster: policy } }, timeout: 10s, context_extensions: { tenant: shop } }";

#[tokio::test]
async fn a_grpc_service_allows_and_says_what_becomes_of_the_request() {
    let (mirror, (service, asked)) = (mirror().await, grpc_service().await);
    let gateway = gateway(GRPC, "", "http2", &mirror, service.address);
    let answer = ask(
        &gateway,
        "GET",
        "/allowed?token=s&x=1",
        "x-user: root\r\nx-secret: s\r\nx-kept: 1\r\nx-kept: 2\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-checked: yes\r\n"), "{answer}");
    assert!(answer.contains("GET /allowed?x=1&as=a%20b ") && answer.contains("\nx-user: anna\n"), "{answer}");
    for gone in ["root", "x-secret", "evil.example", "token"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let told = asked.lock().expect("nobody panics").pop().expect("it was asked");
    let attributes = bytes(&told, 1).expect("attributes");
    assert_eq!(bytes(attributes, 10), Some(&b"\x0a\x06tenant\x12\x04shop"[..]));
    let http = bytes(bytes(attributes, 4).expect("a request"), 2).expect("an HTTP request");
    assert_eq!((bytes(http, 2), bytes(http, 10)), (Some(&b"GET"[..]), Some(&b"HTTP/1.1"[..])));
    let text = String::from_utf8_lossy(http);
    assert!(text.contains("x-kept\x12\x031,2") && text.contains("x-user\x12\x04root"), "{text}");
}

#[tokio::test]
async fn a_grpc_service_denies_in_its_own_words_and_no_answer_denies_too() {
    let (mirror, (service, _)) = (mirror().await, grpc_service().await);
    let gateway = gateway(GRPC, "", "http2", &mirror, service.address);
    let login = ask(&gateway, "GET", "/login", "").await;
    assert!(
        login.starts_with("HTTP/1.1 302")
            && login.contains("location: /sign-in\r\n")
            && login.ends_with("sign in"),
        "{login}"
    );
    assert!(ask(&gateway, "GET", "/other", "").await.starts_with("HTTP/1.1 403"));
    gateway.wait_for_access("denied by the service");
    for (path, why) in [("/nonsense", "the service's answer is malformed"), ("/failing", "gRPC status 13")] {
        let answer = ask(&gateway, "GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("denied\n"), "{answer}");
        gateway.wait_for_access(why);
    }
}

#[tokio::test]
async fn a_body_is_shown_before_the_upstream_sees_anything_and_one_that_is_too_large_is_refused() {
    let (mirror, (service, asked)) = (mirror().await, grpc_service().await);
    let config = "{ service: { grpc: { cluster: policy } }, timeout: 10s, body: { max_bytes: 16 } }";
    let gateway =
        gateway(config, "allow_on_headers_stop_iteration: true,", "http2", &mirror, service.address);
    let post = |body: &str| {
        format!(
            "POST /with-body HTTP/1.1\r\nhost: a\r\nx-user: root\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = weir_tests::http::raw(gateway.address("web"), post("hello")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-user: anna") && answer.ends_with("hello"),
        "{answer}"
    );
    let told = asked.lock().expect("nobody panics").pop().expect("it was asked");
    let http =
        bytes(bytes(bytes(&told, 1).expect("attributes"), 4).expect("a request"), 2).expect("HTTP").to_vec();
    assert_eq!(bytes(&http, 11), Some(&b"hello"[..]));
    let answer = weir_tests::http::raw(gateway.address("web"), post("a body that is too large")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(asked.lock().expect("nobody panics").is_empty(), "the service was not asked");
    // One without a body is asked about all the same.
    assert!(ask(&gateway, "GET", "/with-body", "").await.contains("x-user: anna"));
}

/// A service that is asked by HTTP, and answers by the path.
async fn http_service() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    let service = upstream(move |request| {
        let mut told = format!("{} {}", request.method(), request.uri());
        for (name, value) in request.headers() {
            told.push_str(&format!(" {name}={}", String::from_utf8_lossy(value.as_bytes())));
        }
        seen.lock().expect("nobody panics").push(told);
        let response = match request.uri().path() {
            "/check/allowed" => Response::builder()
                .header("x-role", "a")
                .header("x-role", "b")
                .header("x-other", "not wanted")
                .header("x-checked", "yes")
                .header("x-envoy-auth-headers-to-remove", "X-Secret, host"),
            "/check/nobody" => Response::builder(),
            "/check/trouble" => Response::builder().status(503),
            "/check/odd" => Response::builder().status(204),
            _ => Response::builder()
                .status(401)
                .header("www-authenticate", "Basic")
                .header("set-cookie", "a=b")
                .header("set-cookie", "c=d"),
        };
        async move { response.body(full("from the service")).expect("an answer") }
    });
    (service.await, asked)
}

const HTTP: &str = "{ service: { http: { cluster: policy, path_prefix: /check, upstream_headers: [X-Role], client_headers_on_success: [x-checked] } }, \
                    allowed_headers: [x-api-*], timeout: 10s, status_on_error: 503 }";

#[tokio::test]
async fn an_http_service_is_told_what_it_may_know_and_the_upstream_hears_of_the_service_alone() {
    let (mirror, (service, asked)) = (mirror().await, http_service().await);
    let gateway = gateway(HTTP, "", "http1", &mirror, service.address);
    let headers = "authorization: Bearer t\r\nx-api-key: k\r\ncookie: c=1\r\nx-secret: s\r\nX-Role: root\r\n";
    let answer = ask(&gateway, "GET", "/allowed?x=1", headers).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-checked: yes\r\n"), "{answer}");
    assert!(answer.contains("\nx-role: a\nx-role: b\n") && answer.contains("host: a\n"), "{answer}");
    for gone in ["root", "x-secret", "not wanted"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let told = asked.lock().expect("nobody panics").pop().expect("it was asked");
    assert!(
        told.starts_with("GET /check/allowed?x=1")
            && told.contains("authorization=Bearer t")
            && told.contains("x-api-key=k"),
        "{told}"
    );
    assert!(!told.contains("cookie") && !told.contains("x-secret"), "{told}");
    let nobody = ask(&gateway, "GET", "/nobody", "x-role: root\r\n").await;
    assert!(
        nobody.starts_with("HTTP/1.1 200") && !nobody.contains("x-role"),
        "what the service does not say nobody says: {nobody}"
    );
}

#[tokio::test]
async fn an_http_service_denies_in_its_own_words_and_its_trouble_is_no_leave() {
    let (mirror, (service, _)) = (mirror().await, http_service().await);
    let gateway = gateway(HTTP, "", "http1", &mirror, service.address);
    let denied = ask(&gateway, "GET", "/denied", "").await;
    assert!(denied.starts_with("HTTP/1.1 401") && denied.ends_with("from the service"), "{denied}");
    for line in ["www-authenticate: Basic\r\n", "set-cookie: a=b\r\n", "set-cookie: c=d\r\n"] {
        assert!(denied.contains(line), "{line} in {denied}");
    }
    for (path, why) in [("/trouble", "the service answered 503"), ("/odd", "the service answered 204")] {
        let answer = ask(&gateway, "GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("denied\n"), "{answer}");
        gateway.wait_for_access(why);
    }
}

#[tokio::test]
async fn without_an_answer_requests_pass_only_where_that_is_wanted() {
    let mirror = mirror().await;
    let nowhere = Upstream::nowhere().await;
    let silent = upstream(|_| std::future::pending::<Response<weir_tests::http::Body>>()).await;
    for (address, protocol) in [(nowhere, "http1"), (silent.address, "http1"), (silent.address, "http2")] {
        let service =
            if protocol == "http2" { "grpc: { cluster: policy }" } else { "http: { cluster: policy }" };
        let config = |more: &str| format!("{{ service: {{ {service} }}, timeout: 50ms{more} }}");
        let closed = gateway(&config(""), "", protocol, &mirror, address);
        assert!(ask(&closed, "GET", "/", "").await.starts_with("HTTP/1.1 403"), "{address} {protocol}");
        let open = gateway(&config(", failure_mode_allow: true"), "", protocol, &mirror, address);
        assert!(ask(&open, "GET", "/", "").await.starts_with("HTTP/1.1 200"), "{address} {protocol}");
        open.wait_for_log("a request passes unasked");
    }
}
