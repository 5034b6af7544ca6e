//! Upstreams that fail: what may be tried again is, once and elsewhere; what keeps failing is left out; and a fault
//! never looks like an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use weir_tests::frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, Peer, frame, setting};
use weir_tests::gateway::own_address;
use weir_tests::http::{Client, empty, fed, full, get, raw, read_head, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// A gateway with one worker, and a cluster with these endpoints.
fn gateway(endpoints: &[SocketAddr], cluster: &str) -> Gateway {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up, timeout: 2s }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [ {} ], connect_timeout: 1s {cluster} }} ]",
        endpoints.join(", ")
    );
    Setup::new().config(config).start()
}

async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = gateway.admin("GET", "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// An upstream that answers, and counts what it was asked.
async fn well() -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let upstream = upstream(move |_: http::Request<hyper::body::Incoming>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { http::Response::new(full("well")) }
    });
    (upstream.await, asked)
}

/// An upstream that reads each request's head, says `bytes`, and then ends or resets the connection.
async fn hostile(bytes: &'static [u8], reset: bool) -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let upstream = Upstream::new(move |mut socket| {
        let counted = Arc::clone(&counted);
        async move {
            let mut seen = Vec::new();
            while !seen.windows(4).any(|end| end == b"\r\n\r\n")
                && socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0)
            {}
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = socket.write_all(bytes).await;
            finish(socket, reset);
        }
    });
    (upstream.await, asked)
}

fn finish(socket: TcpStream, reset: bool) {
    if reset {
        socket.set_zero_linger().expect("a socket");
    }
    drop(socket);
}

const NO_OUTLIERS: &str = ", outlier_detection: { consecutive_failures: 0 }";

