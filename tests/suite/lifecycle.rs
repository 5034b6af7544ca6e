//! The end of the process, and the reload of its configuration.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::{Client, asking, empty, fed, full, get, mirror, read_head};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// A gateway that forwards everything to one upstream: HTTP at `web`, bytes at `plain`.
fn forwarding(upstream: &Upstream, more: &str) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}, \
           {{ name: plain, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]\n{more}",
        upstream.address
    );
    Setup::new().config(config).start()
}

/// Tells the process to end, and waits until it takes nothing new.
async fn drain(gateway: &Gateway) {
    gateway.signal(Signal::TERM);
    refuses(gateway).await;
}

/// Waits until the process drains, and listens nowhere any more.
async fn refuses(gateway: &Gateway) {
    gateway.wait_for_log("draining timeout=");
    for listener in ["web", "plain"] {
        let address = gateway.address(listener);
        until("a new connection to be refused", async || TcpStream::connect(address).await.err()).await;
    }
}

/// The end of a connection that sends nothing more.
async fn assert_ends(socket: &mut TcpStream, what: &str) {
    let mut rest = Vec::new();
    soon(what, socket.read_to_end(&mut rest)).await.expect("an end in order");
    assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
}

/// A connection that has carried one exchange, and waits for the next.
async fn kept_alive(gateway: &Gateway) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let head = read_head(&mut socket).await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    soon("the body", socket.read_exact(&mut body)).await.expect("all of it");
    socket
}

#[tokio::test]
async fn what_is_idle_is_closed_when_it_has_been_so_for_a_second_and_the_process_ends_with_0() {
    let mirror = mirror().await;
    for signal in [Signal::TERM, Signal::INT] {
        // With an hour to go, nothing ends because of the timeout.
        let gateway = forwarding(&mirror, "drain_timeout: 1h");
        let mut kept_alive = kept_alive(&gateway).await;
        let mut silent = TcpStream::connect(gateway.address("web")).await.expect("it listens");
        let mut h2 = Client::h2(gateway.address("web")).await;
        assert_eq!(h2.get("/").await.status, 200);
        gateway.signal(signal);
        assert_ends(&mut kept_alive, "the end of a connection between two requests").await;
        assert_ends(&mut silent, "the end of a connection without any").await;
        let exit = tokio::task::spawn_blocking(move || gateway.wait_for_exit()).await.expect("it ends");
        assert_eq!(exit.code(), Some(0));
    }
}

#[tokio::test]
async fn whoever_has_asked_before_the_drain_is_answered_though_the_worker_was_busy() {
    let mirror = mirror().await;
    let config = format!(
        "runtime: {{ workers: 1 }}\ndrain_timeout: 1h\noverload: {{ max_loop_delay: 0s }}\n\
         listeners: [ {{ name: busy, address: \"127.0.0.1:0\", http: {{ \
             filters: [ {{ plugin: faulty, cpu: 1s }} ], routes: [ {{ cluster: up }} ] }} }}, \
           {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin("faulty").config(config).start();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(kept_alive(&gateway).await);
    }
    let mut busy = TcpStream::connect(gateway.address("busy")).await.expect("it listens");
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Fault: loop\r\n\r\n").await.expect("sent");
    // For a second of CPU time the worker looks at nothing else, and then at its orders first.
    for _ in 0..20 {
        clients.push(TcpStream::connect(gateway.address("web")).await.expect("it listens"));
    }
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    }
    gateway.signal(Signal::TERM);
    for mut client in clients {
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer)).await.expect("an end in order");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_in_full_and_its_connection_closed() {
    let (upstream, mut asked) = asking().await;
    let gateway = forwarding(&upstream, "drain_timeout: 1h");
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await.expect("sent");
    let (request, answer) = soon("the request", asked.recv()).await.expect("it comes");
    drain(&gateway).await;
    let ready = gateway.admin("GET", "/ready").await;
    assert_eq!((ready.status.as_u16(), ready.text().as_str()), (503, "not ready: draining\n"));
    socket.write_all(b"world").await.expect("sent");
    let body = soon("the request's body", request.into_body().collect()).await.expect("all of it").to_bytes();
    assert_eq!(body, "helloworld");
    let (feed, body) = fed();
    answer.send(Response::new(body)).expect("the upstream waits");
    feed.send(Frame::data(Bytes::from_static(b"first"))).expect("open");
    let head = read_head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nconnection: close\r\n"), "{head}");
    feed.send(Frame::data(Bytes::from_static(b"second"))).expect("open");
    drop(feed);
    let mut rest = String::new();
    soon("the end", socket.read_to_string(&mut rest)).await.expect("an end in order");
    assert_eq!(rest, "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert_eq!(gateway.wait_for_access("\"path\":\"/\"")["status"], 200, "the access log is written out");
}

