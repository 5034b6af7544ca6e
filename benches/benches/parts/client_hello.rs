//! Reading a ClientHello.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use weir::net::client_hello::Reader;

/// What rustls says first: with a key share for X25519MLKEM768, as browsers send one, it is about 1.5 KiB.
fn hello() -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = "service-17.passthrough.example.com".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
}

/// ClientHello reading.
pub fn reading(c: &mut Criterion) {
    let hello = hello();
    let mut group = c.benchmark_group("ClientHello");
    group.throughput(Throughput::Bytes(hello.len() as u64));
    for (name, piece) in [("in one piece", hello.len()), ("in segments of 536 bytes", 536)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut reader = Reader::default();
                let pieces = black_box(&hello).chunks(piece);
                let read = pieces.map(|piece| reader.feed(piece)).last().expect("a piece");
                read.expect("it is sound").expect("it is complete")
            });
        });
    }
    group.finish();
}