#[tokio::test]
async fn what_one_endpoint_does_not_answer_another_one_is_asked_once() {
    let (well, asked) = well().await;
    let nowhere = Upstream::nowhere().await;
    let (closes, closed) = hostile(b"", false).await;
    let (resets, reset) = hostile(b"", true).await;
    for (bad, tried) in [(nowhere, None), (closes.address, Some(closed)), (resets.address, Some(reset))] {
        let gateway = gateway(&[bad, well.address], NO_OUTLIERS);
        for _ in 0..10 {
            assert_eq!(get(gateway.address("web"), "/").await.text(), "well", "{bad}");
        }
        let retries = metric(&gateway, "weir_upstream_retries_total{cluster=\"up\"}").await;
        assert!((5..=10).contains(&retries), "{retries} of those whose turn was the other's: {bad}");
        assert_eq!(asked.swap(0, Ordering::SeqCst), 10, "{bad}");
        assert!(tried.is_none_or(|tried| tried.load(Ordering::SeqCst) as u64 == retries), "{bad}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again_and_what_was_not_sent_is() {
    let (well, asked) = well().await;
    let (closes, closed) = hostile(b"", false).await;
    let gateway_of = |bad| gateway(&[bad, well.address], NO_OUTLIERS);
    // A POST that was sent may have had its effect, and a body that was sent is gone.
    let sent = gateway_of(closes.address);
    for (method, body) in [("POST", empty as fn() -> _), ("PUT", || full("body")), ("PATCH", empty)] {
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let mut client = Client::h1(sent.address("web")).await;
            let request = client.request(method, "/").body(body()).expect("a request");
            statuses.push(client.call(request).await.expect("an answer").status.as_u16());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{method}");
    }
    assert_eq!((closed.load(Ordering::SeqCst), asked.swap(0, Ordering::SeqCst)), (3, 3));
    assert_eq!(metric(&sent, "weir_upstream_retries_total{cluster=\"up\"}").await, 0);
    // Where there was no connection nothing was sent.
    let unsent = gateway_of(Upstream::nowhere().await);
    for _ in 0..4 {
        let mut client = Client::h1(unsent.address("web")).await;
        let request = client.request("POST", "/").body(full("body")).expect("a request");
        assert_eq!(client.call(request).await.expect("an answer").status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let (well, asked) = well().await;
    let (begins, tried) = hostile(b"HTTP/1.1 200 OK\r\nContent-", false).await;
    let gateway = gateway(&[begins.address, well.address], NO_OUTLIERS);
    let mut statuses =
        [get(gateway.address("web"), "/").await.status, get(gateway.address("web"), "/").await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::BAD_GATEWAY]);
    assert_eq!((tried.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn no_more_requests_are_tried_again_than_the_budget_allows() {
    let (one, first) = hostile(b"", false).await;
    let (other, second) = hostile(b"", true).await;
    let gateway = gateway(&[one.address, other.address], NO_OUTLIERS);
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status, 502);
    }
    // Ten are there at first, and a fifth of a hundred is twenty.
    let retries = metric(&gateway, "weir_upstream_retries_total{cluster=\"up\"}").await;
    assert_eq!(retries, 30);
    assert_eq!(metric(&gateway, "weir_upstream_retries_over_budget_total{cluster=\"up\"}").await, 70);
    assert_eq!(first.load(Ordering::SeqCst) + second.load(Ordering::SeqCst), 130);
}

#[tokio::test]
async fn five_failures_in_a_row_eject_an_endpoint_until_its_time_is_over() {
    let (well, _) = well().await;
    // It fails until it is told to be well.
    let (heal, healed) = tokio::sync::watch::channel(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let ill = Upstream::new(move |mut socket| {
        let (healed, counted) = (healed.clone(), Arc::clone(&counted));
        async move {
            read_head(&mut socket).await;
            counted.fetch_add(1, Ordering::SeqCst);
            if *healed.borrow() {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhealed").await;
                let _ = socket.read(&mut [0]).await;
            }
        }
    })
    .await;
    let gateway = gateway(&[ill.address, well.address], ", outlier_detection: { base_ejection_time: 2s }");
    let address = gateway.address("web");
    let began = std::time::Instant::now();
    for _ in 0..40 {
        assert_eq!(get(address, "/").await.text(), "well");
    }
    gateway.wait_for_log("an endpoint keeps failing and is left out");
    if began.elapsed() < Duration::from_secs(2) {
        assert_eq!(asked.load(Ordering::SeqCst), 5, "it was asked no more");
        assert_eq!(metric(&gateway, "weir_upstream_ejections_total{cluster=\"up\"}").await, 1);
    }
    heal.send(true).expect("the upstream is there");
    until("the endpoint to be back", async || (get(address, "/").await.text() == "healed").then_some(()))
        .await;
    let clusters = gateway.admin("GET", "/clusters").await.json();
    let endpoints = clusters["clusters"][0]["endpoints"].as_array().expect("endpoints").clone();
    assert!(endpoints.iter().all(|endpoint| endpoint["ejected"] == false), "{endpoints:?}");
}

#[tokio::test]
async fn where_every_endpoint_fails_none_is_left_out() {
    let (only, asked) = hostile(b"", false).await;
    let gateway = gateway(&[only.address], "");
    for _ in 0..20 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 502);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 20);
}

/// What a hostile upstream says, and how it ends; the status, if the client sees one, and the reason.
type Mode = (&'static str, &'static [u8], bool, Option<u16>, &'static str);

#[tokio::test]
async fn every_fault_of_an_upstream_has_its_reason_in_the_log_and_in_a_metric() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(40).leak();
    let bomb = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; 1 << 20]].concat().leak();
    let many = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"X: 1\r\n".repeat(200), b"\r\n"].concat().leak();
    let modes: [Mode; 17] = [
        ("says nothing", b"", false, Some(502), "upstream_closed"),
        ("resets", b"", true, Some(502), "upstream_reset"),
        ("half a head", b"HTTP/1.1 200 OK\r\nA", false, Some(502), "upstream_closed"),
        ("half a head and a reset", b"HTTP/1.1 200 OK\r\nA", true, Some(502), "upstream_reset"),
        ("interim responses", interim, false, Some(502), "upstream_interim_responses"),
        (
            "101 unasked",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            false,
            Some(502),
            "upstream_interim_responses",
        ),
        ("a header bomb", bomb, false, Some(502), "upstream_head_too_large"),
        ("many headers", many, false, Some(502), "upstream_head_too_large"),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n\r\n", false, Some(502), "upstream_malformed_head"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, Some(502), "upstream_malformed_head"),
        (
            "a folded header",
            b"HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n",
            false,
            Some(502),
            "upstream_malformed_head",
        ),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            false,
            Some(502),
            "upstream_malformed_head",
        ),
        (
            "length and encoding",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
            Some(502),
            "upstream_malformed_head",
        ),
        (
            "a short body",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            false,
            None,
            "upstream_body_cut",
        ),
        (
            "a body and a reset",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            true,
            None,
            "upstream_body_cut",
        ),
        (
            "chunks without an end",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
            false,
            None,
            "upstream_body_cut",
        ),
        (
            "a bad chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n",
            false,
            None,
            "upstream_body_cut",
        ),
    ];
    for (what, bytes, reset, status, reason) in modes {
        let (upstream, _) = hostile(bytes, reset).await;
        let gateway = gateway(&[upstream.address], "");
        let series = format!("weir_http_failures_total{{listener=\"web\",reason=\"{reason}\"}}");
        assert_eq!(metric(&gateway, &series).await, 0, "{what}");
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/").body(empty()).expect("a request");
        let answer = client.call(request).await;
        match status {
            Some(status) => assert_eq!(answer.expect("an answer").status, status, "{what}"),
            // A body that is not whole never ends in order.
            None => drop(answer.expect_err(what)),
        }
        assert_eq!(gateway.wait_for_access("\"path\":\"/\"")["reason"], reason, "{what}");
        assert_eq!(metric(&gateway, &series).await, 1, "{what}");
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_or_is_not_there_has_reasons_of_its_own() {
    let stalls = Upstream::new(|mut socket| async move {
        read_head(&mut socket).await;
        let _ = socket.read(&mut [0]).await;
    })
    .await;
    let nowhere = Upstream::nowhere().await;
    for (address, status, reason) in
        [(stalls.address, 504, "upstream_timeout"), (nowhere, 503, "connect_failure")]
    {
        let gateway = gateway(&[address], "");
        assert_eq!(get(gateway.address("web"), "/").await.status, status);
        assert_eq!(gateway.wait_for_access("\"path\":\"/\"")["reason"], reason);
        let series = format!("weir_http_failures_total{{listener=\"web\",reason=\"{reason}\"}}");
        assert_eq!(metric(&gateway, &series).await, 1);
    }
    let none = gateway(&[], "");
    assert_eq!(get(none.address("web"), "/").await.status, 503);
    assert_eq!(none.wait_for_access("\"path\":\"/\"")["reason"], "no_endpoints");
}

#[tokio::test]
async fn an_answer_of_grpc_without_trailers_is_given_none() {
    let upstream = upstream(|_: http::Request<hyper::body::Incoming>| async {
        let (feed, body) = fed();
        let message = bytes::Bytes::from_static(b"\0\0\0\0\x01a");
        feed.send(hyper::body::Frame::data(message)).expect("the body is there");
        let response = http::Response::builder().header("content-type", "application/grpc");
        response.body(body).expect("a response")
    })
    .await;
    let gateway = gateway(&[upstream.address], ", protocol: http2");
    let mut client = Client::h2(gateway.address("web")).await;
    let request = client.request("POST", "/s/m").header("content-type", "application/grpc");
    let answer = client.call(request.body(full("\0\0\0\0\0")).expect("a request")).await.expect("an answer");
    // Whether that is an error is the caller's to say: it finds no status.
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"\0\0\0\0\x01a".as_slice()));
    assert!(!answer.headers.contains_key("grpc-status"));
    assert!(answer.trailers.is_none_or(|trailers| !trailers.contains_key("grpc-status")));
}

