//! Frames that break the protocol.

use weir_tests::frames::Fate::{self, GoAway, Reset};
use weir_tests::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame, get, integer, request, reset, setting,
    window,
};

/// What is broken: the section, what it is, the bytes, what becomes of stream 1, and the reason.
pub type Broken = (&'static str, &'static str, Vec<u8>, Fate, &'static str);

const PLAIN: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// A request whose body is to come.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&PLAIN))
}

/// A request whose header block does not end.
fn half(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &block(&PLAIN))
}

fn all(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// All of them. None reaches the upstream.
pub fn broken() -> Vec<Broken> {
    [frames(), streams(), settings(), windows(), headers()].concat()
}

fn frames() -> Vec<Broken> {
    let protocol = "http2_protocol_error";
    let size = "http2_frame_size_error";
    vec![
        ("9113 4.2", "a frame larger than may be", frame(DATA, 0, 1, &[0; 16_385]), GoAway(6), size),
        // h2 has no other code for what follows.
        ("9113 6.4", "RST_STREAM of three bytes", frame(RST_STREAM, 0, 1, &[0; 3]), GoAway(1), protocol),
        ("9113 6.3", "PRIORITY of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), GoAway(1), protocol),
        ("9113 6.5", "SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), GoAway(1), protocol),
        ("9113 6.7", "PING of seven bytes", frame(PING, 0, 0, &[0; 7]), GoAway(1), protocol),
        (
            "9113 6.9",
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            GoAway(1),
            protocol,
        ),
        ("9113 6.8", "GOAWAY of seven bytes", frame(GOAWAY, 0, 0, &[0; 7]), GoAway(1), protocol),
        ("9113 6.1", "DATA on the connection", frame(DATA, 0, 0, b"x"), GoAway(1), protocol),
        ("9113 6.2", "HEADERS on the connection", request(0, &PLAIN), GoAway(1), protocol),
        ("9113 6.3", "PRIORITY on the connection", frame(PRIORITY, 0, 0, &[0; 5]), GoAway(1), protocol),
        ("9113 6.4", "RST_STREAM on the connection", reset(0, 8), GoAway(1), protocol),
        ("9113 6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), GoAway(1), protocol),
        ("9113 6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), GoAway(1), protocol),
        ("9113 6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), GoAway(1), protocol),
        (
            "9113 6.10",
            "CONTINUATION on the connection",
            frame(CONTINUATION, END_HEADERS, 0, &[]),
            GoAway(1),
            protocol,
        ),
        (
            "9113 8.4",
            "PUSH_PROMISE of a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            GoAway(1),
            protocol,
        ),
        ("9113 6.2", "more padding than there is", frame(HEADERS, 0xd, 1, &[9, 0]), GoAway(1), protocol),
        ("9113 6.2", "padding without a length", frame(HEADERS, 0xd, 1, &[]), GoAway(1), protocol),
    ]
}

fn streams() -> Vec<Broken> {
    let protocol = "http2_protocol_error";
    vec![
        ("9113 5.1", "DATA on a stream that nobody began", frame(DATA, 0, 1, b"x"), GoAway(1), protocol),
        ("9113 5.1", "RST_STREAM on one", reset(1, 8), GoAway(1), protocol),
        ("9113 5.1", "WINDOW_UPDATE on one", window(1, 1), GoAway(1), protocol),
        ("9113 5.1.1", "a stream with an even number", get(2, "/"), GoAway(1), protocol),
        (
            "9113 6.10",
            "a header block that another frame interrupts",
            all(&[half(1), frame(PING, 0, 0, &[0; 8])]),
            GoAway(1),
            protocol,
        ),
        (
            "9113 6.10",
            "one that another stream interrupts",
            all(&[half(1), get(3, "/")]),
            GoAway(1),
            protocol,
        ),
        (
            "9113 6.10",
            "one that goes on on another stream",
            all(&[half(1), frame(CONTINUATION, END_HEADERS, 3, &[])]),
            GoAway(1),
            protocol,
        ),
        (
            "9113 6.10",
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            GoAway(1),
            protocol,
        ),
        (
            "9113 5.3.1",
            "a stream that depends on itself",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 1, 16][..], &block(&PLAIN)].concat(),
            ),
            Reset(1),
            "malformed_stream",
        ),
    ]
}

fn settings() -> Vec<Broken> {
    let protocol = "http2_protocol_error";
    vec![
        (
            "9113 6.5",
            "an acknowledgement with something in it",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            GoAway(1),
            protocol,
        ),
        ("9113 6.5.2", "ENABLE_PUSH 2", setting(2, 2), GoAway(1), protocol),
        ("9113 6.5.2", "a window of 2^31", setting(4, 1 << 31), GoAway(1), protocol),
        ("9113 6.5.2", "frames of 16383 bytes", setting(5, 16_383), GoAway(1), protocol),
        ("9113 6.5.2", "frames of 2^24 bytes", setting(5, 1 << 24), GoAway(1), protocol),
        (
            "9113 6.5.3",
            "a second acknowledgement",
            all(&[frame(SETTINGS, ACK, 0, &[]), frame(SETTINGS, ACK, 0, &[])]),
            GoAway(1),
            protocol,
        ),
    ]
}

fn windows() -> Vec<Broken> {
    let flow = "http2_flow_control_error";
    vec![
        ("9113 6.9", "no larger a window", window(0, 0), GoAway(1), "http2_protocol_error"),
        ("9113 6.9.1", "a window larger than 2^31 - 1", window(0, u32::MAX >> 1), GoAway(3), flow),
    ]
}

fn headers() -> Vec<Broken> {
    let protocol = "http2_protocol_error";
    let raw = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    vec![
        ("7541 2.3.3", "an index that nobody filled", raw(&[0xc6]), GoAway(1), protocol),
        ("7541 6.1", "the index 0", raw(&[0x80]), GoAway(1), protocol),
        ("7541 6.2.2", "a literal that breaks off", raw(&[0, 5, b'x']), GoAway(1), protocol),
        ("7541 5.1", "a number without end", raw(&[0xff; 16]), GoAway(1), protocol),
        (
            "7541 5.2",
            "Huffman's code of nothing",
            raw(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]),
            GoAway(1),
            protocol,
        ),
        ("7541 6.3", "a larger table than may be", raw(&integer(0x20, 5, 8192)), GoAway(1), protocol),
        ("9113 8.1", "nothing at all", raw(&[]), Reset(1), "malformed_stream"),
        (
            "9113 6.2",
            "a block that is none after padding",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[1, 0xc6, 0]),
            GoAway(1),
            protocol,
        ),
    ]
}

/// Bodies that break off: what becomes of stream 1, and what an upstream may see of the body at the most.
pub fn bodies() -> Vec<(&'static str, &'static str, Vec<u8>, Fate, &'static str)> {
    let told = |length: &'static str| {
        frame(HEADERS, END_HEADERS, 1, &block(&[&PLAIN[..], &[("content-length", length)]].concat()))
    };
    let trailers =
        |flags: u8, fields: &[(&str, &str)]| frame(HEADERS, flags | END_HEADERS, 1, &block(fields));
    vec![
        (
            "9113 8.1.1",
            "more than was told",
            all(&[told("3"), frame(DATA, END_STREAM, 1, b"hello")]),
            Reset(1),
            "",
        ),
        (
            "9113 8.1.1",
            "less than was told",
            all(&[told("9"), frame(DATA, 0, 1, b"hel"), frame(DATA, END_STREAM, 1, b"lo")]),
            Reset(1),
            "hel",
        ),
        (
            "9113 8.1.1",
            "trailers before all is here",
            all(&[told("9"), frame(DATA, 0, 1, b"hello"), trailers(END_STREAM, &[("x", "1")])]),
            Reset(1),
            "hello",
        ),
        (
            "9113 8.1",
            "trailers that are not the end",
            all(&[begun(1), frame(DATA, 0, 1, b"hello"), trailers(0, &[("x", "1")])]),
            Reset(1),
            "5\r\nhello\r\n",
        ),
        (
            "9113 8.2.2",
            "a connection header in trailers",
            all(&[
                begun(1),
                frame(DATA, 0, 1, b"hello"),
                trailers(END_STREAM, &[("transfer-encoding", "chunked")]),
            ]),
            Reset(1),
            "5\r\nhello\r\n",
        ),
        (
            "9113 6.1",
            "more padding than there is",
            all(&[begun(1), frame(DATA, PADDED, 1, &[9, 0])]),
            GoAway(1),
            "",
        ),
        ("9113 6.9.1", "no larger a window for a stream", all(&[begun(1), window(1, 0)]), GoAway(1), ""),
        (
            "9113 6.9.1",
            "a window of a stream larger than 2^31 - 1",
            all(&[begun(1), window(1, u32::MAX >> 1)]),
            Reset(3),
            "",
        ),
        (
            "9113 6.9.2",
            "windows made larger than 2^31 - 1 by a setting",
            all(&[begun(1), window(1, (u32::MAX >> 1) - 65_535), setting(4, 65_536)]),
            GoAway(3),
            "",
        ),
    ]
}
