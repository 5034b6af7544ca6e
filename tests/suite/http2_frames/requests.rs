//! Requests that HTTP/2 can say and nobody may: each with the section that it violates, what it has besides a plain GET,
//! what becomes of it, and the reason that it is counted by.

use weir_tests::frames::Fate::{self, GoAway, Reset, Status};

/// What a request has that a plain GET has not.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// A field at the end.
    Add(&'static str, &'static [u8]),
    /// Another value for a field.
    Set(&'static str, &'static [u8]),
    /// No such field.
    Drop(&'static str),
    /// All of its fields.
    All(&'static [(&'static str, &'static [u8])]),
}

use Change::{Add, All, Drop, Set};

/// What is refused: the section, the changes, what becomes of it, and the reason.
pub type Refused = (&'static str, &'static [Change], Fate, &'static str);

const RESET: Fate = Reset(1);
const GONE: Fate = GoAway(1);
const BAD: Fate = Status(400);

/// What concerns pseudo-headers.
pub const PSEUDO: &[Refused] = &[
    ("9113 8.3.1", &[Drop(":method")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Drop(":scheme")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Drop(":path")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Drop(":path"), Drop(":authority"), Add("host", b"a")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":path", b"")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Drop(":authority")], BAD, "missing_host"),
    ("9113 8.3", &[Add(":method", b"GET")], RESET, "malformed_stream"),
    ("9113 8.3", &[Add(":path", b"/smuggled")], RESET, "malformed_stream"),
    ("9113 8.3", &[Add(":authority", b"b")], RESET, "malformed_stream"),
    ("9113 8.3", &[Add(":scheme", b"https")], RESET, "malformed_stream"),
    ("9113 8.3", &[Drop(":path"), Add("x", b"1"), Add(":path", b"/")], RESET, "malformed_stream"),
    ("9113 8.3", &[Add(":smuggled", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.3", &[Add(":", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.3", &[Add(":status", b"200")], RESET, "malformed_stream"),
    ("8441 4", &[Add(":protocol", b"websocket")], RESET, "malformed_stream"),
    ("8441 4", &[Set(":method", b"CONNECT"), Add(":protocol", b"websocket")], RESET, "malformed_stream"),
    ("9113 8.5", &[Set(":method", b"CONNECT")], RESET, "malformed_stream"),
    (
        "9113 8.5",
        &[All(&[(":method", b"CONNECT"), (":authority", b"a:443")])],
        Status(405),
        "connect_refused",
    ),
    ("9110 9.1", &[Set(":method", b"G T")], GONE, "http2_protocol_error"),
    ("9110 9.1", &[Set(":method", b"")], GONE, "http2_protocol_error"),
    ("9110 9.1", &[Set(":method", b"GET / HTTP/1.1\r\nx: y")], GONE, "http2_protocol_error"),
    ("9110 9.1", &[Set(":method", b"G(T")], GONE, "http2_protocol_error"),
    ("9113 8.3.1", &[Set(":scheme", b"")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":scheme", b"http://a/ HTTP/1.1")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":scheme", b"ftp")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":scheme", b"file")], BAD, "invalid_target"),
];

/// What concerns paths and authorities.
pub const TARGETS: &[Refused] = &[
    ("9113 8.3.1", &[Set(":path", b"/a b")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/ HTTP/1.1\r\nhost: b\r\n\r\n")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/a\tb")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/a\0b")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/a\x7fb")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/\xc3\xa9")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":path", b"/\xff")], GONE, "http2_protocol_error"),
    ("9113 8.3.1", &[Set(":path", b"a")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"#a")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":path", b"?a")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":path", b"*")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":path", b"http://a/")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":path", b"/\\")], BAD, "invalid_target"),
    ("3986 2.1", &[Set(":path", b"/%0")], BAD, "invalid_target"),
    ("3986 2.1", &[Set(":path", b"/%00")], BAD, "invalid_target"),
    ("9113 8.3.1", &[Set(":authority", b"user@a")], BAD, "invalid_host"),
    ("9113 8.3.1", &[Set(":authority", b"")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":authority", b"a b")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":authority", b"a/b")], RESET, "malformed_stream"),
    ("9113 8.3.1", &[Set(":authority", b"a\r\nx: y")], RESET, "malformed_stream"),
    ("9110 7.2", &[Set(":authority", b"a:x")], BAD, "invalid_host"),
    ("9110 7.2", &[Set(":authority", b"a,b")], BAD, "invalid_host"),
    ("9110 7.2", &[Set(":authority", b"a:70000")], BAD, "invalid_host"),
    ("9113 8.3.1", &[Add("host", b"b")], BAD, "invalid_host"),
    ("9113 8.3.1", &[Add("host", b"")], BAD, "invalid_host"),
    ("9110 7.2", &[Add("host", b"a"), Add("host", b"a")], BAD, "several_hosts"),
    ("9110 7.2", &[Drop(":authority"), Add("host", b"a/b")], BAD, "invalid_host"),
];

/// What concerns fields.
pub const FIELDS: &[Refused] = &[
    ("9113 8.2", &[Add("X-A", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x a", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x:a", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x\r\nhost", b"b")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x\0", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x\u{e9}", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("", b"1")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"1\r\nhost: b")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"1\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: b")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"1\n")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"1\r")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"1\0")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b"\x7f")], GONE, "http2_protocol_error"),
    ("9113 8.2.1", &[Add("x", b" 1")], BAD, "malformed_head"),
    ("9113 8.2.1", &[Add("x", b"1 ")], BAD, "malformed_head"),
    ("9113 8.2.1", &[Add("x", b"\t")], BAD, "malformed_head"),
    ("9113 8.2.2", &[Add("connection", b"close")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("connection", b"x-secret")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("keep-alive", b"timeout=5")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("proxy-connection", b"close")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("transfer-encoding", b"chunked")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("transfer-encoding", b"identity")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("upgrade", b"h2c")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("te", b"gzip")], RESET, "malformed_stream"),
    ("9113 8.2.2", &[Add("te", b"trailers, gzip")], RESET, "malformed_stream"),
    ("9113 8.1.1", &[Add("content-length", b"5")], RESET, "malformed_stream"),
    ("9110 8.6", &[Add("content-length", b"x")], RESET, "malformed_stream"),
    ("9110 8.6", &[Add("content-length", b"+0")], RESET, "malformed_stream"),
    ("9110 8.6", &[Add("content-length", b"0, 0")], RESET, "malformed_stream"),
    ("9110 8.6", &[Add("content-length", b"0"), Add("content-length", b"5")], RESET, "malformed_stream"),
    ("9110 8.6", &[Add("content-length", b"0"), Add("content-length", b"0")], BAD, "invalid_content_length"),
    ("9110 5.1", &[Add("content_length", b"5")], BAD, "underscore_in_name"),
];
