//! Weir's HTTP/1 codec against hyper's: on good messages, however they are cut, the two read the same, and what
//! Weir writes hyper reads as it was meant.
//!
//! Messages come from seeds, which stand in the message of a failure.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;

use bytes::Bytes;
use fastrand::Rng;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir::http::body::Frame;
use weir::http::h1::connection::Persistence;
use weir::http::h1::{Connection, Length, Limits};
use weir::http::message::{self, Scheme};
use weir::net::stream::Stream;
use weir_tests::http::read_head;
use weir_tests::messages::{self, Sample, pieces};
use weir_tests::wait::soon;

const SEEDS: std::ops::Range<u64> = 0..500;

/// Tells the seed when a test fails, wherever it does.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// What a reader makes of a message.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Method, target and version; or version and status.
    start: String,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

/// The two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.expect("it listens"), far.expect("somebody connects"));
    near.set_nodelay(true).expect("a socket");
    (near, far)
}

/// Sends pieces one by one; the reader gets its turn between any two.
async fn send(socket: &mut TcpStream, pieces: &[&[u8]]) {
    for piece in pieces {
        // A reader that wants no more may hang up.
        if socket.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn weir_body(connection: &Connection) -> (Bytes, HeaderMap) {
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await.expect("a good body") {
        match frame {
            Frame::Data(data) => body.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = fields,
        }
    }
    (body.into(), trailers)
}

/// Reads requests as long as the connection goes on, and whether each waits for `100 Continue`.
async fn weir_requests(socket: TcpStream) -> Vec<(Seen, bool)> {
    let connection = Connection::new(Stream::Tcp(socket), Limits::default());
    let mut seen = Vec::new();
    while let Some(head) = poll_fn(|cx| connection.poll_request(cx, Scheme::Http)).await.expect("a good head")
    {
        let (body, trailers) = weir_body(&connection).await;
        let request = head.request;
        let start = format!("{} {} {}", request.method, request.target(), request.version.as_str());
        let mut headers = request.headers;
        headers.insert(header::HOST, request.authority);
        seen.push((Seen { start, headers, body, trailers }, head.expects_continue));
        if !head.keep_alive {
            break;
        }
    }
    seen
}

async fn hyper_body(body: Incoming) -> (Bytes, HeaderMap) {
    let collected = body.collect().await.expect("a good body");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    (collected.to_bytes(), trailers)
}

async fn hyper_requests(socket: TcpStream) -> Vec<Seen> {
    let seen = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let (body, trailers) = hyper_body(body).await;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        // An absolute target without path has the path `/`, query or not.
        let root = if target.starts_with('?') { "/" } else { "" };
        let start = format!("{} {root}{target} {:?}", parts.method, parts.version);
        seen.borrow_mut().push(Seen { start, headers: parts.headers, body, trailers });
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // The client goes before its last answer has come.
    let served = server.half_close(true).serve_connection(TokioIo::new(socket), service).await;
    assert!(served.is_ok() || !seen.borrow().is_empty(), "{served:?}");
    seen.into_inner()
}

/// Sends some messages, and returns what `read` makes of them at the other end.
async fn through<T, F: Future<Output = T>>(pieces: &[&[u8]], read: impl FnOnce(TcpStream) -> F) -> T {
    let (mut near, far) = pair().await;
    let sending = async {
        send(&mut near, pieces).await;
        let _ = near.shutdown().await;
        // The answers are of no interest; the reader may have hung up.
        let _ = near.read_to_end(&mut Vec::new()).await;
    };
    soon("the messages", async { tokio::join!(sending, read(far)).1 }).await
}

#[tokio::test]
async fn good_requests_are_read_as_hyper_reads_them() {
    let mut all = Vec::new();
    for seed in SEEDS {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let count = rng.usize(1..=4);
        let samples: Vec<Sample> =
            (1..=count).map(|number| messages::request(&mut rng, number == count)).collect();
        let mut wire: Vec<u8> = samples.iter().flat_map(|sample| sample.wire.clone()).collect();
        // Comes through when the connection goes on behind the last.
        wire.extend_from_slice(b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let told = || format!("{}", wire[..wire.len().min(4_000)].escape_ascii());
        let weir = through(&pieces(&mut rng, &wire), weir_requests).await;
        let hyper = through(&pieces(&mut rng, &wire), hyper_requests).await;
        let probed = samples.last().is_some_and(|sample| sample.keep_alive);
        assert_eq!(weir.len(), count + usize::from(probed), "{}", told());
        for (sample, (seen, expects_continue)) in samples.iter().zip(&weir) {
            assert!(sample.body == seen.body && sample.trailers == seen.trailers, "{}\n{seen:?}", told());
            assert_eq!(sample.expects_continue, *expects_continue, "{}", told());
        }
        let weir: Vec<Seen> = weir.into_iter().map(|(seen, _)| seen).collect();
        assert!(weir == hyper, "{}\nweir: {weir:#?}\nhyper: {hyper:#?}", told());
        all.extend(samples);
    }
    // There was something of everything.
    let with = |is: fn(&Sample) -> bool| all.iter().filter(|sample| is(sample)).count();
    for (what, count) in [
        ("trailers", with(|sample| !sample.trailers.is_empty())),
        ("100-continue", with(|sample| sample.expects_continue)),
        ("a large body", with(|sample| sample.body.len() > 100_000)),
        ("no body", with(|sample| sample.body.is_empty())),
        ("the end", with(|sample| !sample.keep_alive)),
    ] {
        assert!(count > 20, "{what}: {count} of {}", all.len());
    }
}

/// Reads the response to a request with the method `to`, and whether the connection goes on.
async fn weir_response(socket: TcpStream, to: &Method) -> (Seen, bool) {
    let connection = Connection::new(Stream::Tcp(socket), Limits::default());
    loop {
        let head = poll_fn(|cx| connection.poll_response(cx, to)).await.expect("a good head");
        let (body, trailers) = weir_body(&connection).await;
        let message::Response { status, headers } = head.response;
        if !status.is_informational() {
            return (Seen { start: status.as_str().to_owned(), headers, body, trailers }, head.keep_alive);
        }
    }
}

/// The same with hyper, which sends the request itself.
async fn hyper_response(socket: TcpStream, to: &Method) -> (Seen, bool) {
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("nothing is said yet");
    let request = Request::builder().method(to).uri("/").header("host", "a").body(Empty::<Bytes>::new());
    let reading = async {
        let response = client.send_request(request.expect("a request")).await.expect("a good head");
        let (parts, body) = response.into_parts();
        let (body, trailers) = hyper_body(body).await;
        let keep_alive = client.ready().await.is_ok();
        drop(client);
        (Seen { start: parts.status.as_str().to_owned(), headers: parts.headers, body, trailers }, keep_alive)
    };
    // How the connection ends says nothing more.
    tokio::join!(reading, connection).0
}

#[tokio::test]
async fn good_responses_are_read_as_hyper_reads_them() {
    for seed in SEEDS {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let to = [Method::GET, Method::HEAD, Method::POST][rng.usize(..3)].clone();
        let sample = messages::response(&mut rng, to.as_str());
        let told = || format!("{to}: {}", sample.wire[..sample.wire.len().min(4_000)].escape_ascii());
        let (near, far) = pair().await;
        let cut = pieces(&mut rng, &sample.wire);
        let serve = async |mut near: TcpStream| {
            send(&mut near, &cut).await;
            if !sample.keep_alive {
                let _ = near.shutdown().await;
            }
            near
        };
        let both = async { tokio::join!(serve(near), weir_response(far, &to)).1 };
        let weir = soon("Weir to read it", both).await;
        let (mut near, far) = pair().await;
        let serve = async {
            read_head(&mut near).await;
            serve(near).await
        };
        let both = async { tokio::join!(serve, hyper_response(far, &to)).1 };
        let hyper = soon("hyper to read it", both).await;
        assert!(sample.body == weir.0.body && sample.trailers == weir.0.trailers, "{}\n{weir:?}", told());
        assert_eq!(sample.keep_alive, weir.1, "{}", told());
        assert!(weir == hyper, "{}\nweir: {weir:#?}\nhyper: {hyper:#?}", told());
    }
}

/// A body in pieces, and trailers when it is chunked.
fn body(rng: &mut Rng, length: Length) -> (Bytes, HeaderMap) {
    match length {
        Length::None => (Bytes::new(), HeaderMap::new()),
        Length::Known(_) => (messages::bytes(rng).into(), HeaderMap::new()),
        Length::Unknown => {
            (messages::bytes(rng).into(), if rng.bool() { messages::headers(rng) } else { HeaderMap::new() })
        }
    }
}

/// Writes a body as the host does: piece by piece, flushed now and then, with back-pressure.
async fn write_body(rng: &mut Rng, connection: &Connection, body: &[u8], trailers: &HeaderMap) {
    for piece in pieces(rng, body) {
        poll_fn(|cx| connection.poll_ready(cx)).await.expect("the reader is there");
        connection.send_data(Bytes::copy_from_slice(piece)).expect("as long as announced");
        if rng.u8(..4) == 0 {
            connection.flush().await.expect("the reader is there");
        }
    }
    connection
        .send_end(Some(trailers).filter(|trailers| !trailers.is_empty()))
        .expect("as long as announced");
    connection.flush().await.expect("the reader is there");
}

/// Without what the writer decides about.
fn without_framing(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(name);
    }
    headers
}

fn length(rng: &mut Rng) -> Length {
    [Length::None, Length::Known(0), Length::Unknown][rng.usize(..3)]
}

#[tokio::test]
async fn requests_that_are_written_are_read_by_hyper_as_they_were_meant() {
    for seed in SEEDS {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let (near, far) = pair().await;
        let connection = Connection::new(Stream::Tcp(near), Limits::default());
        let mut meant = Vec::new();
        let writing = async {
            for _ in 0..rng.usize(1..=3) {
                let method = messages::METHODS[rng.usize(..messages::METHODS.len())];
                let request = message::Request {
                    method: Method::from_bytes(method.as_bytes()).expect("a token"),
                    scheme: Scheme::Http,
                    authority: HeaderValue::from_static(messages::authority(&mut rng)),
                    path: HeaderValue::from_str(&messages::path(&mut rng)).expect("visible"),
                    version: message::Version::Http11,
                    headers: messages::headers(&mut rng),
                };
                let length = length(&mut rng);
                let (body, trailers) = body(&mut rng, length);
                let length =
                    if let Length::Known(_) = length { Length::Known(body.len() as u64) } else { length };
                connection.send_request(&request, length, false);
                write_body(&mut rng, &connection, &body, &trailers).await;
                let mut headers = request.headers.clone();
                headers.insert(header::HOST, request.authority.clone());
                let start = format!("{method} {} HTTP/1.1", request.target());
                meant.push(Seen { start, headers, body, trailers });
            }
            let (mut near, _) = connection.into_parts();
            near.shutdown().await.expect("the reader is there");
            let _ = near.read_to_end(&mut Vec::new()).await;
        };
        let mut seen = soon("hyper to read it", async { tokio::join!(writing, hyper_requests(far)).1 }).await;
        for seen in &mut seen {
            seen.headers = without_framing(std::mem::take(&mut seen.headers));
        }
        assert!(seen == meant, "meant: {meant:#?}\nhyper: {seen:#?}");
    }
}

#[tokio::test]
async fn responses_that_are_written_are_read_by_hyper_as_they_were_meant() {
    for seed in SEEDS {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let to = [Method::GET, Method::HEAD, Method::POST][rng.usize(..3)].clone();
        let status = [200, 204, 304, 404, 500, 299][rng.usize(..6)];
        let mut response = message::Response::new(StatusCode::from_u16(status).expect("a status"));
        response.headers = messages::headers(&mut rng);
        let bodiless = to == Method::HEAD || status == 204 || status == 304;
        let length = if bodiless { Length::None } else { length(&mut rng) };
        let (body, trailers) = body(&mut rng, length);
        let length = if let Length::Known(_) = length { Length::Known(body.len() as u64) } else { length };
        // A client of HTTP/1.0 knows no chunks: the body goes until the end, and has no trailers.
        let chunked = rng.u8(..3) > 0;
        let until_close = length == Length::Unknown && !chunked;
        let trailers = if until_close { HeaderMap::new() } else { trailers };
        let close = until_close || rng.u8(..3) == 0;
        let persistence = if close { Persistence::Close } else { Persistence::Silent };
        if to == Method::HEAD {
            response.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("1234"));
        }
        let (mut near, far) = pair().await;
        let writing = async {
            read_head(&mut near).await;
            let connection = Connection::new(Stream::Tcp(near), Limits::default());
            if rng.u8(..4) == 0 {
                connection.send_continue();
            }
            connection.send_response(&response, length, &to, chunked, persistence);
            write_body(&mut rng, &connection, &body, &trailers).await;
            let (mut near, _) = connection.into_parts();
            if close {
                near.shutdown().await.expect("the reader is there");
            }
            near
        };
        let both = async { tokio::join!(writing, hyper_response(far, &to)).1 };
        let (mut seen, keep_alive) = soon("hyper to read it", both).await;
        if to == Method::HEAD && status != 204 && status != 304 {
            assert_eq!(
                seen.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes),
                Some(&b"1234"[..])
            );
        }
        seen.headers = without_framing(seen.headers);
        let headers = without_framing(response.headers.clone());
        let meant = Seen { start: status.to_string(), headers, body, trailers };
        assert!(seen == meant, "{to}\nmeant: {meant:#?}\nhyper: {seen:#?}");
        assert_eq!(keep_alive, !close, "{to}, {status}, {length:?}, {persistence:?}");
    }
}