#[tokio::test]
async fn a_response_whose_head_was_sent_before_the_drain_still_ends_in_full() {
    let (upstream, mut asked) = asking().await;
    let gateway = forwarding(&upstream, "drain_timeout: 1h");
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").body(empty()).expect("a request");
    let asking = tokio::spawn(async move { client.send(request).await });
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    let (feed, body) = fed();
    answer.send(Response::new(body)).expect("the upstream waits");
    feed.send(Frame::data(Bytes::from_static(b"before"))).expect("open");
    let response = soon("the head", asking).await.expect("a task").expect("an answer");
    drain(&gateway).await;
    feed.send(Frame::data(Bytes::from_static(b" and after"))).expect("open");
    drop(feed);
    let body = soon("the body", response.into_body().collect()).await.expect("all of it");
    assert_eq!(body.to_bytes(), "before and after");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

/// Frames of HTTP/2 by hand: their type, flags and stream, and their payload (RFC 9113 section 4.1).
pub(crate) async fn read_frame(socket: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    soon("a frame", socket.read_exact(&mut head)).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    soon("the payload of a frame", socket.read_exact(&mut payload)).await.expect("all of it");
    Some((kind, flags, u32::from_be_bytes(stream), payload))
}

pub(crate) async fn write_frame(socket: &mut TcpStream, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let mut frame =
        vec![0, 0, u8::try_from(payload.len()).expect("a small frame"), kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    socket.write_all(&frame).await.expect("sent");
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;

#[tokio::test]
async fn an_http2_client_is_told_to_go_away_and_its_stream_in_flight_ends_in_full() {
    let (upstream, mut asked) = asking().await;
    let gateway = forwarding(&upstream, "drain_timeout: 1h");
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    write_frame(&mut socket, SETTINGS, 0, 0, &[]).await;
    // GET, http and / from the static table, and an authority of one letter.
    write_frame(&mut socket, HEADERS, END_STREAM | 4, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']).await;
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    drain(&gateway).await;
    let mut answer = Some(answer);
    let (mut went_away, mut body, mut ended) = (0, Vec::new(), false);
    while let Some((kind, flags, stream, payload)) = read_frame(&mut socket).await {
        match kind {
            SETTINGS if flags & ACK == 0 => write_frame(&mut socket, SETTINGS, ACK, 0, &[]).await,
            PING if flags & ACK == 0 => write_frame(&mut socket, PING, ACK, 0, &payload).await,
            GOAWAY => {
                assert_eq!(payload[4..8], [0; 4], "no error");
                went_away += 1;
                // The answer comes only now.
                if let Some(answer) = answer.take() {
                    answer.send(Response::new(full("in full"))).expect("the upstream waits");
                }
            }
            DATA => {
                assert_eq!(stream, 1);
                body.extend_from_slice(&payload);
                ended |= flags & END_STREAM != 0;
            }
            _ => {}
        }
    }
    assert!(went_away > 0);
    assert_eq!((String::from_utf8_lossy(&body).as_ref(), ended), ("in full", true));
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[tokio::test]
async fn a_tcp_stream_in_flight_is_let_finish() {
    let echo = Upstream::echo().await;
    let gateway = forwarding(&echo, "drain_timeout: 1h");
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    let mut echoed = [0; 6];
    socket.write_all(b"before").await.expect("sent");
    soon("the echo", socket.read_exact(&mut echoed)).await.expect("the echo");
    drain(&gateway).await;
    socket.write_all(b"behind").await.expect("sent");
    soon("the echo", socket.read_exact(&mut echoed)).await.expect("the echo");
    assert_eq!(&echoed, b"behind");
    socket.shutdown().await.expect("sent");
    assert_ends(&mut socket, "the end of the stream").await;
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_drain_timeout_and_the_log_says_how_much() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let (upstream, mut asked) = asking().await;
    let gateway = forwarding(&upstream, "drain_timeout: 500ms");
    let mut hanging = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    hanging.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let _unanswered = soon("the request", asked.recv()).await.expect("it comes");
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= TIMEOUT && took < TIMEOUT + Duration::from_secs(10), "{took:?}");
    let line = gateway.wait_for_log("the drain is over; what still runs is cut");
    assert!(line.contains("connections=1"), "{line}");
    let mut rest = Vec::new();
    let cut = soon("the end of the connection", hanging.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{cut:?}: {}", String::from_utf8_lossy(&rest));
    let entry = gateway.wait_for_access("drain_timeout");
    assert_eq!((entry["path"].as_str(), entry["reason"].as_str()), (Some("/"), Some("drain_timeout")));
}

#[tokio::test]
async fn the_admin_api_drains_as_a_signal_does() {
    let (upstream, mut asked) = asking().await;
    let gateway = forwarding(&upstream, "drain_timeout: 1h");
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").body(empty()).expect("a request");
    let asking = tokio::spawn(async move { client.call(request).await });
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    let accepted = gateway.admin("POST", "/drain").await;
    assert_eq!((accepted.status.as_u16(), accepted.text().as_str()), (202, "draining\n"));
    refuses(&gateway).await;
    // Asked again, and for what cannot be had any more, it says so at once.
    assert_eq!(gateway.admin("POST", "/drain").await.status, 202);
    let reload = gateway.admin("POST", "/reload").await;
    assert_eq!((reload.status.as_u16(), reload.text().as_str()), (503, "the process is ending\n"));
    answer.send(Response::new(full("in full"))).expect("the upstream waits");
    let answer = soon("the answer", asking).await.expect("a task").expect("an answer");
    assert_eq!((answer.text().as_str(), answer.header("connection").as_str()), ("in full", "close"));
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[tokio::test]
async fn a_signal_is_heeded_from_the_start_and_a_hang_up_never_ends_the_process() {
    let gateway = Setup::new().config(answering("one")).launch();
    gateway.wait_for_log("the admin API listens");
    gateway.signal(Signal::HUP);
    gateway.wait_for_log("ready to serve");
    until("the reload", async || (reloads(&gateway, "taken").await == 1).then_some(())).await;
    let gateway = Setup::new().config(answering("one")).launch();
    gateway.wait_for_log("the admin API listens");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

/// A listener that answers by itself.
fn answering(body: &str) -> String {
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", \
           http: {{ routes: [ {{ respond: {{ status: 200, body: \"{body}\" }} }} ] }} }} ]\n"
    )
}

/// How many configurations were taken, or refused.
async fn reloads(gateway: &Gateway, result: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let series = format!("weir_config_reloads_total{{result=\"{result}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}in {metrics}")).parse().expect("a number")
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_by_itself_and_connections_live_on() {
    let gateway = Setup::new().config(answering("one")).start();
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "one");
    gateway.write_config(&answering("two"));
    gateway.wait_for_log("the configuration is in force");
    assert_eq!(client.get("/").await.text(), "two");
}

#[tokio::test]
async fn the_admin_api_reloads_and_answers_once_the_configuration_is_in_force() {
    let gateway = Setup::new().config(answering("0")).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for version in 1..=10 {
        gateway.write_config(&answering(&version.to_string()));
        let reloaded = gateway.admin("POST", "/reload").await;
        assert_eq!((reloaded.status.as_u16(), reloaded.text().as_str()), (200, "reloaded\n"));
        assert_eq!(client.get("/").await.text(), version.to_string());
    }
}

#[tokio::test]
async fn a_hang_up_signal_reloads() {
    let gateway = Setup::new().config(answering("one")).start();
    // The file has not changed, so nothing else takes it up.
    for count in 1..=2 {
        assert_eq!(reloads(&gateway, "taken").await, count - 1);
        gateway.signal(Signal::HUP);
        until("the reload", async || (reloads(&gateway, "taken").await == count).then_some(())).await;
    }
    assert_eq!(get(gateway.address("web"), "/").await.text(), "one");
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_its_problems_and_what_served_goes_on_serving() {
    let occupied = Upstream::echo().await;
    let gateway = Setup::new().config(answering("good")).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let with_another = |address: &str| {
        answering("bad").replace(" ]\n", &format!(", {{ name: other, address: \"{address}\", SERVICE }} ]\n"))
    };
    let cases = [
        (answering("bad").replace(" ]\n", "\n"), "weir.yaml:"),
        (answering("bad").replace("body:", "boddy:"), "did you mean `body`?"),
        (
            answering("bad").replace("respond: { status: 200, body: \"bad\" }", "cluster: nowhere"),
            "`nowhere`",
        ),
        (with_another("127.0.0.1:0").replace("SERVICE", "tcp: { cluster: none }"), "`none`"),
        (with_another(&occupied.address.to_string()).replace("SERVICE", "http: { routes: [] }"), "in use"),
    ];
    for (number, (config, problem)) in cases.iter().enumerate() {
        gateway.write_config(config);
        let reload = gateway.admin("POST", "/reload").await;
        assert_eq!(reload.status, 400, "{config}");
        assert!(reload.text().contains(problem) && reload.text().contains("weir.yaml:"), "{}", reload.text());
        gateway.wait_for_log_count("the configuration is refused; the old one stays in force", number + 1);
        let shown = gateway.admin("GET", "/config").await.json();
        assert!(shown["rejected"].as_str().is_some_and(|rejected| rejected.contains(problem)), "{shown}");
        assert_eq!(client.get("/").await.text(), "good");
        assert_eq!(get(gateway.address("web"), "/").await.text(), "good");
    }
    let refused = reloads(&gateway, "refused").await;
    gateway.signal(Signal::HUP);
    until("another refusal", async || (reloads(&gateway, "refused").await > refused).then_some(())).await;
    assert_eq!(gateway.admin("GET", "/ready").await.status, 200);
    // Once it is good again, nothing is left of that.
    gateway.write_config(&answering("better"));
    assert_eq!(gateway.admin("POST", "/reload").await.status, 200);
    assert_eq!(client.get("/").await.text(), "better");
    assert!(gateway.admin("GET", "/config").await.json()["rejected"].is_null());
}
