//! Long bodies that no filter looks at: between plain HTTP/1 connections the kernel moves them by itself, through pipes. It
//! is seen by the descriptors of the process.

use std::fs;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::read_head;
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// How long they are, in bytes: more than all buffers on the way hold.
const LONG: usize = 24 << 20;

fn body() -> Vec<u8> {
    let mut body = (0..=250).collect::<Vec<u8>>().repeat(LONG / 251 + 1);
    body.truncate(LONG);
    body
}

/// An upstream that answers with the request's body while that comes.
async fn echo() -> Upstream {
    Upstream::new(|mut socket| async move {
        read_head(&mut socket).await;
        let (mut read, mut write) = socket.into_split();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
        if write.write_all(head.as_bytes()).await.is_ok() {
            // It ends when the gateway does.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await
}

/// An upstream that announces a long body, and closes after half of it.
async fn half() -> Upstream {
    Upstream::new(|mut socket| async move {
        read_head(&mut socket).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body()[..LONG / 2]);
        let _ = socket.write_all(&answer).await;
    })
    .await
}

fn gateway(upstream: &Upstream, http: &str) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ {http} routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().config(config).start()
}

/// Pipes of the gateway, both ends of each.
fn pipes(gateway: &Gateway) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs");
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

async fn read_body(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut body = vec![0; LONG];
    soon("the body", from.read_exact(&mut body)).await.expect("all of it");
    body
}

#[tokio::test]
async fn a_long_request_and_its_long_answer_pass_unchanged_through_pipes_that_are_given_back() {
    let upstream = echo().await;
    let gateway = gateway(&upstream, "");
    let before = pipes(&gateway);
    let socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let (mut read, mut write) = socket.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST /bulk HTTP/1.1\r\nhost: bulk\r\ncontent-length: {LONG}\r\n\r\n");
        write.write_all(head.as_bytes()).await.expect("the gateway takes it");
        write.write_all(&body()).await.expect("the gateway takes it");
        write
    });
    assert!(soon("a head", read_head(&mut read)).await.contains("200 OK"));
    // Nobody reads the answer, so that it stands in a pipe, and then the request does.
    until("a pipe for each direction", async || (pipes(&gateway) == before + 4).then_some(())).await;
    assert!(read_body(&mut read).await == body(), "bytes were changed");
    let mut write = sending.await.expect("it is sent");
    let entry = gateway.wait_for_access("/bulk");
    assert_eq!((&entry["bytes_received"], &entry["bytes_sent"]), (&LONG.into(), &LONG.into()));
    until("the pipes to be closed", async || (pipes(&gateway) == before).then_some(())).await;

    // The connections carry on.
    let head = format!("POST /again HTTP/1.1\r\nhost: bulk\r\ncontent-length: {LONG}\r\n\r\n");
    let again = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.expect("the gateway takes it");
        write.write_all(&body()).await.expect("the gateway takes it");
        write
    });
    assert!(soon("a head", read_head(&mut read)).await.contains("200 OK"));
    assert!(read_body(&mut read).await == body(), "bytes were changed");
    again.await.expect("it is sent");
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_has_no_clean_end() {
    let upstream = half().await;
    let gateway = gateway(&upstream, "");
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"GET /half HTTP/1.1\r\nhost: bulk\r\n\r\n").await.expect("the gateway takes it");
    assert!(soon("a head", read_head(&mut socket)).await.contains("200 OK"));
    let mut answer = Vec::new();
    let end = soon("the end", socket.read_to_end(&mut answer)).await;
    assert!(end.is_err() || answer.len() < LONG, "{} bytes", answer.len());
    assert!(answer == body()[..answer.len()], "bytes were changed");
    assert_eq!(gateway.wait_for_access("/half")["reason"], "upstream_body_cut");
}

#[tokio::test]
async fn a_client_that_stops_taking_a_long_answer_is_cut_off_and_its_pipe_with_it() {
    let upstream = half().await;
    let gateway = gateway(&upstream, "min_response_body_rate: 1MiB, body_rate_grace_period: 200ms,");
    let before = pipes(&gateway);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"GET /stops HTTP/1.1\r\nhost: bulk\r\n\r\n").await.expect("the gateway takes it");
    assert!(soon("a head", read_head(&mut socket)).await.contains("200 OK"));
    until("a pipe", async || (pipes(&gateway) == before + 2).then_some(())).await;
    let entry = gateway.wait_for_access("/stops");
    assert_eq!(entry["reason"], "response_body_too_slow", "{entry}");
    until("the pipe to be closed", async || (pipes(&gateway) == before).then_some(())).await;
}
