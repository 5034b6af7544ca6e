//! Deadlines and limits: whoever is slow is not waited for for ever, and nobody has more connections than they may.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weir_tests::http::{Client, asking, empty, full, get, mirror, read_head};
use weir_tests::tls::certificate;
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// A gateway whose listeners have this in their `http`, and lead to one upstream.
fn gateway(upstream: &Upstream, http: &str) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] {http} }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().config(config).start()
}

/// Sends bytes one by one, a few milliseconds apart, until the connection ends, and returns what came on it.
async fn drip(mut socket: TcpStream, byte: &[u8]) -> String {
    let (mut read, mut write) = socket.split();
    let dripping = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while write.write_all(byte).await.is_ok() {
            tick.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset after the answer is an end, too.
        _ = soon("the end of the connection", read.read_to_end(&mut answer)) => {}
        () = dripping => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client that has said so much already.
async fn said(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(bytes.as_ref()).await.expect("sent");
    socket
}

const POST: &str = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
const CHUNKED: &str = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn every_limit_has_its_default_and_is_shown_with_what_is_in_force() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, ", min_request_body_rate: 1KiB");
    let shown = gateway.admin("GET", "/config").await.json();
    let config = &shown["config"];
    let listener = &config["listeners"][0];
    for (section, field, value) in [
        (listener, "max_connections", "10000"),
        (listener, "max_connections_per_client", "0"),
        (listener, "handshake_timeout", "\"10s\""),
        (listener, "tcp_idle_timeout", "\"1h\""),
        (&listener["http"], "max_header_bytes", "\"60KiB\""),
        (&listener["http"], "max_headers", "100"),
        (&listener["http"], "max_target", "\"16KiB\""),
        (&listener["http"], "max_buffered_body", "\"1MiB\""),
        (&listener["http"], "request_headers_timeout", "\"10s\""),
        (&listener["http"], "request_timeout", "\"5m\""),
        (&listener["http"], "idle_timeout", "\"1h\""),
        (&listener["http"], "stream_idle_timeout", "\"5m\""),
        (&listener["http"], "min_request_body_rate", "\"1KiB\""),
        (&listener["http"], "min_response_body_rate", "\"240B\""),
        (&listener["http"], "body_rate_grace_period", "\"5s\""),
        (&listener["http"], "per_connection_buffer_limit", "\"64KiB\""),
        (&listener["http"], "initial_stream_window_size", "\"64KiB\""),
        (&listener["http"], "initial_connection_window_size", "\"1MiB\""),
        (&listener["http"], "max_concurrent_streams", "100"),
        (&listener["http"], "headers_with_underscores_action", "\"reject\""),
        (&listener["http"], "normalize_path", "true"),
        (&listener["http"], "merge_slashes", "true"),
        (&listener["http"], "path_with_escaped_slashes_action", "\"unescape_and_redirect\""),
        (&listener["http"]["routes"][0], "timeout", "\"15s\""),
        (&config["clusters"][0], "connect_timeout", "\"15s\""),
        (&config["clusters"][0], "per_connection_buffer_limit", "\"64KiB\""),
        (&config["overload"], "max_connections", "50000"),
        (&config["overload"], "max_loop_delay", "\"2s\""),
        (&config["overload"], "refresh_interval", "\"250ms\""),
        (&config["overload"], "disable_keepalive", "\"92%\""),
        (&config["overload"], "stop_accepting_requests", "\"95%\""),
        (&config["overload"], "stop_accepting_connections", "\"97%\""),
        (&config["overload"], "reset_streams", "\"99%\""),
        (config, "drain_timeout", "\"5s\""),
    ] {
        assert_eq!(section[field].to_string(), value, "{field}");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_408_and_a_connection_that_says_nothing_is_closed() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, ", request_headers_timeout: 200ms, idle_timeout: 200ms");
    let socket = said(gateway.address("web"), "GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let answer = drip(socket, b"1").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(gateway.wait_for_access("\"status\":408")["reason"], "request_timeout");
    let mut silent = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    assert_eq!(soon("the end", silent.read(&mut [0; 100])).await.expect("in order"), 0);
    // So is one that says nothing more.
    let mut socket = said(gateway.address("web"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_head(&mut socket).await;
    soon("the end", socket.read_to_end(&mut Vec::new())).await.expect("in order");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408_and_closed() {
    let (upstream, _asked) = asking().await;
    let slow = ", min_request_body_rate: 1KiB, body_rate_grace_period: 300ms";
    let gateway = gateway(&upstream, slow);
    // Nothing moves, or a little, which is no idleness, but too little.
    for (request, byte, path) in [(POST, "x", "/body"), (CHUNKED, "1\r\nx\r\n", "/chunks")] {
        let answer = drip(said(gateway.address("web"), request).await, byte.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
        assert_eq!(gateway.wait_for_access(path)["reason"], "request_body_too_slow");
    }
    let mut silent = said(gateway.address("web"), POST.replace("/body", "/silent")).await;
    assert!(read_head(&mut silent).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_client_is_waited_for_no_longer_because_a_filter_wants_its_body() {
    let mirror = mirror().await;
    let gateway = Setup::new().plugin("replies").config(format!(
        "plugins: {{ directory: plugins, cache: cache, defaults: {{ pause_timeout: 1h }} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ min_request_body_rate: 1KiB, \
           body_rate_grace_period: 300ms, filters: [ {{ plugin: replies, allow_on_headers_stop_iteration: true }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    ));
    let gateway = gateway.start();
    // It holds the headers, and is shown the body that does not come.
    let request = POST.replace("Content", "X-Reply-In: never\r\nContent");
    let mut silent = said(gateway.address("web"), request).await;
    assert!(read_head(&mut silent).await.starts_with("HTTP/1.1 408 "));
    assert_eq!(gateway.wait_for_access("/body")["reason"], "request_body_too_slow");
}

#[tokio::test]
async fn a_client_is_not_slow_while_the_upstream_is() {
    // Reads nothing until it is told to.
    let (tell, told) = tokio::sync::watch::channel(false);
    let upstream = Upstream::new(move |mut socket| {
        let mut told = told.clone();
        async move {
            let _ = told.wait_for(|told| *told).await;
            let mut left = 8 << 20;
            read_head(&mut socket).await;
            let mut block = vec![0; 1 << 16];
            while left > 0 {
                match socket.read(&mut block).await {
                    // A request that was refused. To read on would take a core for as long as the suite runs.
                    Ok(0) | Err(_) => return,
                    Ok(read) => left -= read.min(left),
                }
            }
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = socket.read(&mut block).await;
        }
    })
    .await;
    let gateway = gateway(&upstream, ", min_request_body_rate: 1KiB, body_rate_grace_period: 300ms");
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/").body(full(vec![7; 8 << 20])).expect("a request");
    let calling = tokio::spawn(async move { client.call(request).await.expect("an answer").status });
    // Longer than anybody may be slow: others are refused for it one after the other.
    for _ in 0..3 {
        let mut slow = said(gateway.address("web"), POST).await;
        assert!(read_head(&mut slow).await.starts_with("HTTP/1.1 408 "));
    }
    tell.send(true).expect("the upstream waits");
    assert_eq!(soon("the answer", calling).await.expect("no panic"), 200);
}

#[tokio::test]
async fn streams_of_grpc_may_be_silent_and_bodies_of_known_length_through_http2_may_not() {
    let (upstream, mut asked) = asking().await;
    let gateway = gateway(&upstream, ", min_request_body_rate: 1KiB, body_rate_grace_period: 200ms");
    let mut client = Client::h2(gateway.address("web")).await;
    let (feed, body) = weir_tests::http::fed();
    let request = client.request("POST", "/stream").body(body).expect("a request");
    let mut streaming = Client::h2(gateway.address("web")).await;
    let call = tokio::spawn(async move { streaming.call(request).await.expect("an answer").status });
    let (_, answer) = soon("the stream", asked.recv()).await.expect("a request");
    for path in ["/one", "/two"] {
        let (_feed, body) = weir_tests::http::fed();
        let request = client.request("POST", path).header("content-length", "10").body(body);
        let refused = client.call(request.expect("a request")).await.expect("an answer");
        assert_eq!(refused.status, 408, "{path}");
        assert_eq!(gateway.wait_for_access(path)["reason"], "request_body_too_slow");
    }
    drop(feed);
    answer.send(http::Response::new(empty())).expect("the upstream waits");
    assert_eq!(soon("the answer", call).await.expect("no panic"), 200);
}

#[tokio::test]
async fn a_client_that_takes_an_answer_too_slowly_is_cut_off() {
    let upstream = Upstream::new(|mut socket| async move {
        read_head(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while socket.write_all(b"5\r\nhello\r\n").await.is_ok() {}
    })
    .await;
    let gateway = gateway(&upstream, ", min_response_body_rate: 1GiB, body_rate_grace_period: 200ms");
    for h2 in [false, true] {
        if h2 {
            let mut client = Client::h2(gateway.address("web")).await;
            let request = client.request("GET", "/h2").body(empty()).expect("a request");
            let _unread = client.send(request).await.expect("a head");
            assert_eq!(gateway.wait_for_access("/h2")["reason"], "response_body_too_slow");
        } else {
            let _unread = said(gateway.address("web"), "GET /h1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(gateway.wait_for_access("/h1")["reason"], "response_body_too_slow");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_given_up_and_so_is_a_relay_that_is_silent() {
    let certificate = certificate(&["a.example"]);
    let echo = Upstream::echo().await;
    let config = format!(
        "listeners:\n\
         - {{ name: tls, address: \"127.0.0.1:0\", handshake_timeout: 200ms, tls: {{ mode: terminate, \
             certificates: [ {{ cert: a.pem, key: a.key }} ] }}, http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         - {{ name: sni, address: \"127.0.0.1:0\", handshake_timeout: 200ms, tls: {{ mode: passthrough }}, tcp: {{ cluster: up }} }}\n\
         - {{ name: tcp, address: \"127.0.0.1:0\", tcp_idle_timeout: 200ms, tcp: {{ cluster: up }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        echo.address
    );
    let setup = Setup::new().file("a.pem", &certificate.cert).file("a.key", &certificate.key);
    let gateway = setup.config(config).start();
    for (listener, reason) in
        [("tls", "handshake_timeout"), ("sni", "client_hello_timeout"), ("tcp", "idle_timeout")]
    {
        let mut socket = said(gateway.address(listener), "\x16").await;
        let _ = soon("the end", socket.read_to_end(&mut Vec::new())).await;
        assert_eq!(gateway.wait_for_access(reason)["listener"], listener);
    }
}

#[tokio::test]
async fn bodies_pass_whole_through_the_smallest_buffers() {
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], \
           per_connection_buffer_limit: 1B, initial_stream_window_size: 1KiB, initial_connection_window_size: 64KiB }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], per_connection_buffer_limit: 1B }} ]",
        mirror.address
    );
    let gateway = Setup::new().config(config).start();
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    for h2 in [false, true] {
        let address = gateway.address("web");
        let mut client = if h2 { Client::h2(address).await } else { Client::h1(address).await };
        let request = client.request("POST", "/").body(full(body.clone())).expect("a request");
        let answer = client.call(request).await.expect("an answer");
        assert!(answer.text().ends_with(&format!("\n\n{body}")), "{h2}");
    }
}

/// Whether a connection from an address is served: a request on it is answered. What is returned keeps it open.
async fn served(address: SocketAddr, from: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from: IpAddr = from.parse().expect("an address");
    socket.bind((from, 0).into()).expect("a loopback address");
    let mut socket = socket.connect(address).await.ok()?;
    socket.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
    let mut byte = [0];
    soon("an answer or the end", socket.read(&mut byte)).await.ok().filter(|read| *read > 0)?;
    Some(socket)
}

async fn closed(gateway: &Gateway, listener: &str, reason: &str) -> u64 {
    let series = format!("weir_listener_closed_total{{listener=\"{listener}\",reason=\"{reason}\"}} ");
    let text = gateway.admin("GET", "/metrics").await.text();
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("the series is there")
}

#[tokio::test]
async fn a_listener_a_client_and_the_process_have_as_many_connections_as_they_may() {
    let config = "overload: { max_connections: 5 }\n\
         listeners:\n\
         - { name: few, address: \"127.0.0.1:0\", max_connections: 2, http: { routes: [ { respond: { status: 200 } } ] } }\n\
         - { name: each, address: \"127.0.0.1:0\", max_connections_per_client: 2, http: { routes: [ { respond: { status: 200 } } ] } }\n";
    let gateway = Setup::new().config(config).start();
    let (few, each) = (gateway.address("few"), gateway.address("each"));
    let one = served(few, "127.0.0.1").await.expect("the first");
    let two = served(few, "127.0.0.2").await.expect("the second");
    assert!(served(few, "127.0.0.3").await.is_none(), "the listener is full");
    assert_eq!(closed(&gateway, "few", "listener_connection_limit").await, 1);
    let three = served(each, "127.0.0.1").await.expect("the first of this client");
    let four = served(each, "127.0.0.1").await.expect("its second");
    assert!(served(each, "127.0.0.1").await.is_none(), "the client has as many as it may");
    assert_eq!(closed(&gateway, "each", "client_connection_limit").await, 1);
    let five = served(each, "127.0.0.2").await.expect("another client");
    assert!(served(each, "127.0.0.3").await.is_none(), "the process has as many as it may");
    assert_eq!(closed(&gateway, "each", "connection_limit").await, 1);
    // Limits outlive a reload, with what they count.
    gateway.write_config(&config.replace("max_connections: 5", "max_connections: 50"));
    gateway.wait_for_log("the configuration is in force");
    assert!(served(few, "127.0.0.1").await.is_none(), "the listener is still full");
    // What goes makes room.
    drop((one, two, three, four, five));
    until("room", async || served(few, "127.0.0.1").await).await;
    until("room", async || served(each, "127.0.0.1").await).await;
    assert_eq!(get(each, "/").await.status, 200);
}
