//! The upstream of long runs: it answers whatever comes, and with trailers where those are asked for.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem::find;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{self, Body};
use crate::soak::process::be_last;
use crate::upstream::Upstream;

/// The longest request.
const LONGEST: usize = 256 << 10;

/// What is read at once.
const READ: usize = 64 << 10;

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n";
/// The body of what is asked for as `/large`: so little that the kernel can hold it for thousands of clients that read
/// nothing. It is the last on its connection, so that none of those is kept.
const LARGE: usize = 1 << 20;

const WITH_TRAILERS: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n6\r\nhello\n\r\n0\r\nx-end: 1\r\n\r\n";

/// An upstream that answers requests without looking at more than their ends: a request with a body is chunked.
pub async fn start() -> Upstream {
    Upstream::new(serve).await
}

/// The same in a process of its own, which is killed: it says on stdout when it listens, and runs until then.
///
/// # Errors
/// When it cannot listen at the address.
pub fn run(address: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        println!("{LISTENS} {}", listener.local_addr()?);
        loop {
            tokio::spawn(serve(listener.accept().await?.0));
        }
    })
}

/// What an upstream in a process of its own says, before its address.
const LISTENS: &str = "the upstream listens at";

/// An upstream as a process, killed when it is dropped.
#[derive(Debug)]
pub struct Apart(Child);

impl Apart {
    /// Starts one, and waits until it listens. `program` is the runner of soaks, and `run` what it calls this: as urgent as
    /// clients (`upstream`), or no more than a proxy (`sink`).
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start(program: &Path, run: &str, address: SocketAddr) -> (Self, SocketAddr) {
        let mut command = Command::new(program);
        command.arg(run).arg(address.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the upstream can be started");
        let mut said = String::new();
        let pipe = child.stdout.take().expect("it is piped");
        BufReader::new(pipe).read_line(&mut said).expect("it says something");
        let address = said.trim().strip_prefix(LISTENS).and_then(|address| address.trim().parse().ok());
        let address = address.unwrap_or_else(|| panic!("the upstream does not listen: {said:?}"));
        (Self(child), address)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // `kill` is SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An upstream of its own for what guests call, and for what a flood has to read, on a thread of its own: what they ask of it is not
/// to be felt by whoever asks the neighbours' one.
///
/// # Panics
/// When it cannot listen.
pub fn of_calls() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("it is a socket");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            // An upstream elsewhere takes nothing of the proxy's processors: this one has what nobody else wants.
            be_last();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime is here");
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(serve(socket));
                }
            });
        });
        address
    })
}

async fn serve(mut socket: TcpStream) {
    let mut first = [0; 4];
    if socket.peek(&mut first).await.is_ok() && &first == b"PRI " {
        return http::serve(socket, |_| async { grpc() }).await;
    }
    let mut received = Vec::new();
    loop {
        while let Some((len, answer)) = first_request(&received) {
            let large = received.starts_with(b"GET /large ");
            received.drain(..len);
            let written = if large { write_large(&mut socket).await } else { socket.write_all(answer).await };
            if written.is_err() {
                return;
            }
        }
        // A large head in a few pieces.
        received.reserve(READ);
        match socket.read_buf(&mut received).await {
            // A head that has no end by now is not worth being looked through once more.
            Ok(_) if received.len() > LONGEST => return,
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// An answer to a gRPC call, with all that there is to such a one.
fn grpc() -> Response<Body> {
    let (feed, body) = http::fed();
    let trailers =
        HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    // An empty message. The body takes all of it, since it is there.
    for frame in [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)] {
        feed.send(frame).expect("the body is there");
    }
    Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
}

async fn write_large(socket: &mut TcpStream) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\nconnection: close\r\n\r\n");
    // An upstream of its own machine would hold the rest there. Here it would be the kernel of all who are measured.
    set_socket_send_buffer_size(&*socket, 64 << 10)?;
    socket.write_all(head.as_bytes()).await?;
    let piece = [b'x'; 16 << 10];
    for _ in 0..LARGE / piece.len() {
        socket.write_all(&piece).await?;
    }
    Ok(())
}

const LENGTH: &[u8] = b"\r\ncontent-length: ";

/// The length of the first request, once it is there, and its answer. What is no HTTP is answered at once.
fn first_request(received: &[u8]) -> Option<(usize, &'static [u8])> {
    if received.starts_with(b"raw") {
        return Some((received.len(), PLAIN));
    }
    let head = find(received, b"\r\n\r\n")? + 4;
    // Proxies write names in lower case. Nothing is copied and nothing looked at by the byte: neighbours wait for this thread, and
    // what a guest makes of its requests is not to be felt here.
    let fields = &received[..head];
    if find(fields, b"\r\ntransfer-encoding: chunked\r\n").is_some() {
        // After the last chunk, with or without trailers.
        let body = &received[head..];
        let last = if body.starts_with(b"0\r\n") { 0 } else { find(body, b"\r\n0\r\n")? + 2 };
        let end = find(&body[last..], b"\r\n\r\n")? + last + 4;
        return Some((head + end, WITH_TRAILERS));
    }
    let length = find(fields, LENGTH).and_then(|at| {
        let value = &fields[at + LENGTH.len()..];
        std::str::from_utf8(&value[..find(value, b"\r\n")?]).ok()?.trim().parse().ok()
    });
    let whole = head + length.unwrap_or(0usize);
    (received.len() >= whole).then_some((whole, PLAIN))
}
