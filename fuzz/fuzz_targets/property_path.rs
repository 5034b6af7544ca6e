//! Property paths, as a guest hands them over, on a stream of which everything is there.
#![no_main]

#[path = "../../tests/src/made_up.rs"]
mod made_up;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir::plugin::abi::property;
use weir_abi::{join_path, split_path};

/// What a path is made of. The known words are what makes paths known.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Word(u8),
    Bytes(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    tcp: bool,
    parts: Vec<Part<'a>>,
    /// How many NULs follow.
    nuls: u8,
    /// What a filter has set under that path, when it has.
    set: Option<&'a [u8]>,
}

const WORDS: &[&str] = &[
    "",
    "address",
    "cluster_name",
    "code",
    "code_details",
    "connection",
    "connection_id",
    "destination",
    "dns_san_local_certificate",
    "dns_san_peer_certificate",
    "duration",
    "filter_state",
    "grpc_status",
    "headers",
    "host",
    "id",
    "listener_direction",
    "local_address",
    "method",
    "mtls",
    "path",
    "plugin_name",
    "port",
    "protocol",
    "query",
    "referer",
    "request",
    "requested_server_name",
    "response",
    "route_name",
    "scheme",
    "sha256_peer_certificate_digest",
    "size",
    "source",
    "subject_local_certificate",
    "subject_peer_certificate",
    "termination_details",
    "time",
    "tls_version",
    "total_size",
    "trailers",
    "upstream",
    "uri_san_local_certificate",
    "uri_san_peer_certificate",
    "url_path",
    "useragent",
    "wasm",
    "x-end",
    "x-many",
    ":path",
    ":authority",
    ":status",
    "HOST",
];

/// What is a number is eight bytes.
const NUMBERS: &[&[u8]] = &[
    b"request\0size",
    b"request\0total_size",
    b"request\0time",
    b"request\0duration",
    b"response\0code",
    b"response\0size",
    b"response\0total_size",
    b"response\0grpc_status",
    b"source\0port",
    b"destination\0port",
    b"upstream\0port",
    b"connection\0id",
    b"connection_id",
];

fuzz_target!(|input: Input<'_>| {
    let parts: Vec<&[u8]> = input.parts.iter().map(bytes).collect();
    let mut path = parts.join(&0);
    path.extend(std::iter::repeat_n(0, usize::from(input.nuls % 3)));

    let segments: Vec<&[u8]> = split_path(&path).collect();
    let bare = path.strip_suffix(&[0]).unwrap_or(&path);
    assert_eq!(segments.join(&0), bare, "nothing is lost but one NUL at the end");
    assert!(segments.iter().all(|segment| !segment.contains(&0)));
    if let Ok(texts) = segments.iter().map(|segment| str::from_utf8(segment)).collect::<Result<Vec<_>, _>>() {
        assert_eq!(join_path(&texts).as_bytes(), bare);
    }

    let stream = if input.tcp { made_up::tcp() } else { made_up::http() };
    let before = property(&stream.borrow(), &path);
    if NUMBERS.contains(&bare) {
        assert!(before.as_ref().is_none_or(|value| value.len() == 8), "{before:?}");
        assert!(input.tcp || before.is_some());
    }
    if before.is_some() {
        assert!(str::from_utf8(&path).is_ok(), "what Weir knows has a name");
    }
    if !path.ends_with(&[0]) {
        let longer = [path.as_slice(), &[0]].concat();
        let same = property(&stream.borrow(), &longer);
        // How long a request has lasted is another number each time.
        assert!(same == before || bare == b"request\0duration", "one NUL at the end says nothing");
    }

    let Some(value) = input.set else { return };
    let own = [b"wasm.", bare].concat();
    stream.borrow_mut().info.state.set_own(bare, value, false).expect("there is room");
    let after = property(&stream.borrow(), &path);
    if bare != b"request\0duration" {
        // What a filter sets hides nothing of Weir's, and is found under every name that is not Weir's.
        assert!(after == before || (before.is_none() && after.as_deref() == Some(value)), "{after:?}");
    }
    if str::from_utf8(&own).is_ok() && !own.contains(&0) {
        let state = [b"filter_state\0", own.as_slice()].concat();
        assert_eq!(property(&stream.borrow(), &state).as_deref(), Some(value));
    }
});

fn bytes<'a>(part: &Part<'a>) -> &'a [u8] {
    match part {
        Part::Word(word) => WORDS[usize::from(*word) % WORDS.len()].as_bytes(),
        Part::Bytes(bytes) => bytes,
    }
}
