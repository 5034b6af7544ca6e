//! Turns: what one client has moved, asks ahead or cuts into pieces does not go before what others want. The process is stopped
//! while both sides send, so that all of it is there when the only worker looks, the large part first; the access log tells
//! in which order it was done with.

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use weir_tests::guests::wat;
use weir_tests::http::read_head;
use weir_tests::upstream::{Upstream, background};
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// What takes many turns to move, and what the kernel would take at once, in bytes.
const GIANT: usize = 768 << 10;

/// A header that takes two turns, in bytes; a filter may add no larger ones. The guest says so, too.
const HEADER: usize = 240 << 10;

/// A filter that answers a request with a body itself once that has come, and that adds a large header to every answer.
fn looking() -> Vec<u8> {
    wat(r#"(module
        (import "env" "proxy_send_local_response"
          (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 16)
        (data (i32.const 0) "x-large")
        (func (export "malloc") (param i32) (result i32) i32.const 1024)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
          (if (local.get 2) (then
            (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.const -1)))))
          i32.const 0)
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (memory.fill (i32.const 4096) (i32.const 120) (i32.const 245760))
          (drop (call $add (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 4096) (i32.const 245760)))
          i32.const 0))"#)
}

/// One worker; `busy` is what a listener of that name does, and `clean` answers at once.
fn gateway(busy: &str, upstream: SocketAddr) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners:\n\
         \x20 - {{ name: busy, address: \"127.0.0.1:0\", {busy} }}\n\
         \x20 - {{ name: clean, address: \"127.0.0.1:0\", http: {{ routes: [ {{ respond: {{ status: 200 }} }} ] }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]"
    );
    Setup::new().plugin_bytes("looking", &looking()).config(config).start()
}

async fn ask(socket: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: turns\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("the gateway takes it");
}

/// A connection on which one request was answered already.
async fn client(gateway: &Gateway) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address("clean")).await.expect("it listens");
    ask(&mut socket, "/before").await;
    soon("an answer", read_head(&mut socket)).await;
    socket
}

/// A connection on which this was sent, and that is there when the process goes on, and not to be accepted only then.
async fn accepted(gateway: &Gateway, text: &str) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address("busy")).await.expect("it listens");
    socket.write_all(text.as_bytes()).await.expect("the gateway takes it");
    let open = "weir_listener_connections{listener=\"busy\"} 1";
    until("the connection", async || {
        gateway.admin("GET", "/metrics").await.text().contains(open).then_some(())
    })
    .await;
    socket
}

/// Stops the process, and waits until it stands.
async fn stop(gateway: &Gateway) {
    gateway.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", gateway.pid());
    until("the stop", async || {
        let stat = std::fs::read_to_string(&stat).ok()?;
        stat.rsplit_once(')')?.1.trim().starts_with('T').then_some(())
    })
    .await;
}

/// Has the only worker find that somebody else asks for something, behind what was sent to it before.
async fn go_on(gateway: &Gateway, other: &mut TcpStream) {
    ask(other, "/other").await;
    gateway.signal(Signal::CONT);
    soon("an answer", read_head(other)).await;
}

/// How many lines of the access log with `text` are before that of the other.
fn done_before(gateway: &Gateway, text: &str, all: usize) -> usize {
    let lines = gateway.wait_for_accesses(text, all);
    let other = lines.iter().position(|line| line.contains("/other")).expect("the other was answered");
    lines[..other].iter().filter(|line| line.contains(text)).count()
}

/// An upstream that tells of each request, and answers with so large a body and the end once it is told to. It tells again
/// when the kernel has all of it.
async fn large(body: usize) -> (Upstream, mpsc::UnboundedReceiver<()>, std::sync::Arc<Notify>) {
    let (tell, told) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(Notify::new());
    let wanted = std::sync::Arc::clone(&go);
    let upstream = Upstream::new(move |mut socket| {
        let (tell, go) = (tell.clone(), std::sync::Arc::clone(&wanted));
        async move {
            read_head(&mut socket).await;
            let _ = tell.send(());
            go.notified().await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\nconnection: close\r\n\r\n");
            let mut answer = head.into_bytes();
            answer.resize(answer.len() + body, b'x');
            if socket.write_all(&answer).await.is_ok() && socket.shutdown().await.is_ok() {
                let _ = tell.send(());
            }
            // The connection is there for as long as somebody reads from it.
            let _ = socket.read(&mut [0; 1]).await;
        }
    })
    .await;
    (upstream, told, go)
}

