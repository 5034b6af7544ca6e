//! Streams that nobody sent: for looking at what a filter may know of one.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weir::config::metadata::ClusterFacts;
use weir::http::message::{Request, Response, Scheme, Version};
use weir::net::connection::{Certificate, Connection, Tls};
use weir::plugin::stream::{RouteFacts, SharedStream, Stream, Upstream};
use weir::plugin::vm::StreamContext;

/// A connection with TLS on which both sides have shown a certificate.
pub fn connection() -> Arc<Connection> {
    let certificate = |name: &str| {
        Arc::new(Certificate {
            subject: format!("CN={name}"),
            issuer: "CN=ca".to_owned(),
            uri_sans: vec![format!("spiffe://example/{name}")],
            dns_sans: vec![format!("{name}.example")],
            sha256: "00".repeat(32),
            serial: "01".to_owned(),
            validity: (0, 1),
            der: name.as_bytes().into(),
            ..Certificate::default()
        })
    };
    Arc::new(Connection {
        id: 7,
        listener: "web".into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 1001)),
        local: SocketAddr::from(([127, 0, 0, 1], 1002)),
        accepted: SystemTime::now(),
        tls: Some(Tls {
            server_name: Some("sni.example".into()),
            alpn: Some(b"h2".to_vec()),
            offered: Vec::new(),
            version: "TLSv1.3",
            peer: Some(certificate("peer")),
            local: Some(certificate("local")),
            bound: false,
        }),
        told: OnceLock::new(),
    })
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

/// A stream that is only a connection.
pub fn tcp() -> SharedStream {
    let stream = Stream::new(connection());
    {
        let mut stream = stream.borrow_mut();
        stream.info.endpoints = Some(2);
        stream.info.upstream = Some(Upstream {
            address: SocketAddr::from(([127, 0, 0, 1], 1003)),
            local: Some(SocketAddr::from(([127, 0, 0, 1], 1004))),
            tls: None,
        });
    }
    stream
}

/// Gives a filter's context bytes of both halves.
pub fn fill(context: &mut StreamContext) {
    context.received.push(Bytes::from_static(b"from the client"));
    context.answered.push(Bytes::from_static(b"from the server"));
}

/// An HTTP exchange of which everything is there.
pub fn http() -> SharedStream {
    let stream = tcp();
    {
        let mut stream = stream.borrow_mut();
        stream.request = Some(Request {
            method: Method::POST,
            scheme: Scheme::Https,
            authority: HeaderValue::from_static("a.example:443"),
            path: HeaderValue::from_static("/path?query=1"),
            version: Version::Http2,
            headers: headers(&[("user-agent", "test"), ("x-many", "1"), ("x-many", "2"), ("referer", "r")]),
        });
        stream.request_trailers = Some(headers(&[("x-end", "request")]));
        let answered = headers(&[("content-type", "text/plain"), ("grpc-status", "5")]);
        stream.response = Some(Response { status: StatusCode::OK, headers: answered });
        stream.response_trailers = Some(headers(&[("x-end", "response")]));
        stream.info.route = Some(Arc::new(RouteFacts { name: "main".into(), ..RouteFacts::default() }));
        stream.info.cluster = Some(Arc::new(ClusterFacts { name: "up".into(), ..ClusterFacts::default() }));
        stream.info.details = Some("via_upstream".into());
    }
    stream
}
