//! What becomes of the headers of each request, and the edits of a header map by themselves.

use criterion::{BatchSize, Criterion};
use http::{HeaderMap, HeaderName, HeaderValue};
use weir::http::marks::Marks;
use weir::http::message::{Request, strip_hop_by_hop};
use weir::proxy::request::prepare;

use crate::made::{connection, request};

/// Header-map edits.
pub fn edits(c: &mut Criterion) {
    let mut group = c.benchmark_group("headers");
    let (connection, whole) = (connection(), request("example.com", "/"));
    let mut headers = whole.headers.clone();
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("keep-alive"));
    group.bench_function("hop-by-hop headers go", |b| {
        let strip = |headers: &mut HeaderMap| strip_hop_by_hop(headers, Marks::of(headers));
        b.iter_batched_ref(|| headers.clone(), strip, BatchSize::SmallInput);
    });
    // Hop-by-hop headers go, what strangers claim goes, x-forwarded-* and x-request-id come.
    group.bench_function("all that is done on receipt", |b| {
        let fresh = || Request { headers: headers.clone(), ..request("example.com", "/") };
        let prepare = |request: &mut Request| prepare(request, Marks::of(&request.headers), &connection, &[]);
        b.iter_batched_ref(fresh, prepare, BatchSize::SmallInput);
    });
    let name = HeaderName::from_static("x-checked-tenant");
    let value = HeaderValue::from_static("payments");
    group.bench_function("one is set that was not there", |b| {
        let set = |headers: &mut HeaderMap| headers.insert(name.clone(), value.clone());
        b.iter_batched_ref(|| headers.clone(), set, BatchSize::SmallInput);
    });
    group.bench_function("one is replaced", |b| {
        let replace = |headers: &mut HeaderMap| headers.insert("x-tenant", value.clone());
        b.iter_batched_ref(|| headers.clone(), replace, BatchSize::SmallInput);
    });
    group.bench_function("one is removed", |b| {
        let remove = |headers: &mut HeaderMap| headers.remove("x-tenant");
        b.iter_batched_ref(|| headers.clone(), remove, BatchSize::SmallInput);
    });
    group.finish();
}
