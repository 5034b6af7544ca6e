//! The HTTP/1 codec: what a request and a response cost to read.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use http::Method;
use weir::config::limits::{EscapedSlashes, Underscores};
use weir::http::h1::Limits;
use weir::http::h1::head::{parse_request, parse_response};
use weir::http::message::Scheme;
use weir::http::path::PathRules;

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

const BROWSER: &[u8] = b"GET /assets/app.js?v=17 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nCache-Control: max-age=0\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\n";

/// Heads of messages.
pub fn heads(c: &mut Criterion) {
    let limits = Limits::default();
    // As a listener has it where nothing is configured.
    let path = PathRules {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
    };
    let strict = Limits { underscores: Underscores::Reject, path, ..limits };
    let mut group = c.benchmark_group("head");
    for (name, head, limits) in [
        ("small request", SMALL, limits),
        ("browser's request", BROWSER, limits),
        ("browser's request, strictly", BROWSER, strict),
    ] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        let head = Bytes::from_static(head);
        group.bench_function(name, |b| {
            b.iter(|| parse_request(black_box(head.clone()), Scheme::Http, &limits).expect("a good request"));
        });
    }
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    let head = Bytes::from_static(ANSWER);
    group.bench_function("response", |b| {
        b.iter(|| parse_response(black_box(head.clone()), &Method::GET, &limits).expect("a good response"));
    });
    group.finish();
}
