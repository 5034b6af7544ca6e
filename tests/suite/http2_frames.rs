//! HTTP/2 by hand: what breaks it is refused before anything is forwarded, what is served reaches an HTTP/1 upstream as
//! one request in one spelling, and what floods is cut off while others are served.

mod costs;
mod ends;
mod floods;
mod requests;
mod served;
mod wire;

use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use weir_tests::frames::{Fate, Peer, block, get, request};
use weir_tests::http::Client;
use weir_tests::tls::{authority, certificate, client_config, connect};
use weir_tests::upstream::Upstream;
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

use crate::strictness::{Recorder, sorted};
use requests::{Change, FIELDS, PSEUDO, Refused, TARGETS};
use served::{SERVED, Served};

/// A gateway with two listeners, `web` in the clear and `tls`, with these fields in their section `http`.
fn gateway(upstream: &Upstream, http: &str) -> Gateway {
    let own = certificate(&["a"]);
    let (http, address) = (format!("http: {{ {http} routes: [ {{ cluster: up }} ] }}"), upstream.address);
    let tls = "tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ] }";
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners:\n\
         - {{ name: web, address: \"127.0.0.1:0\", {http} }}\n\
         - {{ name: tls, address: \"127.0.0.1:0\", {tls}, {http} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{address}\"] }} ]"
    );
    Setup::new().file("a.pem", own.cert).file("a.key", own.key).config(config).start()
}

/// A connection to a listener, with prior knowledge or by ALPN, on which nothing was said.
async fn open(gateway: &Gateway, listener: &str) -> Peer {
    let address = gateway.address(listener);
    if listener == "tls" {
        let stream = connect(address, "a", client_config(None, &["h2"])).await.expect("a handshake");
        return Peer::over(stream);
    }
    Peer::over(TcpStream::connect(address).await.expect("it listens"))
}

/// One that begins in order.
async fn begin(gateway: &Gateway, listener: &str) -> Peer {
    let mut peer = open(gateway, listener).await;
    peer.send(&[weir_tests::frames::PREFACE, &weir_tests::frames::frame(4, 0, 0, &[])].concat()).await;
    peer
}

/// How often a listener has refused or closed for a reason.
async fn counted(gateway: &Gateway, listener: &str, reason: &str) -> u64 {
    let labels = format!("{{listener=\"{listener}\",reason=\"{reason}\"}} ");
    let series =
        ["weir_http_refused_total", "weir_listener_closed_total"].map(|name| format!("{name}{labels}"));
    let text = gateway.admin("GET", "/metrics").await.text();
    let value = text.lines().find_map(|line| series.iter().find_map(|series| line.strip_prefix(series)));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no reason {reason}"))
}

/// Waits until that is so.
async fn wait_counted(gateway: &Gateway, listener: &str, reason: &str, count: u64) {
    let asked = async || (counted(gateway, listener, reason).await == count).then_some(());
    until(&format!("{reason} to be counted {count} times"), asked).await;
}

/// Sends what is refused, and looks at what becomes of it, of the connection, and of the metric.
async fn refuse(gateway: &Gateway, listener: &str, told: &str, bytes: &[u8], fate: &Fate, reason: &str) {
    let before = counted(gateway, listener, reason).await;
    let mut peer = begin(gateway, listener).await;
    peer.send(bytes).await;
    assert_eq!(&peer.fate(1).await, fate, "{told}");
    match fate {
        Fate::Status(_) | Fate::Reset(_) => assert!(peer.is_alive().await, "the connection goes on: {told}"),
        Fate::GoAway(_) | Fate::Closed => assert_eq!(peer.next().await, None, "nothing follows: {told}"),
    }
    wait_counted(gateway, listener, reason, before + 1).await;
}

/// The fields of a GET with some changes.
fn fields(changes: &[Change]) -> Vec<(&'static str, &'static [u8])> {
    let plain: [(&str, &[u8]); 4] =
        [(":method", b"GET"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/")];
    let mut fields = plain.to_vec();
    for change in changes {
        match *change {
            Change::Add(name, value) if name.starts_with(':') && !fields.iter().any(|(n, _)| *n == "x") => {
                let at = fields.iter().take_while(|(name, _)| name.starts_with(':')).count();
                fields.insert(at, (name, value));
            }
            Change::Add(name, value) => fields.push((name, value)),
            Change::Set(name, value) => {
                fields.iter_mut().filter(|(known, _)| *known == name).for_each(|field| field.1 = value);
            }
            Change::Drop(name) => fields.retain(|(known, _)| *known != name),
            Change::All(all) => fields = all.to_vec(),
        }
    }
    fields
}

#[tokio::test]
async fn malformed_requests_are_refused_and_counted_by_reason_and_the_upstream_sees_nothing() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "");
    let cases: Vec<Refused> = [PSEUDO, TARGETS, FIELDS].concat();
    assert!(cases.len() > 80, "{} cases", cases.len());
    for listener in ["web", "tls"] {
        for (section, changes, fate, reason) in &cases {
            let told = format!("{listener}: RFC {section}: {changes:?}");
            refuse(&gateway, listener, &told, &request(1, &fields(changes)), fate, reason).await;
            assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw {told}");
        }
    }
    saw_nothing(&gateway, &mut recorder).await;
}

/// Whether the next request is the first that an upstream sees.
async fn saw_nothing(gateway: &Gateway, recorder: &mut Recorder) {
    recorder.wait_for.send(1).expect("the upstream is there");
    let mut client = Client::h2(gateway.address("web")).await;
    assert_eq!(client.get("/after").await.status, 200);
    assert!(recorder.next().await.starts_with("GET /after HTTP/1.1\r\n"));
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn frames_that_break_the_protocol_are_refused_and_the_upstream_sees_nothing() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "");
    let cases = wire::broken();
    assert!(cases.len() > 40, "{} cases", cases.len());
    for listener in ["web", "tls"] {
        for (section, what, bytes, fate, reason) in &cases {
            let told = format!("{listener}: RFC {section}: {what}");
            refuse(&gateway, listener, &told, bytes, fate, reason).await;
            assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw {told}");
        }
    }
    saw_nothing(&gateway, &mut recorder).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_complete_to_the_upstream() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "");
    for (section, what, bytes, fate, body) in wire::bodies() {
        let told = format!("RFC {section}: {what}");
        let before = recorder.connections.load(Ordering::SeqCst);
        let mut peer = begin(&gateway, "web").await;
        peer.send(&bytes).await;
        assert_eq!(peer.fate(1).await, fate, "{told}");
        drop(peer);
        // With one worker, what it began with is what it has done before the next request.
        recorder.wait_for.send(1).expect("the upstream is there");
        assert_eq!(Client::h2(gateway.address("web")).await.get("/after").await.status, 200);
        recorder.wait_for.send(usize::MAX).expect("the upstream is there");
        for _ in before..recorder.connections.load(Ordering::SeqCst) {
            let seen = recorder.next().await;
            if seen.starts_with("GET /after ") {
                continue;
            }
            // The upstream may have been told a part, or nothing yet.
            let (head, seen_body) = seen.split_once("\r\n\r\n").unwrap_or_default();
            assert!(seen.is_empty() || head.starts_with("POST / HTTP/1.1\r\n"), "{told}: {seen}");
            assert!(body.starts_with(seen_body) && !seen_body.ends_with("0\r\n\r\n"), "{told}: {seen}");
        }
    }
}