/// A listener whose queue is full: the kernel drops what asks for a connection, as a host does that is not there.
async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = socket.listen(0).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    let full = Duration::from_millis(200);
    while let Ok(connected) = tokio::time::timeout(full, TcpStream::connect(address)).await {
        waiting.push(connected.expect("there is room in the queue"));
    }
    (listener, waiting)
}

#[tokio::test]
async fn a_connection_that_does_not_come_is_waited_for_so_long_and_another_endpoint_is_asked() {
    let (well, _) = well().await;
    let (hole, _waiting) = black_hole().await;
    let hole = hole.local_addr().expect("an address");
    let alone = gateway(&[hole], "");
    assert_eq!(get(alone.address("web"), "/").await.status, 503);
    assert_eq!(alone.wait_for_access("\"path\":\"/\"")["reason"], "connect_timeout");
    let both = gateway(&[hole, well.address], "");
    for _ in 0..2 {
        assert_eq!(get(both.address("web"), "/").await.text(), "well");
    }
}

/// A server that answers, and dies with all of its connections when it is aborted.
fn mortal(address: SocketAddr) -> JoinHandle<()> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("its own address");
    let listener = socket.listen(1024).expect("it listens");
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut seen = Vec::new();
                while socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                    }
                }
            });
        }
    })
}

