//! Good HTTP/1 messages of all kinds, as bytes on the wire, from a seed.

use fastrand::Rng;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A message on the wire, and what a reader must make of its body.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What is sent.
    pub wire: Vec<u8>,
    /// The body in it.
    pub body: Vec<u8>,
    /// The trailers in it.
    pub trailers: HeaderMap,
    /// Whether the connection can carry another message behind it.
    pub keep_alive: bool,
    /// Whether it is a request that waits for `100 Continue`.
    pub expects_continue: bool,
}

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length,
    Chunked,
}

/// The methods of requests.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "X-Own!"];

const AUTHORITIES: [&str; 5] = ["a", "example.com", "Example.COM:8080", "10.0.0.1:80", "[2001:db8::1]:8443"];
const SEGMENTS: [&str; 8] = ["a", "index.html", "%20%2F", "x;v=1", "~u@h:1", "a+b&c,d$", "(!*')", ""];
const QUERIES: [&str; 5] = ["", "?", "?a=b&a=c", "?q=/../?x", "?%00=%ff"];
const NAMES: [&str; 10] = [
    "Accept",
    "accept-encoding",
    "Cookie",
    "USER-AGENT",
    "X-A",
    "x-a",
    "x-_.~!#$%&'*+^`|",
    "Set-Cookie",
    "Via",
    "1",
];
const VALUES: [&[u8]; 9] = [
    b"",
    b"1",
    b"text/html, */*;q=0.1",
    b"a=b; c=\"d e\"",
    b"tab\tinside  and spaces",
    b"\x80obs\xfftext",
    b"gr\xc3\xbc\xc3\x9fe",
    b"chunked",
    b"a: b, Content-Length: 7",
];
const REASONS: [&[u8]; 5] = [b"OK", b"", b"Some  reason", b"\xe9t\xe9", b"200 100"];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// A request. With `last` it may be one behind which the connection ends.
pub fn request(rng: &mut Rng, last: bool) -> Sample {
    let old = last && rng.u8(..4) == 0;
    let method = pick(rng, &METHODS);
    let authority = pick(rng, &AUTHORITIES);
    let target = match rng.u8(..8) {
        0 if method == "OPTIONS" => "*".to_owned(),
        1 => format!("http://{authority}{}", pick(rng, &["", "/", "?a=b", "/x?y"])),
        2 => format!("HTTPS://{authority}/{}", pick(rng, &SEGMENTS)),
        _ => path(rng),
    };
    let framing = match rng.u8(..3) {
        0 => Framing::Nothing,
        1 if !old => Framing::Chunked,
        _ => Framing::Length,
    };
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut wire = format!("{method} {target} {version}\r\n").into_bytes();
    let mut fields = fields(rng);
    fields.push(field(rng, "Host", authority.as_bytes()));
    let expects_continue = !old && framing != Framing::Nothing && rng.u8(..6) == 0;
    if expects_continue {
        fields.push(field(rng, "Expect", b"100-continue"));
    }
    let keep_alive = persistence(rng, old, last, &mut fields);
    let (body, trailers) = finish(rng, &mut wire, fields, framing);
    // Old clients send an empty line behind a body.
    if framing != Framing::Nothing && keep_alive && rng.u8(..8) == 0 {
        wire.extend_from_slice(b"\r\n");
    }
    Sample { wire, body, trailers, keep_alive, expects_continue }
}