/// Takes all that comes.
fn taking(mut socket: TcpStream) -> JoinHandle<usize> {
    background().spawn(async move {
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer.len()
    })
}

#[tokio::test]
async fn bytes_that_are_relayed_let_others_go_first() {
    let (upstream, mut told, go) = large(GIANT).await;
    let gateway = gateway("tcp: { cluster: up }", upstream.address);
    let mut other = client(&gateway).await;
    let mut socket = TcpStream::connect(gateway.address("busy")).await.expect("it listens");
    ask(&mut socket, "/large").await;
    // So that it is over with the end of the answer.
    socket.shutdown().await.expect("the gateway is there");
    soon("the request", told.recv()).await;
    stop(&gateway).await;
    go.notify_one();
    soon("the kernel", told.recv()).await;
    go_on(&gateway, &mut other).await;
    assert!(soon("the answer", taking(socket)).await.expect("no panic") > GIANT, "all of it comes");
    let line = format!("\"upstream\":\"{}\"", upstream.address);
    assert_eq!(done_before(&gateway, &line, 1), 0);
}

#[tokio::test]
async fn a_body_of_tiny_chunks_lets_others_go_first() {
    let (upstream, _told, _go) = large(0).await;
    let busy = "http: { filters: [ { plugin: looking } ], routes: [ { cluster: up } ] }";
    let gateway = gateway(busy, upstream.address);
    let mut other = client(&gateway).await;
    let head = "POST /chunks HTTP/1.1\r\nhost: turns\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut socket = accepted(&gateway, head).await;
    stop(&gateway).await;
    let mut chunks = b"1\r\nx\r\n".repeat(5_000);
    chunks.extend_from_slice(b"0\r\n\r\n");
    socket.write_all(&chunks).await.expect("the kernel takes it");
    go_on(&gateway, &mut other).await;
    assert_eq!(done_before(&gateway, "/chunks", 1), 0);
}

#[tokio::test]
async fn what_a_filter_makes_of_a_head_lets_others_go_first() {
    let busy =
        "http: { filters: [ { plugin: looking, cpu: 1s } ], routes: [ { respond: { status: 200 } } ] }";
    let gateway = gateway(busy, Upstream::nowhere().await);
    let mut other = client(&gateway).await;
    let mut socket = accepted(&gateway, "GET /giant HTTP/1.1\r\n").await;
    stop(&gateway).await;
    socket.write_all(b"host: turns\r\nconnection: close\r\n\r\n").await.expect("the kernel takes it");
    go_on(&gateway, &mut other).await;
    assert!(soon("the answer", taking(socket)).await.expect("no panic") > HEADER, "all of it comes");
    assert_eq!(done_before(&gateway, "/giant", 1), 0);
}

#[tokio::test]
async fn who_asks_ahead_is_answered_in_turn_with_others() {
    const AHEAD: usize = 100;
    let gateway = gateway("http: { routes: [ { respond: { status: 200 } } ] }", Upstream::nowhere().await);
    let (mut ahead, mut other) = (client(&gateway).await, client(&gateway).await);
    stop(&gateway).await;
    let requests = "GET /ahead HTTP/1.1\r\nhost: turns\r\n\r\n".repeat(AHEAD);
    ahead.write_all(requests.as_bytes()).await.expect("the kernel takes it");
    go_on(&gateway, &mut other).await;
    let before = done_before(&gateway, "/ahead", AHEAD);
    assert!(before <= 2, "{before} of {AHEAD}");
}