#[tokio::test]
async fn what_is_served_reaches_an_http1_upstream_in_one_spelling_byte_for_byte() {
    let mut recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "");
    for listener in ["web", "tls"] {
        let scheme = if listener == "tls" { "https" } else { "http" };
        for Served { what, bytes, line, host, fields, framing, body } in SERVED {
            let expected = format!(
                "{line} HTTP/1.1\r\nhost: {host}\r\n{fields}x-request-id: 7\r\nx-forwarded-for: 127.0.0.1\r\n\
                 x-forwarded-proto: {scheme}\r\n{framing}\r\n{body}"
            );
            recorder.wait_for.send(expected.len()).expect("the upstream is there");
            let mut peer = begin(&gateway, listener).await;
            peer.send(&bytes()).await;
            assert_eq!(peer.fate(1).await, Fate::Status(200), "{listener}: {what}");
            assert!(peer.is_alive().await, "{listener}: {what}");
            let seen = recorder.next().await;
            assert_eq!(sorted(&seen), sorted(&expected), "{listener}: {what}: {seen}");
        }
    }
}

#[tokio::test]
async fn the_limits_of_a_head_are_those_of_http1_and_can_be_set() {
    let recorder = Recorder::new().await;
    let tight = "max_header_bytes: 1KiB, max_headers: 4, max_target: 64B,";
    let (wide, tight) = (gateway(&recorder.upstream, ""), gateway(&recorder.upstream, tight));
    let value = |len: usize| {
        let value = "a".repeat(len);
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("x", &*value)];
        in_pieces(&block(&fields))
    };
    let many = |count: usize| {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        fields.extend((0..count).map(|_| ("x", "1")));
        request(1, &fields)
    };
    let path = |len: usize| in_pieces(&get(1, &format!("/{}", "a".repeat(len)))[9..]);
    for (gateway, bytes, fate, reason) in [
        (&wide, path(16 << 10), Fate::Status(414), "target_too_long"),
        (&wide, value(60 << 10), Fate::Status(431), "head_too_large"),
        (&wide, value(75 << 10), Fate::Status(431), "head_too_large"),
        (&wide, many(101), Fate::Status(431), "too_many_fields"),
        (&tight, path(64), Fate::Status(414), "target_too_long"),
        (&tight, value(1 << 10), Fate::Status(431), "head_too_large"),
        (&tight, value(5 << 10), Fate::GoAway(11), "http2_header_list_too_large"),
        (&tight, many(5), Fate::Status(431), "too_many_fields"),
    ] {
        refuse(gateway, "web", reason, &bytes, &fate, reason).await;
    }
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw something");
    recorder.wait_for.send(1).expect("the upstream is there");
    for (gateway, bytes) in [
        (&wide, path((16 << 10) - 1)),
        (&wide, value((60 << 10) - 300)),
        (&wide, many(100)),
        (&tight, path(63)),
        (&tight, many(4)),
    ] {
        let mut peer = begin(gateway, "web").await;
        peer.send(&bytes).await;
        assert_eq!(peer.fate(1).await, Fate::Status(200));
    }
}