#[tokio::test]
async fn an_upstream_of_three_that_dies_again_and_again_costs_no_request_that_may_be_repeated() {
    let addresses = [61, 62, 63].map(own_address);
    let mut servers = addresses.map(mortal);
    let gateway = gateway(&addresses, ", outlier_detection: { base_ejection_time: 300ms }");
    let address = gateway.address("web");
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let mut client = Client::h1(address).await;
                let mut count = 0;
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").await.text(), "ok");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..20 {
        let at = round % servers.len();
        servers[at].abort();
        let _ = (&mut servers[at]).await;
        // While it is dead, and when it is back, requests come through.
        for _ in 0..50 {
            assert_eq!(get(address, "/").await.text(), "ok");
        }
        servers[at] = mortal(addresses[at]);
        until("all to be asked again", async || {
            let clusters = gateway.admin("GET", "/clusters").await.json();
            let endpoints = clusters["clusters"][0]["endpoints"].as_array().expect("endpoints").clone();
            endpoints.iter().all(|endpoint| endpoint["ejected"] == false).then_some(())
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    let mut total = 0;
    for client in clients {
        total += client.await.expect("no request failed");
    }
    assert!(total > 30, "{total} requests");
    servers.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn what_no_endpoint_can_do_leaves_none_out() {
    let (one, _) = well().await;
    let (other, _) = well().await;
    let gateway = gateway(&[one.address, other.address], ", protocol: http2");
    for _ in 0..20 {
        let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n";
        let answer = raw(gateway.address("web"), upgrade).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    assert_eq!(metric(&gateway, "weir_upstream_ejections_total{cluster=\"up\"}").await, 0);
    assert_eq!(get(gateway.address("web"), "/").await.text(), "well");
}

#[tokio::test]
async fn a_requests_deadline_holds_with_an_http2_endpoint_that_opens_no_window() {
    let upstream = Upstream::new(|mut socket| async move {
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).await.expect("a preface");
        let mut peer = Peer::over(socket);
        peer.send(&setting(4, 0)).await;
        while let Some(next) = peer.next().await {
            // The first request has no body. With its answer it is known that there is no window, and nothing else comes ever.
            if next.kind == HEADERS && next.stream == 1 {
                peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x88])).await;
            }
        }
    })
    .await;
    let gateway = gateway(&[upstream.address], ", protocol: http2");
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.status, 200);
    let request = client.request("POST", "/").body(full("a body")).expect("a request");
    let answer = soon("the deadline", client.call(request)).await.expect("an answer");
    assert_eq!(answer.status, 504, "{}", answer.text());
}
