//! What two readers could read in two ways is refused before anything is forwarded, and what is served reaches the
//! upstream in one spelling.

mod accepted;
mod escaped_slashes;
mod refused;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use weir_tests::http::{Client, empty, get, mirror, raw, read_head};
use weir_tests::puppet;
use weir_tests::tls::{authority, certificate, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

use accepted::{SERVED, Served};
use refused::{CHUNKS, FIELDS, FRAMING, HOSTS, LINES, PATHS, Refused, TRAILERS};

/// What comes behind a request that is refused, and must not be read as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// An upstream that counts its connections, answers on each once as many bytes have come as it is told to wait for, and
/// tells all that came on it.
pub struct Recorder {
    pub upstream: Upstream,
    pub connections: Arc<AtomicUsize>,
    pub wait_for: watch::Sender<usize>,
    told: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Recorder {
    pub async fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let (wait_for, waiting) = watch::channel(usize::MAX);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let upstream = Upstream::new(move |mut socket| {
            counted.fetch_add(1, Ordering::SeqCst);
            let (tell, wait_for) = (tell.clone(), *waiting.borrow());
            async move {
                let mut seen = Vec::new();
                while seen.len() < wait_for && socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = socket.write_all(answer).await;
                // What came before a reset was received all the same.
                let _ = socket.read_to_end(&mut seen).await;
                let _ = tell.send(seen);
            }
        });
        Self { upstream: upstream.await, connections, wait_for, told }
    }

    /// What came on the next connection.
    pub async fn next(&mut self) -> String {
        let seen = soon("the upstream's end", self.told.recv()).await.expect("a connection");
        String::from_utf8(seen).expect("text")
    }
}

/// A gateway with a listener for each of some sections of `http`, which all lead to one upstream.
fn gateway(upstream: &Upstream, listeners: &[(&str, &str)]) -> Gateway {
    let listeners: Vec<String> = listeners
        .iter()
        .map(|(name, http)| {
            format!(
                "{{ name: {name}, address: \"127.0.0.1:0\", http: {{ {http} routes: [ {{ cluster: up }} ] }} }}"
            )
        })
        .collect();
    let clusters = format!("clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]", upstream.address);
    Setup::new().config(format!("listeners: [ {} ]\n{clusters}", listeners.join(", "))).start()
}

/// How often a listener has refused for a reason.
async fn refusals(gateway: &Gateway, listener: &str, reason: &str) -> u64 {
    let series = format!("weir_http_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}} ");
    let text = gateway.admin("GET", "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series}"))
}

/// Sends a request that is refused, and looks at the answer, the connection and the metric.
async fn refuse(gateway: &Gateway, listener: &str, (section, request, status, reason): Refused) {
    let told = format!("RFC {section}: {}", request.escape_debug());
    let before = refusals(gateway, listener, reason).await;
    // It ends when the gateway closes.
    let answer = raw(gateway.address(listener), format!("{request}{SMUGGLED}")).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{told}: {answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{told}: {answer}");
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "one answer, and no second: {told}: {answer}");
    assert_eq!(refusals(gateway, listener, reason).await, before + 1, "{reason}: {told}");
}

#[tokio::test]
async fn what_is_ambiguous_is_refused_closed_and_counted_by_reason_and_the_upstream_sees_nothing() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, &[("web", "")]);
    let cases: Vec<Refused> = [LINES, HOSTS, FIELDS, FRAMING, PATHS].concat();
    assert!(cases.len() > 150, "{} cases", cases.len());
    for case in cases {
        refuse(&gateway, "web", case).await;
        assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw {case:?}");
    }
    // Nothing is on its way either: what comes next is the first that it sees.
    recorder.wait_for.send(1).expect("the upstream is there");
    assert_eq!(get(gateway.address("web"), "/after").await.status, 200);
    assert!(recorder.next().await.starts_with("GET /after HTTP/1.1\r\n"));
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn limits_of_a_head_are_431_and_414_and_can_be_set() {
    let recorder = Recorder::new().await;
    let tight = "max_header_bytes: 1KiB, max_headers: 4, max_target: 64B,";
    let gateway = gateway(&recorder.upstream, &[("web", ""), ("tight", tight)]);
    let line = |len| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len));
    let value = |len| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(len));
    let fields = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(count));
    for (listener, request, status, reason) in [
        ("web", line(16 << 10), 414, "target_too_long"),
        ("web", line(70 << 10), 414, "target_too_long"),
        ("web", value(60 << 10), 431, "head_too_large"),
        ("web", value(500 << 10), 431, "head_too_large"),
        ("web", fields(100), 431, "too_many_fields"),
        ("tight", line(64), 414, "target_too_long"),
        ("tight", line(2 << 10), 414, "target_too_long"),
        ("tight", value(1 << 10), 431, "head_too_large"),
        ("tight", fields(4), 431, "too_many_fields"),
        // A line that never ends.
        ("tight", "G".repeat(2 << 10), 414, "target_too_long"),
    ] {
        refuse(&gateway, listener, ("9110 15.5", request.leak(), status, reason)).await;
    }
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw something");
    recorder.wait_for.send(1).expect("the upstream is there");
    for (listener, request) in [
        ("web", line((16 << 10) - 1)),
        ("web", value((60 << 10) - 40)),
        ("web", fields(99)),
        ("tight", line(63)),
        ("tight", fields(3)),
    ] {
        let mut socket = TcpStream::connect(gateway.address(listener)).await.expect("it listens");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_head(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{listener}: {answer}");
    }
}

