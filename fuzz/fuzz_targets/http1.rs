//! HTTP/1 requests as Weir and as hyper read them, cut into pieces in any way.
//!
//! What Weir takes, hyper takes in the same way: the same requests with the same fields, and the same bodies with the
//! same ends. Where Weir stops, hyper may go on, since it refuses less.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use weir::http::body::Frame;
use weir::http::h1::{Connection, Limits};
use weir::http::message::Scheme;
use weir::net::stream::Stream;

/// What bytes from 0xC0 on stand for, so that one of them is a step that it takes many others to make.
const WORDS: [&str; 64] = [
    "GET / HTTP/1.1\r\n",
    "POST /a?b=c HTTP/1.1\r\n",
    "PUT http://a/b HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "GET ",
    "POST ",
    "/",
    "?",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/",
    "http://a",
    "//",
    "%2f",
    "..",
    "Host: a\r\n",
    "Host: ",
    "a:80",
    "[::1]",
    "Content-Length: 5\r\n",
    "Content-Length: ",
    "0",
    "5",
    "05",
    "a",
    "A",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ",
    "chunked",
    "gzip, ",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: ",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\n",
    "X: 1\r\n",
    "X",
    ": ",
    ":",
    ",",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    "\0",
    "5\r\nhello\r\n",
    "5;a=b\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nX: 1\r\n\r\n",
    "hello",
    ";a=\"b\"",
    ";",
    "=",
    "\"",
    "ffffffffffffffff",
    "Trailer: X\r\n",
    "\u{e9}",
    "\x7f",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// What a reader makes of a request.
#[derive(Debug, PartialEq)]
struct Seen {
    start: String,
    headers: HeaderMap,
    /// The body and the trailers; `None` when it was not read to its end.
    body: Option<(Vec<u8>, HeaderMap)>,
}

/// Room for all that goes either way.
const ROOM: usize = 1 << 20;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
}

fuzz_target!(|input: &[u8]| {
    let [one, two, three, four, rest @ ..] = input else { return };
    let cuts = [*one, *two, *three, *four];
    let mut wire = Vec::new();
    for byte in rest {
        match byte.checked_sub(0xc0) {
            Some(word) => wire.extend_from_slice(WORDS[usize::from(word)].as_bytes()),
            None => wire.push(*byte),
        }
    }
    RUNTIME.with(|runtime| {
        let (weir, hyper) = runtime.block_on(async { (weir(&wire, cuts).await, hyper(&wire).await) });
        for (at, request) in weir.iter().enumerate() {
            let Some(other) = hyper.get(at) else {
                // What hyper takes for no URI it refuses.
                assert!(is_odd(&request.start), "hyper does not read {request:?} of {}", wire.escape_ascii());
                return;
            };
            let same = request.start == other.start && request.headers == other.headers;
            let ends = request.body.is_none() || request.body == other.body;
            assert!(same && ends, "{}\nweir: {request:?}\nhyper: {other:?}", wire.escape_ascii());
        }
    });
});

/// Whether a target has characters that hyper's type for URIs does not take.
fn is_odd(start: &str) -> bool {
    start.contains(['<', '>', '\\', '^', '`', '|', '"', '{', '}'])
}

/// What Weir makes of it, when a new piece begins after each of `cuts` bytes.
async fn weir(wire: &[u8], cuts: [u8; 4]) -> Vec<Seen> {
    let (near, mut far) = Stream::pair(ROOM);
    let connection = Connection::new(near, Limits::default());
    let mut seen = Vec::new();
    let feeding = async {
        let mut rest = wire;
        for cut in cuts {
            let (piece, behind) = rest.split_at(rest.len().min(usize::from(cut)));
            far.write_all(piece).await.expect("there is room");
            tokio::task::yield_now().await;
            rest = behind;
        }
        far.write_all(rest).await.expect("there is room");
        far.shutdown().await.expect("it is there");
    };
    let reading = async {
        while let Ok(Some(head)) = poll_fn(|cx| connection.poll_request(cx, Scheme::Http)).await {
            let request = head.request;
            let start = format!("{} {} {}", request.method, request.target(), request.version.as_str());
            let mut headers = request.headers;
            headers.insert(header::HOST, request.authority);
            let body = read_body(&connection).await;
            let ended = body.is_some();
            seen.push(Seen { start, headers, body });
            if !head.keep_alive || !ended {
                break;
            }
        }
    };
    tokio::join!(feeding, reading);
    seen
}

async fn read_body(connection: &Connection) -> Option<(Vec<u8>, HeaderMap)> {
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await.ok()? {
        match frame {
            Frame::Data(data) => body.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = fields,
        }
    }
    Some((body, trailers))
}

async fn hyper(wire: &[u8]) -> Vec<Seen> {
    let (near, far) = tokio::io::duplex(ROOM);
    let seen = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        // An absolute target without path has the path `/`, query or not.
        let root = if target.starts_with('?') { "/" } else { "" };
        let start = format!("{} {root}{target} {:?}", parts.method, parts.version);
        let at = seen.borrow().len();
        seen.borrow_mut().push(Seen { start, headers: parts.headers, body: None });
        if let Ok(body) = body.collect().await {
            let mut trailers = body.trailers().cloned().unwrap_or_default();
            for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST, header::CONNECTION]
            {
                trailers.remove(name);
            }
            seen.borrow_mut()[at].body = Some((body.to_bytes().to_vec(), trailers));
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let serving = server.half_close(true).serve_connection(TokioIo::new(near), service);
    let talking = async {
        talk(far, wire).await;
    };
    // How it ends says nothing.
    let _ = tokio::join!(serving, talking);
    seen.into_inner()
}

async fn talk(mut far: DuplexStream, wire: &[u8]) {
    // It may have hung up.
    let _ = far.write_all(wire).await;
    let _ = far.shutdown().await;
    let _ = far.read_to_end(&mut Vec::new()).await;
}
