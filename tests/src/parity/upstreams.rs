//! The upstreams of a scenario: they answer as they are told, and note what they see.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::{Body, fed, tls_upstream, upstream};
use crate::parity::tls::SERVER;
use crate::parity::{Scenario, in_order};
use crate::tls::server_config;
use crate::upstream::Upstream;
use crate::wait::until;

/// What an upstream answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body, in pieces. A TCP upstream sends the first piece once it has received something.
    pub body: Vec<String>,
    /// Trailers.
    pub trailers: Vec<(&'static str, &'static str)>,
    /// Whether a gRPC message is sent back for each that comes, `re: ` before it; the trailers are sent at the end.
    pub grpc_echo: bool,
    /// Whether nothing is ever answered.
    pub silent: bool,
    /// Whether the answer takes its time.
    pub late: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: vec!["ok".to_owned()],
            trailers: Vec::new(),
            grpc_echo: false,
            silent: false,
            late: false,
        }
    }
}

impl Answer {
    /// 200 with a body in pieces.
    pub fn body(pieces: &[&str]) -> Self {
        Self { body: pieces.iter().map(|&piece| piece.to_owned()).collect(), ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    /// With another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// A gRPC server that sends back what it gets and ends with this status.
    pub fn grpc(status: &'static str) -> Self {
        let answer = Self { grpc_echo: true, body: Vec::new(), ..Self::default() };
        answer.header("content-type", "application/grpc").trailer("grpc-status", status)
    }

    /// After a while.
    #[must_use]
    pub fn late(mut self) -> Self {
        self.late = true;
        self
    }

    /// Takes everything, and says nothing.
    pub fn silence() -> Self {
        Self { silent: true, ..Self::default() }
    }
}

/// What the upstreams have seen.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// The upstreams of a scenario, running.
#[derive(Debug)]
pub struct Upstreams {
    /// Where requests go.
    pub up: Upstream,
    /// Where calls go.
    pub other: Upstream,
    /// Where nobody listens.
    pub nowhere: SocketAddr,
    seen: Seen,
    /// TCP connections that have not ended yet.
    open: Arc<AtomicUsize>,
}

impl Upstreams {
    /// Starts them.
    pub async fn start(scenario: &Scenario) -> Self {
        let (seen, open) = (Seen::default(), Arc::<AtomicUsize>::default());
        let up = if scenario.tcp {
            tcp(&scenario.answer, &seen, &open).await
        } else {
            http("up", &scenario.answer, &seen, scenario.tls).await
        };
        let other = http("other", &scenario.other, &seen, false).await;
        Self { up, other, nowhere: Upstream::nowhere().await, seen, open }
    }

    /// What they have seen. Of a TCP connection that is known when it ends.
    ///
    /// # Panics
    /// When one of them has panicked, or does not end.
    pub async fn seen(&self) -> Vec<String> {
        let ended = async || (self.open.load(Ordering::SeqCst) == 0).then_some(());
        until("the end of the connections to the upstream", ended).await;
        self.seen.lock().expect("no upstream panics").clone()
    }
}

fn note(seen: &Seen, line: String) {
    seen.lock().expect("no upstream panics").push(line);
}

async fn http(name: &'static str, answer: &Answer, seen: &Seen, tls: bool) -> Upstream {
    let (answer, seen) = (answer.clone(), Arc::clone(seen));
    let respond = move |request| respond(name, request, answer.clone(), Arc::clone(&seen));
    if tls {
        tls_upstream(server_config(&SERVER, true, &["http/1.1"]), respond).await
    } else {
        upstream(respond).await
    }
}

async fn respond(
    name: &'static str,
    request: Request<Incoming>,
    answer: Answer,
    seen: Seen,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{name} {} {target}", parts.method);
    in_order(&parts.headers).for_each(|(name, value)| head.push_str(&format!(" {name}={value}")));
    note(&seen, head);
    let (feed, sent) = fed();
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, *value);
    }
    let response = response.body(sent).expect("a response");
    if answer.silent {
        return std::future::pending().await;
    }
    if answer.grpc_echo {
        tokio::spawn(async move {
            echo(name, body, &feed, &seen).await;
            let _ = feed.send(Frame::trailers(map(&answer.trailers)));
        });
        return response;
    }
    note_body(name, body, &seen).await;
    if answer.late {
        tokio::time::sleep(PIECE * 10).await;
    }
    let mut pieces: VecDeque<_> = answer.body.iter().cloned().map(Bytes::from).collect();
    tokio::spawn(async move {
        while let Some(piece) = pieces.pop_front() {
            let _ = feed.send(Frame::data(piece));
            // A proxy that reads slowly may see two pieces as one: give it the time to see them apart.
            tokio::time::sleep(PIECE).await;
        }
        if !answer.trailers.is_empty() {
            let _ = feed.send(Frame::trailers(map(&answer.trailers)));
        }
    });
    response
}

/// The time between two pieces of a body.
pub const PIECE: std::time::Duration = std::time::Duration::from_millis(60);

async fn note_body(name: &str, body: Incoming, seen: &Seen) {
    // Whether one that is cut off is heard of is a matter of who is faster.
    let Ok(collected) = body.collect().await else { return };
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes();
    if !body.is_empty() {
        note(seen, format!("{name} body {}", short(&body)));
    }
    for (key, value) in &trailers {
        note(seen, format!("{name} trailer {key}={}", String::from_utf8_lossy(value.as_bytes())));
    }
}

/// Sends back every message, `re: ` before it.
async fn echo(
    name: &str,
    mut body: Incoming,
    feed: &tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>,
    seen: &Seen,
) {
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return note(seen, format!("{name} stream reset")) };
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while buffer.len() >= 5 {
            let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
            if buffer.len() < 5 + length {
                break;
            }
            let message: Vec<u8> = buffer.drain(..5 + length).skip(5).collect();
            note(seen, format!("{name} message {}", short(&message)));
            let answer = [b"re: ".as_slice(), &message].concat();
            let mut framed = vec![0];
            framed.extend_from_slice(&(answer.len() as u32).to_be_bytes());
            framed.extend_from_slice(&answer);
            let _ = feed.send(Frame::data(framed.into()));
        }
    }
    note(seen, format!("{name} stream ended"));
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
}

/// Bytes as text, long ones by their length.
pub fn short(bytes: &[u8]) -> String {
    if bytes.len() > 200 {
        return format!("{} bytes", bytes.len());
    }
    format!("\"{}\"", bytes.escape_ascii())
}

/// Answers what it gets with a piece of its own each, and ends when the client does.
async fn tcp(answer: &Answer, seen: &Seen, open: &Arc<AtomicUsize>) -> Upstream {
    let (answer, seen, open) = (answer.clone(), Arc::clone(seen), Arc::clone(open));
    Upstream::new(move |mut socket| {
        let (mut pieces, seen) = (VecDeque::from(answer.body.clone()), Arc::clone(&seen));
        let open = Arc::clone(&open);
        open.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut buffer = vec![0; 1 << 16];
            let mut all = Vec::new();
            while let Ok(read) = socket.read(&mut buffer).await {
                if read == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..read]);
                if let Some(piece) = pieces.pop_front() {
                    let _ = socket.write_all(piece.as_bytes()).await;
                }
            }
            note(&seen, format!("up bytes {}", short(&all)));
            open.fetch_sub(1, Ordering::SeqCst);
            let _ = socket.shutdown().await;
        }
    })
    .await
}