#[tokio::test]
async fn a_malformed_body_is_400_and_closed_and_never_looks_complete_to_the_upstream() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, &[("web", "")]);
    let chunks = CHUNKS.iter().map(|(what, body)| (*what, (*body).to_owned(), "malformed_chunk"));
    let trailers =
        TRAILERS.iter().map(|(what, end)| (*what, format!("5\r\nhello\r\n0\r\n{end}"), "malformed_trailers"));
    for (what, body, reason) in chunks.chain(trailers) {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request: &str = format!("{head}{body}").leak();
        refuse(&gateway, "web", ("9112 7.1", request, 400, reason)).await;
        let seen = recorder.next().await;
        let (head, body) = seen.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.is_empty() || head.contains("transfer-encoding: chunked"), "{what}: {seen}");
        assert!(!body.contains("0\r\n") && !seen.contains("smuggled"), "{what}: {seen}");
    }
}

#[tokio::test]
async fn what_is_served_reaches_the_upstream_in_one_spelling_byte_for_byte() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, &[("web", "")]);
    for case in SERVED {
        let Served { what, line, fields, body, seen_line, seen_fields, seen_framing, seen_body } = case;
        let host = if line.contains("://A") { "A" } else { "a" };
        let expected = format!(
            "{seen_line} HTTP/1.1\r\nhost: {host}\r\n{seen_fields}x-request-id: 7\r\nx-forwarded-for: 127.0.0.1\r\n\
             x-forwarded-proto: http\r\n{seen_framing}\r\n{seen_body}"
        );
        recorder.wait_for.send(expected.len()).expect("the upstream is there");
        let request = format!(
            "{line}\r\nHost: {host}\r\n{fields}X-Request-Id: 7\r\nConnection: close\r\n\r\n{body}{SMUGGLED}"
        );
        let answer = raw(gateway.address("web"), request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
        let seen = recorder.next().await;
        assert_eq!(sorted(&seen), sorted(&expected), "{what}: {seen}");
    }
}

/// A message whose fields are in the order of their names: that of different names says nothing.
pub fn sorted(message: &str) -> (Vec<&str>, &str) {
    let (head, body) = message.split_once("\r\n\r\n").expect("a whole head");
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    if let Some(fields) = lines.get_mut(2..) {
        fields.sort_by_key(|line| line.split(':').next());
    }
    (lines, body)
}

#[tokio::test]
async fn underscores_in_names_are_refused_dropped_or_allowed_as_configured() {
    let mirror = mirror().await;
    let action = |word: &str| format!("headers_with_underscores_action: {word},");
    let (drop, allow) = (action("drop"), action("allow"));
    let gateway = gateway(&mirror, &[("web", ""), ("drop", &drop), ("allow", &allow)]);
    for (listener, status, seen) in [("web", 400, false), ("drop", 200, false), ("allow", 200, true)] {
        for h2 in [false, true] {
            let address = gateway.address(listener);
            let mut client = if h2 { Client::h2(address).await } else { Client::h1(address).await };
            let request = client.request("GET", "/").header("a_b", "1").header("a-b", "2").body(empty());
            let answer = client.call(request.expect("a request")).await.expect("an answer");
            assert_eq!(answer.status, status, "{listener} {h2}");
            let text = answer.text();
            assert_eq!(text.contains("a_b: 1\n"), seen, "{listener} {h2}: {text}");
            assert_eq!(text.contains("a-b: 2\n"), status == 200, "{listener} {h2}: {text}");
        }
    }
    assert_eq!(refusals(&gateway, "web", "underscore_in_name").await, 2);
}

