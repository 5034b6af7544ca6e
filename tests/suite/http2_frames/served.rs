//! Requests that are served, and what an HTTP/1 upstream sees of them.

use weir_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY, WITH_PRIORITY, block, frame,
    request, window,
};

/// What is served: the bytes of the client; the line, the host, the fields, the framing and the body that are seen. To
/// the fields come those that Weir adds.
pub struct Served {
    pub what: &'static str,
    pub bytes: fn() -> Vec<u8>,
    pub line: &'static str,
    pub host: &'static str,
    pub fields: &'static str,
    pub framing: &'static str,
    pub body: &'static str,
}

const PLAIN: Served = Served {
    what: "9113 8.3.1: a GET",
    bytes: || asked(&[]),
    line: "GET /",
    host: "a",
    fields: "",
    framing: "",
    body: "",
};

type Field = (&'static str, &'static str);

/// The fields of a request with a method and a path, and these besides.
fn of(method: &'static str, path: &'static str, more: &[Field]) -> Vec<Field> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    [&pseudo[..], &[("x-request-id", "7")], more].concat()
}

/// A GET with these fields besides.
fn asked(more: &[Field]) -> Vec<u8> {
    request(1, &of("GET", "/", more))
}

/// A POST whose body these frames are.
fn posted(more: &[Field], frames: &[Vec<u8>]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &block(&of("POST", "/", more)));
    [&[head], frames].concat().concat()
}

/// A GET of a path.
fn path(path: &'static str) -> Vec<u8> {
    request(1, &of("GET", path, &[]))
}

pub const SERVED: &[Served] = &[
    PLAIN,
    Served {
        what: "9113 8.3.1: Host instead of an authority",
        bytes: || {
            request(
                1,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    ("host", "a"),
                    ("x-request-id", "7"),
                ],
            )
        },
        ..PLAIN
    },
    Served { what: "9113 8.3.1: Host beside an authority", bytes: || asked(&[("host", "A")]), ..PLAIN },
    Served {
        what: "9113 8.3.1: a scheme that the connection does not have",
        bytes: || {
            let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a:8080")];
            request(1, &[&fields[..], &[("x-request-id", "7")]].concat())
        },
        host: "a:8080",
        ..PLAIN
    },
    Served {
        what: "9113 8.2.3: a cookie in crumbs",
        bytes: || asked(&[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("cookie", "c=3")]),
        fields: "cookie: a=1; b=2; c=3\r\nx-a: 1\r\n",
        ..PLAIN
    },
    Served {
        what: "9113 8.2.2: TE",
        bytes: || asked(&[("te", "trailers")]),
        fields: "te: trailers\r\n",
        ..PLAIN
    },
    Served {
        what: "7540 3.2.1: HTTP2-Settings",
        bytes: || asked(&[("http2-settings", "AAMAAABk")]),
        ..PLAIN
    },
    Served { what: "9110 10.1.1: Expect", bytes: || asked(&[("expect", "100-continue")]), ..PLAIN },
    Served {
        what: "a claim of a stranger",
        bytes: || {
            asked(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-client-cert", "URI=x"), ("forwarded", "x")])
        },
        ..PLAIN
    },
    Served {
        what: "9110 5.3: a field that is repeated",
        bytes: || asked(&[("x-a", "1"), ("x-a", "2"), ("x-b", "")]),
        fields: "x-a: 1\r\nx-a: 2\r\nx-b: \r\n",
        ..PLAIN
    },
    Served { what: "9110 8.6: a length of nothing", bytes: || asked(&[("content-length", "0")]), ..PLAIN },
    Served {
        what: "3986 6.2.2: dot segments",
        bytes: || path("/x/../%61//b/./c?d=/../e"),
        line: "GET /a/b/c?d=/../e",
        ..PLAIN
    },
    Served { what: "3986 3.5: a fragment is cut off", bytes: || path("/a#/../b"), line: "GET /a", ..PLAIN },
    Served {
        what: "9110 9.1: a method of one's own",
        bytes: || request(1, &of("get", "/", &[])),
        line: "get /",
        ..PLAIN
    },
    Served {
        what: "9110 9.3.7: the asterisk",
        bytes: || request(1, &of("OPTIONS", "*", &[])),
        line: "OPTIONS *",
        ..PLAIN
    },
    Served { what: "9110 9.3.2: HEAD", bytes: || request(1, &of("HEAD", "/", &[])), line: "HEAD /", ..PLAIN },
    Served {
        what: "9113 6.2: padding and a priority",
        bytes: || {
            let block = block(&of("GET", "/", &[]));
            let payload = [&[2, 0, 0, 0, 0, 16][..], &block, &[0, 0]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, 1, &payload)
        },
        ..PLAIN
    },
    Served {
        what: "9113 6.10: a header block in pieces of one byte and less",
        bytes: || {
            let block = block(&of("GET", "/", &[]));
            let (first, rest) = block.split_at(3);
            let (second, third) = rest.split_at(1);
            [
                frame(HEADERS, END_STREAM, 1, first),
                frame(CONTINUATION, 0, 1, second),
                frame(CONTINUATION, 0, 1, &[]),
                frame(CONTINUATION, END_HEADERS, 1, third),
            ]
            .concat()
        },
        ..PLAIN
    },
    Served {
        what: "9113 5.5: frames that nobody knows, and a priority",
        bytes: || {
            [
                frame(0xfa, 0xff, 0, b"?"),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
                asked(&[]),
                frame(0xfb, 0, 1, b"?"),
            ]
            .concat()
        },
        ..PLAIN
    },
    Served {
        what: "9113 8.1: a body of a length that was told",
        bytes: || posted(&[("content-length", "5")], &[frame(DATA, END_STREAM, 1, b"hello")]),
        line: "POST /",
        framing: "content-length: 5\r\n",
        body: "hello",
        ..PLAIN
    },
    Served {
        what: "9113 8.1: a body in pieces, padded and empty ones among them",
        bytes: || {
            posted(
                &[("content-length", "5")],
                &[
                    frame(DATA, 0, 1, b"he"),
                    frame(DATA, 0, 1, b""),
                    frame(DATA, PADDED, 1, &[3, b'l', 0, 0, 0]),
                    frame(DATA, PADDED, 1, &[0]),
                    window(0, 1),
                    frame(DATA, 0, 1, b"lo"),
                    frame(DATA, END_STREAM, 1, b""),
                ],
            )
        },
        line: "POST /",
        framing: "content-length: 5\r\n",
        body: "hello",
        ..PLAIN
    },
    Served {
        what: "9112 7.1: a body of unknown length",
        bytes: || posted(&[], &[frame(DATA, END_STREAM, 1, b"0\r\n\r\nGET /smuggled")]),
        line: "POST /",
        framing: "transfer-encoding: chunked\r\n",
        body: "12\r\n0\r\n\r\nGET /smuggled\r\n0\r\n\r\n",
        ..PLAIN
    },
    Served {
        what: "9112 7.1: no body",
        bytes: || request(1, &of("POST", "/", &[])),
        line: "POST /",
        framing: "content-length: 0\r\n",
        ..PLAIN
    },
    Served {
        what: "9110 6.5.1: trailers, but for those that say something about framing or routing",
        bytes: || {
            let trailers = [("x-sum", "1"), ("content-length", "9"), ("host", "b")];
            posted(
                &[],
                &[
                    frame(DATA, 0, 1, b"hello"),
                    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&trailers)),
                ],
            )
        },
        line: "POST /",
        framing: "transfer-encoding: chunked\r\n",
        body: "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
        ..PLAIN
    },
];
