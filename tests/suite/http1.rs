//! HTTP/1.1 on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::{Client, empty, full, get, mirror, raw, read_head, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::websocket::{converse, websocket};
use weir_tests::{Gateway, Setup};

/// A gateway that forwards everything to one upstream.
fn forwarding(upstream: &Upstream) -> Gateway {
    Setup::new().config(forwarding_config(upstream, "")).start()
}

fn forwarding_config(upstream: &Upstream, http: &str) -> String {
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] {http} }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

#[tokio::test]
async fn a_request_is_forwarded_and_its_answer_returned() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let request =
        client.request("POST", "/a/b?c=d").header("x-a", "1").header("x-a", "2").body(full("hello"));
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.starts_with("POST /a/b?c=d HTTP/1.1\nhost: example.com\n"), "{text}");
    assert!(text.contains("x-a: 1\nx-a: 2\n") && text.ends_with("\n\nhello"), "{text}");
    assert!(text.contains("content-length: 5\n") && !text.contains("transfer-encoding"), "{text}");
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_so_does_the_upstreams() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    for number in 0..50 {
        let answer = client.get(&format!("/{number}")).await;
        assert!(answer.text().starts_with(&format!("GET /{number} ")), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_client_that_is_silent_gives_back_the_buffers_of_its_last_exchange_and_is_answered_again() {
    const CLIENTS: usize = 500;
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let exchange = async |clients: &mut Vec<Client>| {
        for client in clients {
            // The second head is read into memory that is kept for a third; the first one is not.
            assert_eq!(client.get("/").await.status, 200);
            assert_eq!(client.get("/").await.status, 200);
        }
    };
    let open = async |count| {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::h1(gateway.address("web")).await);
        }
        clients
    };
    // What grows with the first of them is not theirs alone.
    let mut first = open(CLIENTS / 5).await;
    exchange(&mut first).await;
    let before = gateway.resident();
    let mut clients = open(CLIENTS).await;
    exchange(&mut clients).await;
    // Of the 8 KiB that a head is read into, one page is in use at the least.
    until("less than 6 KiB for each", async || {
        let each = gateway.resident().saturating_sub(before) / CLIENTS as u64;
        (each < 6 * 1024).then_some(())
    })
    .await;
    exchange(&mut clients).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let requests: String = (0..5)
        .map(|n| {
            format!(
                "GET /{n} HTTP/1.1\r\nHost: a\r\n{}\r\n",
                if n == 4 { "Connection: close\r\n" } else { "" }
            )
        })
        .collect();
    let answer = raw(gateway.address("web"), requests).await;
    let order: Vec<_> = answer.lines().filter(|line| line.starts_with("GET /")).collect();
    assert_eq!(
        order,
        ["GET /0 HTTP/1.1", "GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1", "GET /4 HTTP/1.1"]
    );
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn chunked_bodies_and_trailers_pass_in_both_directions() {
    let upstream = Upstream::new(|mut socket| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n0\r\nx-sum: 42\r\n\r\n") {
            request.push(socket.read_u8().await.expect("a chunked request with its trailer"));
        }
        let request = String::from_utf8_lossy(&request);
        assert!(
            request.contains("te: trailers\r\n") && request.contains("transfer-encoding: chunked\r\n"),
            "{request}"
        );
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                      b\r\nhello world\r\n0\r\nX-Sum-Back: 42\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let gateway = forwarding(&upstream);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nConnection: close, TE\r\n\r\n\
                   5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n";
    let answer = raw(gateway.address("web"), request).await;
    assert!(answer.contains("\r\ntransfer-encoding: chunked\r\n"), "{answer}");
    assert!(answer.ends_with("b\r\nhello world\r\n0\r\nx-sum-back: 42\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn head_and_bodiless_answers_keep_their_framing() {
    let upstream = upstream(|request: Request<hyper::body::Incoming>| async move {
        match request.uri().path() {
            "/204" => Response::builder().status(204).body(empty()),
            "/304" => Response::builder().status(304).header("etag", "\"x\"").body(empty()),
            _ => Response::builder().body(full("twelve bytes")),
        }
        .expect("a response")
    })
    .await;
    let gateway = forwarding(&upstream);
    let mut client = Client::h1(gateway.address("web")).await;
    let head = client.request("HEAD", "/").body(empty()).expect("a request");
    let head = client.call(head).await.expect("an answer");
    assert_eq!((head.header("content-length").as_str(), head.body.len()), ("12", 0));
    assert_eq!(client.get("/204").await.status, 204);
    assert_eq!(client.get("/304").await.header("etag"), "\"x\"");
    assert_eq!(client.get("/").await.text(), "twelve bytes", "the connection is still in step");
}

#[tokio::test]
async fn a_client_that_expects_continue_is_told_to_go_on_and_the_upstream_never_asked() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut interim = [0; 25];
    soon("100 Continue", socket.read_exact(&mut interim)).await.expect("it comes");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"hello").await.expect("sent");
    let mut answer = String::new();
    soon("the answer", socket.read_to_string(&mut answer)).await.expect("text");
    assert!(answer.ends_with("\n\nhello") && !answer.contains("expect"), "{answer}");
}

#[tokio::test]
async fn hop_by_hop_headers_go_and_claims_about_the_client_are_replaced() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let answer = raw(
        gateway.address("web"),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n\
         Proxy-Connection: x\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Client-Cert: URI=spiffe://evil\r\n\r\n",
    )
    .await;
    let seen = answer.split_once("\r\n\r\n").expect("a body").1;
    for gone in ["x-secret", "keep-alive", "te:", "proxy-connection", "9.9.9.9", "spiffe", "connection:"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert!(
        seen.contains("x-forwarded-for: 127.0.0.1\n") && seen.contains("x-forwarded-proto: http\n"),
        "{seen}"
    );
    assert!(seen.contains("x-request-id: "), "{seen}");
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_upstream_sees_nothing() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = forwarding(&upstream);
    let cases = [
        (
            "400",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("400", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\n\r\n"),
        ("400", "GET / HTTP/1.1\nHost: a\n\n"),
        ("400", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("414", &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000))),
        ("431", &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000))),
        ("431", &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(101))),
        ("505", "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        ("405", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    ];
    for (status, request) in cases {
        let answer = raw(gateway.address("web"), request).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n") && answer.contains("server: weir"), "{answer}");
    }
    assert!(told.try_recv().is_err(), "the upstream saw something");
}

#[tokio::test]
async fn a_malformed_chunk_never_reaches_the_upstream_as_a_whole_body() {
    let (upstream, mut told) = Upstream::recording().await;
    let gateway = forwarding(&upstream);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    let answer = raw(gateway.address("web"), request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let seen = soon("the upstream's end", told.recv()).await.expect("a connection");
    let seen = String::from_utf8_lossy(&seen);
    assert!(!seen.contains("0\r\n\r\n"), "the upstream saw an end that never came: {seen}");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_503_and_one_that_hangs_up_502() {
    let nowhere = Upstream::nowhere().await;
    let silent = Upstream::new(|socket| async move { drop(socket) }).await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [\
           {{ match: {{ path: /gone }}, cluster: gone }}, {{ cluster: silent }} ] }} }} ]\n\
         clusters: [ {{ name: gone, endpoints: [\"{nowhere}\"] }}, {{ name: silent, endpoints: [\"{}\"] }} ]",
        silent.address
    );
    let gateway = Setup::new().config(config).start();
    let gone = get(gateway.address("web"), "/gone").await;
    assert_eq!(gone.status, 503);
    assert_eq!(gateway.wait_for_access("/gone")["reason"], "connect_failure");
    assert_eq!(get(gateway.address("web"), "/silent").await.status, 502);
    // What it has not read when it hangs up makes a reset of that.
    let reason = gateway.wait_for_access("/silent")["reason"].take();
    assert!(reason == "upstream_closed" || reason == "upstream_reset", "{reason}");
}

#[tokio::test]
async fn an_upstream_that_takes_too_long_is_504_and_one_that_sends_nonsense_502() {
    let slow = Upstream::new(|socket| async move {
        let _socket = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let mad = Upstream::new(|mut socket| async move {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let _ =
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").await;
    })
    .await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [\
           {{ match: {{ path: /slow }}, cluster: slow, timeout: 100ms }}, {{ cluster: mad }} ] }} }} ]\n\
         clusters: [ {{ name: slow, endpoints: [\"{}\"] }}, {{ name: mad, endpoints: [\"{}\"] }} ]",
        slow.address, mad.address
    );
    let gateway = Setup::new().config(config).start();
    assert_eq!(get(gateway.address("web"), "/slow").await.status, 504);
    assert_eq!(gateway.wait_for_access("/slow")["reason"], "upstream_timeout");
    assert_eq!(get(gateway.address("web"), "/mad").await.status, 502);
    assert_eq!(gateway.wait_for_access("/mad")["reason"], "upstream_malformed_head");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_complete() {
    for (framing, body) in
        [("Content-Length: 100", "short"), ("Transfer-Encoding: chunked", "5\r\nshort\r\n")]
    {
        let upstream = Upstream::new(move |mut socket| async move {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}");
            let _ = socket.write_all(answer.as_bytes()).await;
        })
        .await;
        let gateway = forwarding(&upstream);
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/").body(empty()).expect("a request");
        let error = client.call(request).await.expect_err("the body is not whole");
        assert!(
            error.is_incomplete_message() || error.is_body_write_aborted() || !error.is_user(),
            "{error}"
        );
        assert_eq!(gateway.wait_for_access("\"path\":\"/\"")["reason"], "upstream_body_cut", "{framing}");
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_the_upstream_has_just_closed_is_sent_again() {
    // Answers one request on each connection as if it would take more, and closes.
    let upstream = Upstream::new(|mut socket| async move {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let _ = socket.read(&mut request).await;
    })
    .await;
    let gateway = forwarding(&upstream);
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn claims_about_the_caller_are_believed_of_trusted_proxies_only() {
    let mirror = mirror().await;
    for (trusted, forwarded) in [("[]", "127.0.0.1"), ("[\"127.0.0.0/8\"]", "192.0.2.7, 127.0.0.1")] {
        let config = format!("trusted_proxies: {trusted}\n{}", forwarding_config(&mirror, ""));
        let gateway = Setup::new().config(config).start();
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/").header("x-forwarded-for", "192.0.2.7");
        let request = request.header("x-forwarded-proto", "https").header("x-forwarded-host", "claimed");
        let text = client.call(request.body(empty()).expect("a request")).await.expect("an answer").text();
        assert!(text.contains(&format!("x-forwarded-for: {forwarded}\n")), "{trusted}: {text}");
        let believed = trusted != "[]";
        assert_eq!(text.contains("x-forwarded-proto: https\n"), believed, "{trusted}: {text}");
        assert_eq!(text.contains("x-forwarded-host: claimed\n"), believed, "{trusted}: {text}");
    }
}

#[tokio::test]
async fn a_websocket_is_upgraded_and_then_relayed() {
    let upstream = websocket(1).await;
    let gateway = forwarding(&upstream);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    converse(&mut socket).await;
    drop(socket);
    let entry = gateway.wait_for_access("/chat");
    assert_eq!((entry["status"].as_u64(), entry["bytes_received"].as_u64()), (Some(101), Some(4)));
}

#[tokio::test]
async fn an_upgrade_is_repeated_on_a_connection_that_cannot_be_stale() {
    let upstream = websocket(2).await;
    let (between, cutter) = Upstream::cutting(upstream.address).await;
    let config = format!("runtime: {{ workers: 1 }}\n{}", forwarding_config(&between, ""));
    let gateway = Setup::new().config(config).start();
    // Two connections that are idle, of which both are cut when they are used again.
    let idle = || async { get(gateway.address("web"), "/plain").await.status };
    assert_eq!(tokio::join!(idle(), idle()), (StatusCode::OK, StatusCode::OK));
    cutter.cut();
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    converse(&mut socket).await;
}

#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_the_101() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::new(move |mut socket| {
        let tell = tell.clone();
        async move {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") && socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0)
            {
            }
            // It does not change the protocol, so what comes next is no word of a new one.
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = socket.read_to_end(&mut seen).await;
            let _ = tell.send(seen);
        }
    })
    .await;
    let gateway = forwarding(&upstream);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answers = String::new();
    soon("both answers", socket.read_to_string(&mut answers)).await.expect("they come");
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 400 "), "{answers}");
    drop(gateway);
    let seen = soon("the upstream's end", told.recv()).await.expect("a connection");
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("GET / HTTP/1.1\r\n") && !seen.contains("smuggled"), "{seen}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_end_in_order_for_a_client_that_reads_until_the_end() {
    let upstream = Upstream::new(|mut socket| async move {
        read_head(&mut socket).await;
        let _ =
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    })
    .await;
    let gateway = forwarding(&upstream);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    // Without chunks, the end of the connection is the end of the body.
    socket.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let ended = soon("the end", socket.read_to_end(&mut answer)).await;
    assert!(ended.is_err(), "it looks complete: {}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_time_limit_of_zero_is_none() {
    let mirror = mirror().await;
    let limits =
        ", idle_timeout: 0s, request_headers_timeout: 0s, request_timeout: 0s, stream_idle_timeout: 0s";
    let gateway = Setup::new().config(forwarding_config(&mirror, limits)).start();
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    for path in ["/one", "/two"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        for part in request.as_bytes().chunks(10) {
            socket.write_all(part).await.expect("sent");
            // Long enough for a deadline of the coarse clock to pass.
            get(gateway.address("web"), "/meanwhile").await;
        }
        assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
        // The body of the mirror's answer is what it got.
        let mut body = Vec::new();
        while !body.ends_with(b"\n\n") {
            body.push(soon("the body", socket.read_u8()).await.expect("a byte"));
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_the_sender_and_memory_stays_flat() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let upstream = Upstream::new(move |mut socket| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut socket).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await;
            let block = vec![7; 1 << 16];
            while let Ok(written) = socket.write(&block).await {
                count.fetch_add(written as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    let gateway = forwarding(&upstream);
    let before = gateway.resident();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
        stalled.push(socket);
    }
    // When the upstream can write no more, everything in between is full.
    let (mut last, mut looks) = (0, 0);
    until("the upstream to be held up", async || {
        let now = sent.load(Ordering::SeqCst);
        looks = if now > 0 && now == last { looks + 1 } else { 0 };
        last = now;
        (looks == 20).then_some(())
    })
    .await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    // What the kernel's buffers hold, on the way from the upstream and on the way to the client.
    assert!(last < 8 * (16 << 20), "{last} bytes were taken that nobody reads");
}

#[tokio::test]
async fn an_early_answer_reaches_the_client_while_it_is_still_sending() {
    let upstream = upstream(|_request: Request<hyper::body::Incoming>| async move {
        Response::builder()
            .status(413)
            .header("connection", "close")
            .body(full("too much"))
            .expect("a response")
    })
    .await;
    let gateway = forwarding(&upstream);
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbegin")
        .await
        .expect("sent");
    let mut head = vec![0; 12];
    soon("the status", socket.read_exact(&mut head)).await.expect("it comes");
    assert_eq!(&head, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_gibibyte_streams_both_ways_while_memory_stays_flat() {
    const BLOCK: usize = 1 << 20;
    const BLOCKS: usize = 1 << 10;
    let upstream = Upstream::new(|mut socket| async move {
        // Echoes a body of known length.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a request"));
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BLOCK * BLOCKS);
        socket.write_all(answer.as_bytes()).await.expect("sent");
        let (mut read, mut write) = socket.split();
        let _ =
            tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(BLOCK, &mut read), &mut write).await;
    })
    .await;
    let gateway = forwarding(&upstream);
    // Warm, so that what is counted is the streaming.
    let socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    let (mut read, mut write) = socket.into_split();
    let before = gateway.resident();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BLOCK * BLOCKS);
        write.write_all(head.as_bytes()).await.expect("sent");
        let block = vec![7; BLOCK];
        for _ in 0..BLOCKS {
            write.write_all(&block).await.expect("sent");
        }
        write
    });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the head", read.read_u8()).await.expect("a byte"));
    }
    let mut block = vec![0; BLOCK];
    let mut most = before;
    for number in 0..BLOCKS {
        soon("a block", read.read_exact(&mut block)).await.expect("the echo");
        assert!(block.iter().all(|byte| *byte == 7), "block {number} was changed");
        if number % 64 == 0 {
            most = most.max(gateway.resident());
        }
    }
    sending.await.expect("sent");
    let growth = most.saturating_sub(before);
    assert!(growth < 32 << 20, "memory grew by {} MiB", growth >> 20);
}

#[tokio::test]
async fn requests_are_told_in_the_access_log_with_all_that_is_known() {
    let mirror = mirror().await;
    let gateway = forwarding(&mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let request =
        client.request("POST", "/x?y=1").header("x-request-id", "id-7").body(full(Bytes::from("hello")));
    client.call(request.expect("a request")).await.expect("an answer");
    let entry = gateway.wait_for_access("id-7");
    for (field, value) in [
        ("listener", "web"),
        ("method", "POST"),
        ("authority", "example.com"),
        ("path", "/x?y=1"),
        ("protocol", "HTTP/1.1"),
        ("route", "routes[0]"),
        ("cluster", "up"),
    ] {
        assert_eq!(entry[field], value, "{field} in {entry}");
    }
    assert_eq!((entry["status"].as_u64(), entry["bytes_received"].as_u64()), (Some(200), Some(5)));
    assert_eq!(entry["upstream"], mirror.address.to_string());
    assert!(
        entry["duration_ms"].as_f64().expect("a number") >= entry["upstream_ms"].as_f64().expect("a number")
    );
}