#[tokio::test]
async fn what_is_done_to_paths_is_a_matter_of_configuration() {
    let mirror = mirror().await;
    let gateway = gateway(
        &mirror,
        &[
            ("keep", "path_with_escaped_slashes_action: keep,"),
            ("forward", "path_with_escaped_slashes_action: unescape_and_forward,"),
            ("apart", "merge_slashes: false,"),
            ("dots", "normalize_path: false, path_with_escaped_slashes_action: keep,"),
            ("raw", "normalize_path: false, merge_slashes: false, path_with_escaped_slashes_action: keep,"),
        ],
    );
    for (listener, path, expected) in [
        ("keep", "/a%2f..%5c//b", "/a%2F..%5C/b"),
        ("forward", "/a%2f..%5c//b%2Fc", "/b/c"),
        ("forward", "/public%2f..%2fadmin", "/admin"),
        ("apart", "//a//./b", "//a//b"),
        ("dots", "//a/../%41%2f", "/a/../%41%2f"),
        ("raw", "//a/../%41%2f", "//a/../%41%2f"),
    ] {
        for h2 in [false, true] {
            let address = gateway.address(listener);
            let mut client = if h2 { Client::h2(address).await } else { Client::h1(address).await };
            let text = client.get(path).await.text();
            assert!(text.starts_with(&format!("GET {expected} ")), "{listener} {h2} {path}: {text}");
        }
    }
}

#[tokio::test]
async fn routes_filters_the_access_log_and_the_upstream_see_the_same_path() {
    let mirror = mirror().await;
    let script = puppet::read("request_headers", &["request.path", "request.url_path"]);
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ path_with_escaped_slashes_action: unescape_and_forward, \
           filters: [ {} ], routes: [ {{ match: {{ path_prefix: /admin }}, respond: {{ status: 403 }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        puppet::filter(&script),
        mirror.address
    );
    let gateway = Setup::new().plugin("puppet").config(config).start();
    // Whatever the spelling, it is the path that the route forbids.
    for path in
        ["/admin", "//admin", "/x/../admin", "/x%2f..%2fadmin", "/%61dmin", "/x/%2e%2e/admin", "/./admin/"]
    {
        assert_eq!(get(gateway.address("web"), path).await.status, 403, "{path}");
    }
    let text = get(gateway.address("web"), "/a//b/%2e%2E/%63%2fd?e=//../f").await.text();
    assert!(text.starts_with("GET /a/c/d?e=//../f "), "{text}");
    assert_eq!(gateway.wait_for_access("?e=")["path"], "/a/c/d?e=//../f");
    assert_eq!(puppet::results(&gateway, 8, "request_headers"), ["0 \"/a/c/d?e=//../f\"", "0 \"/a/c/d\""]);
}

/// An upstream that says more than it was asked for: behind each answer, of `len` bytes with its head, comes another.
async fn talkative(len: usize, tls: bool) -> (Upstream, Arc<AtomicUsize>) {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 00000\r\n\r\n";
    let body = len - head.len();
    let answer = format!(
        "{}{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        head.replace("00000", &format!("{body:05}")),
        "o".repeat(body)
    );
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let config = server_config(&certificate(&["up.example"]), false, &[]);
    let upstream = Upstream::new(move |socket| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (answer, config) = (answer.clone(), config.clone());
        async move {
            if tls {
                let stream = weir_tests::tls::accept(socket, config).await.expect("a handshake");
                talk(stream, &answer).await;
            } else {
                talk(socket, &answer).await;
            }
        }
    });
    (upstream.await, connections)
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let mut seen = Vec::new();
    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
        }
    }
}

#[tokio::test]
async fn an_upstream_connection_with_surplus_bytes_carries_no_further_request() {
    // With 8 KiB the answer ends where a read does, so that TLS has more that nobody has asked it for.
    for (len, tls) in [(100, false), (8 << 10, false), (100, true), (8 << 10, true), (16 << 10, true)] {
        let (upstream, connections) = talkative(len, tls).await;
        let through = if tls { ", tls: { ca: ca.pem, sni: up.example }" } else { "" };
        let config = format!(
            "runtime: {{ workers: 1 }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"], protocol: http1{through} }} ]",
            upstream.address
        );
        let gateway = Setup::new().file("ca.pem", authority().pem()).config(config).start();
        let mut client = Client::h1(gateway.address("web")).await;
        for _ in 0..5 {
            let answer = client.get("/").await;
            assert!(answer.status == 200 && answer.body.iter().all(|byte| *byte == b'o'), "{len} {tls}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 5, "each has carried one request: {len} {tls}");
    }
}