/// A request whose header block takes several frames.
fn in_pieces(block: &[u8]) -> Vec<u8> {
    use weir_tests::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, frame};
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    let mut bytes = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let first = if at == 0 { END_STREAM } else { 0 };
        let last = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, first | last, 1, piece));
    }
    bytes
}

/// What a client is answered that asks for a host, on a connection whose handshake was for `sni`.
async fn ask(gateway: &Gateway, listener: &str, sni: &str, h2: bool, host: &str) -> (u16, bool) {
    let own = certificate(&["spiffe://mesh.internal/orders"]);
    let config = client_config(Some(&own), &[if h2 { "h2" } else { "http/1.1" }]);
    let mut client = Client::tls(gateway.address(listener), sni, config).await.expect("a handshake");
    let uri = if h2 { format!("https://{host}/") } else { "/".to_owned() };
    let mut request = http::Request::builder().uri(uri);
    if !h2 {
        request = request.header("host", host);
    }
    let answer =
        client.call(request.body(weir_tests::http::empty()).expect("a request")).await.expect("an answer");
    (answer.status.as_u16(), answer.text() == "answered")
}

#[tokio::test]
async fn a_host_that_the_handshake_was_not_for_is_421_where_clients_are_authenticated() {
    let (a, b) = (certificate(&["a.example", "*.a.example", "127.0.0.1"]), certificate(&["b.example"]));
    let spiffe = certificate(&["spiffe://mesh.internal/api"]);
    let respond = "http: { routes: [ { respond: { status: 200, body: answered } } ] }";
    let certificates = "certificates: [ { cert: a.pem, key: a.key }, { cert: b.pem, key: b.key } ]";
    let listener = |name: &str, tls: &str| {
        format!("{{ name: {name}, address: \"127.0.0.1:0\", tls: {{ mode: terminate, {tls} }}, {respond} }}")
    };
    let listeners = [
        listener("required", &format!("{certificates}, client_ca: ca.pem, client_certificate: required")),
        listener("optional", &format!("{certificates}, client_ca: ca.pem, client_certificate: optional")),
        listener(
            "any",
            &format!("{certificates}, client_ca: ca.pem, client_certificate: required, authority: any"),
        ),
        listener("open", certificates),
    ];
    let setup = Setup::new().file("ca.pem", authority().pem()).file("a.pem", a.cert).file("a.key", a.key);
    let setup = setup.file("b.pem", b.cert).file("b.key", b.key);
    let setup = setup.file("s.pem", spiffe.cert).file("s.key", spiffe.key);
    let gateway = setup.config(format!("listeners: [ {} ]", listeners.join(", "))).start();
    for h2 in [false, true] {
        for listener in ["required", "optional"] {
            for (sni, host, allowed) in [
                ("a.example", "a.example", true),
                ("a.example", "A.example:443", true),
                ("a.example", "a.example.", true),
                ("a.example", "x.a.example", true),
                ("x.a.example", "a.example", true),
                ("a.example", "127.0.0.1", true),
                // Without a server name, it is the first certificate that counts.
                ("127.0.0.1", "a.example", true),
                ("127.0.0.1", "b.example", false),
                ("a.example", "b.example", false),
                ("a.example", "x.y.a.example", false),
                ("a.example", "a.example.evil", false),
                ("a.example", "127.0.0.2", false),
                ("a.example", "[::1]", false),
                ("b.example", "a.example", false),
                ("b.example", "b.example", true),
            ] {
                let expected = if allowed { (200, true) } else { (421, false) };
                let told = format!("{listener} h2: {h2}: {host} on a connection for {sni}");
                assert_eq!(ask(&gateway, listener, sni, h2, host).await, expected, "{told}");
            }
        }
        for listener in ["any", "open"] {
            assert_eq!(
                ask(&gateway, listener, "a.example", h2, "b.example").await,
                (200, true),
                "{listener}"
            );
        }
    }
    assert_eq!(counted(&gateway, "required", "misdirected_request").await, 14);
    let entry = gateway.wait_for_access("misdirected_request");
    assert_eq!(entry["status"], 421);
}