/// A response to a request with the method `to`, perhaps with interim ones before it.
pub fn response(rng: &mut Rng, to: &str) -> Sample {
    let mut wire = Vec::new();
    for _ in 0..rng.usize(..8).saturating_sub(5) {
        wire.extend_from_slice(pick(rng, &[b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.1 103 Early!!!\r\n"]));
        finish(rng, &mut wire, Vec::new(), Framing::Nothing);
    }
    let old = rng.u8(..4) == 0;
    let status = pick(rng, &["200", "201", "204", "206", "304", "404", "418", "500", "599"]);
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    wire.extend_from_slice(format!("{version} {status} ").as_bytes());
    wire.extend_from_slice(pick(rng, &REASONS));
    wire.extend_from_slice(b"\r\n");
    let mut fields = fields(rng);
    let asked_to_keep = persistence(rng, old, true, &mut fields);
    let bodiless = to == "HEAD" || status == "204" || status == "304";
    let framing = match rng.u8(..3) {
        0 => Framing::Nothing,
        1 if !old => Framing::Chunked,
        _ => Framing::Length,
    };
    if bodiless {
        // What GET would have been told.
        match framing {
            Framing::Nothing => {}
            Framing::Length => fields.push(field(rng, "Content-Length", b"1234")),
            // Not in 204 (RFC 9112 section 6.1).
            Framing::Chunked if status == "204" => {}
            Framing::Chunked => fields.push(field(rng, "Transfer-Encoding", b"chunked")),
        }
        let (body, trailers) = finish(rng, &mut wire, fields, Framing::Nothing);
        return Sample { wire, body, trailers, keep_alive: asked_to_keep, expects_continue: false };
    }
    let (mut body, trailers) = finish(rng, &mut wire, fields, framing);
    if framing == Framing::Nothing {
        // Until the connection ends.
        body = bytes(rng);
        wire.extend_from_slice(&body);
    }
    let keep_alive = asked_to_keep && framing != Framing::Nothing;
    Sample { wire, body, trailers, keep_alive, expects_continue: false }
}

/// A target in origin form.
pub fn path(rng: &mut Rng) -> String {
    let segments: Vec<_> = (0..rng.usize(..4)).map(|_| pick(rng, &SEGMENTS)).collect();
    format!("/{}{}", segments.join("/"), pick(rng, &QUERIES))
}

/// An authority.
pub fn authority(rng: &mut Rng) -> &'static str {
    pick(rng, &AUTHORITIES)
}

/// Some headers, many of them repeated. None says anything about framing or the connection.
pub fn headers(rng: &mut Rng) -> HeaderMap {
    let mut map = HeaderMap::new();
    for _ in 0..rng.usize(..12) {
        let name = HeaderName::from_bytes(pick(rng, &NAMES).as_bytes()).expect("a token");
        map.append(name, HeaderValue::from_bytes(pick(rng, &VALUES)).expect("a field value"));
    }
    map
}

/// A body: often small or empty, sometimes larger than any buffer.
pub fn bytes(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.u8(..8) {
        0 => 0,
        1 => rng.usize(..200_000),
        2 => rng.usize(..10_000),
        _ => rng.usize(..100),
    };
    (0..len).map(|_| rng.u8(..)).collect()
}

/// Cuts bytes at random places: sometimes everywhere.
pub fn pieces<'a>(rng: &mut Rng, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = match rng.u8(..4) {
        0 if bytes.len() < 2_000 => 1,
        1 => bytes.len().max(1),
        _ => bytes.len().div_ceil(8).max(1),
    };
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.usize(1..=longest).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// `Connection`, or none; whether the connection is to go on.
fn persistence(rng: &mut Rng, old: bool, may_end: bool, fields: &mut Vec<Vec<u8>>) -> bool {
    let value = match rng.u8(..4) {
        0 if may_end => "close",
        1 => pick(rng, &["keep-alive", "Keep-Alive"]),
        2 => "x-a",
        _ => return !old,
    };
    fields.push(field(rng, "Connection", value.as_bytes()));
    match value {
        "close" => false,
        "x-a" => !old,
        _ => true,
    }
}

fn fields(rng: &mut Rng) -> Vec<Vec<u8>> {
    let count = rng.usize(..12);
    let any = |_| {
        let (name, value) = (pick(rng, &NAMES), pick(rng, &VALUES));
        field(rng, name, value)
    };
    (0..count).map(any).collect()
}

/// A line of the head, with the white space around its value that is allowed.
fn field(rng: &mut Rng, name: &str, value: &[u8]) -> Vec<u8> {
    let before = pick(rng, &["", " ", " ", " ", "\t", " \t  "]);
    let behind = pick(rng, &["", "", "", " ", "\t "]);
    [name.as_bytes(), b":", before.as_bytes(), value, behind.as_bytes(), b"\r\n"].concat()
}

/// Writes the rest of a head, beginning with any field, and the body that it announces.
fn finish(
    rng: &mut Rng,
    wire: &mut Vec<u8>,
    mut fields: Vec<Vec<u8>>,
    framing: Framing,
) -> (Vec<u8>, HeaderMap) {
    let body = if framing == Framing::Nothing { Vec::new() } else { bytes(rng) };
    match framing {
        Framing::Nothing => {}
        Framing::Length => {
            let name = pick(rng, &["Content-Length", "content-length"]);
            fields.push(field(rng, name, body.len().to_string().as_bytes()));
        }
        Framing::Chunked => {
            let value = pick(rng, &["chunked", "Chunked"]);
            fields.push(field(rng, "Transfer-Encoding", value.as_bytes()));
        }
    }
    let first = rng.usize(..=fields.len());
    fields.rotate_left(first);
    wire.extend(fields.concat());
    wire.extend_from_slice(b"\r\n");
    match framing {
        Framing::Nothing => (body, HeaderMap::new()),
        Framing::Length => {
            wire.extend_from_slice(&body);
            (body, HeaderMap::new())
        }
        Framing::Chunked => {
            let trailers = chunks(rng, wire, &body);
            (body, trailers)
        }
    }
}

/// Writes a body in chunks of odd sizes, written in odd ways, and trailers behind them.
fn chunks(rng: &mut Rng, wire: &mut Vec<u8>, body: &[u8]) -> HeaderMap {
    for chunk in pieces(rng, body) {
        let size = match rng.u8(..4) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("{:08x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        let extension = pick(rng, &["", "", "", ";a", ";a=b;c=d", ";q=\"x y\""]);
        wire.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(pick(rng, &["0\r\n", "000\r\n", "0;last\r\n"]).as_bytes());
    let mut trailers = HeaderMap::new();
    for _ in 0..rng.usize(..6).saturating_sub(3) {
        let name = pick(rng, &["X-Sum", "x-sum", "grpc-status"]);
        let value = pick(rng, &VALUES);
        wire.extend(field(rng, name, value));
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
        trailers.append(name, HeaderValue::from_bytes(value).expect("a field value"));
    }
    wire.extend_from_slice(b"\r\n");
    trailers
}
