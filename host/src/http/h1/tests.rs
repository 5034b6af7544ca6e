//! Claims about the codec. How it compares with hyper's on good messages is in the test suite.

use bytes::{Bytes, BytesMut};
use http::Method;

use super::chunked::{Chunked, Step};
use super::head::{Limits, find_end, parse_request, parse_response, parse_trailers};
use super::reader::BodyError;
use super::{HeadError, Length, RequestHead};
use crate::http::message::{Scheme, Version};

fn request(text: &str) -> Result<RequestHead, HeadError> {
    let mut scanned = 0;
    let end = find_end(text.as_bytes(), &mut scanned)?.expect("a whole head");
    assert_eq!(end, text.len(), "nothing behind it");
    parse_request(Bytes::copy_from_slice(text.as_bytes()), Scheme::Http, &Limits::default())
}

fn refused(text: &str) -> HeadError {
    match request(text) {
        Err(error) => error,
        Ok(head) => panic!("{text:?} was read as {head:?}"),
    }
}

#[test]
fn a_request_is_read() {
    let head = request(
        "POST /a/b?c=d HTTP/1.1\r\nHost: Example.com:80\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\n",
    )
    .expect("a good request");
    let request = head.request;
    assert_eq!((request.method, request.version), (Method::POST, Version::Http11));
    assert_eq!(
        (request.authority.as_bytes(), request.path.as_bytes()),
        (&b"Example.com:80"[..], &b"/a/b?c=d"[..])
    );
    let values: Vec<_> = request.headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert!(!request.headers.contains_key("host"));
    assert_eq!(head.length, Length::Known(3));
    assert!(head.keep_alive);
}

#[test]
fn every_ambiguity_is_refused() {
    let with = |fields: &str| refused(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let cases = [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", HeadError::LengthAndEncoding),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", HeadError::ContentLength),
        ("Content-Length: 3, 3\r\n", HeadError::ContentLength),
        ("Content-Length: +3\r\n", HeadError::ContentLength),
        ("Content-Length: -3\r\n", HeadError::ContentLength),
        ("Content-Length: 0x3\r\n", HeadError::ContentLength),
        ("Content-Length: 3 \u{b}\r\n", HeadError::Malformed),
        ("Content-Length:\r\n", HeadError::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", HeadError::ContentLength),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: chunked, identity\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: chunked;q=1\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding:\r\n", HeadError::TransferEncoding),
        ("Host: a\r\n", HeadError::SeveralHosts),
        ("X : 1\r\n", HeadError::SpaceBeforeColon),
        ("X\t: 1\r\n", HeadError::SpaceBeforeColon),
        (" X: 1\r\n", HeadError::Folded),
        ("X: 1\r\n folded\r\n", HeadError::Folded),
        ("X: a\0b\r\n", HeadError::Nul),
        ("X: a\rb\r\n", HeadError::BareCr),
        ("X: a\u{7f}b\r\n", HeadError::Malformed),
        ("X\u{e9}: 1\r\n", HeadError::Malformed),
        (": 1\r\n", HeadError::Malformed),
        ("no colon\r\n", HeadError::Malformed),
        ("X: 1\nY: 2\r\n", HeadError::BareLf),
    ];
    for (fields, error) in cases {
        assert_eq!(with(fields), error, "{fields:?}");
    }
}

#[test]
fn request_lines_are_read_in_one_way_or_not_at_all() {
    let line = |line: &str| request(&format!("{line}\r\nHost: a.example\r\n\r\n"));
    let cases = [
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / http/1.1", HeadError::Malformed),
        ("GET /", HeadError::Malformed),
        ("GET  / HTTP/1.1", HeadError::Malformed),
        ("GET / HTTP/1.1 ", HeadError::Malformed),
        ("GET /a b HTTP/1.1", HeadError::Malformed),
        ("G\u{e9}T / HTTP/1.1", HeadError::Method),
        ("GET /\u{e9} HTTP/1.1", HeadError::Target),
        ("GET /a#b HTTP/1.1", HeadError::Target),
        ("GET a HTTP/1.1", HeadError::Target),
        ("GET * HTTP/1.1", HeadError::Target),
        ("GET ftp://a.example/ HTTP/1.1", HeadError::Target),
        ("GET http://b.example/ HTTP/1.1", HeadError::InvalidHost),
        ("GET http://u@a.example/ HTTP/1.1", HeadError::InvalidHost),
        ("GET http:///x HTTP/1.1", HeadError::InvalidHost),
        ("CONNECT a.example:443 HTTP/1.1", HeadError::Connect),
    ];
    for (text, error) in cases {
        assert_eq!(line(text).expect_err(text), error, "{text:?}");
    }
    let path = |text: &str| line(text).map(|head| head.request.path).expect("a good line");
    assert_eq!(path("GET http://A.example/x?y HTTP/1.1"), "/x?y");
    assert_eq!(path("GET https://a.example HTTP/1.1"), "/");
    assert_eq!(path("GET http://a.example?q HTTP/1.1"), "/?q");
    assert_eq!(path("OPTIONS * HTTP/1.1"), "*");
}

#[test]
fn hosts_are_mandatory_and_hosts() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), HeadError::MissingHost);
    assert_eq!(refused("GET / HTTP/1.0\r\n\r\n"), HeadError::MissingHost);
    for host in [
        "", "a b", "a/b", "u@a", "a:b:c", "a\u{e9}", "[::1", "a?b", "a:", "a:65536", "a:+1", "a%2eb", "[a]",
        "[::1]x", "a,b",
    ] {
        let error = refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(error, HeadError::InvalidHost, "{host:?}");
    }
    for host in ["a", "a.example:8443", "[::1]:80", "127.0.0.1", "a_b.example"] {
        request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect(host);
    }
}

#[test]
fn http_1_0_may_not_be_chunked_and_ends_unless_it_asks() {
    let head = |fields: &str| request(&format!("GET / HTTP/1.0\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(head("Transfer-Encoding: chunked\r\n").expect_err("chunked"), HeadError::TransferEncoding);
    assert!(!head("").expect("good").keep_alive);
    assert!(head("Connection: Keep-Alive\r\n").expect("good").keep_alive);
    assert!(!request("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").expect("good").keep_alive);
}

#[test]
fn limits_are_kept() {
    let many = "X: 1\r\n".repeat(100);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), HeadError::TooManyFields);
    let long = "a".repeat(16 * 1024);
    assert_eq!(refused(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), HeadError::TargetTooLong);
}

#[test]
fn a_bare_lf_is_found_wherever_the_bytes_are_cut() {
    let bad = b"GET / HTTP/1.1\r\nHost: a\n\r\n";
    for cut in 0..bad.len() {
        let mut scanned = 0;
        let first = find_end(&bad[..cut], &mut scanned);
        let whole = first.and_then(|_| find_end(bad, &mut scanned));
        assert_eq!(whole, Err(HeadError::BareLf), "cut at {cut}");
    }
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
    for cut in 0..good.len() {
        let mut scanned = 0;
        let _ = find_end(&good[..cut], &mut scanned).expect("good");
        let mut fresh = 0;
        assert_eq!(find_end(good, &mut fresh), Ok(Some(good.len() - 4)), "cut at {cut}");
    }
}

#[test]
fn responses_end_as_the_rules_say() {
    let response = |text: &str, to: &Method| {
        let text = format!("HTTP/1.1 {text}\r\n\r\n");
        parse_response(Bytes::from(text), to, &Limits::default()).map(|head| (head.length, head.keep_alive))
    };
    let get = |text| response(text, &Method::GET);
    assert_eq!(get("200 OK\r\nContent-Length: 5"), Ok((Length::Known(5), true)));
    assert_eq!(get("200 OK\r\nTransfer-Encoding: chunked"), Ok((Length::Unknown, true)));
    assert_eq!(get("200 OK"), Ok((Length::Unknown, false)), "until the end of the connection");
    assert_eq!(get("204 No Content"), Ok((Length::None, true)));
    assert_eq!(get("304 Not Modified\r\nContent-Length: 5"), Ok((Length::None, true)));
    assert_eq!(get("200 OK\r\nContent-Length: 5\r\nConnection: close"), Ok((Length::Known(5), false)));
    assert_eq!(response("200 OK\r\nContent-Length: 5", &Method::HEAD), Ok((Length::None, true)));
    assert_eq!(get("200 OK\r\nContent-Length: 5\r\nContent-Length: 6"), Err(HeadError::ContentLength));
    assert_eq!(
        get("200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"),
        Err(HeadError::LengthAndEncoding)
    );
    assert_eq!(get("200 OK\r\n folded: x"), Err(HeadError::Folded));
}

/// All the data of a chunked body that comes in pieces of `size` bytes.
fn unchunk(body: &[u8], size: usize) -> Result<Vec<u8>, BodyError> {
    let (mut chunked, mut buffer, mut out) = (Chunked::Size, BytesMut::new(), Vec::new());
    for piece in body.chunks(size) {
        buffer.extend_from_slice(piece);
        while let Step::Data(len) = chunked.step(&mut buffer)? {
            out.extend_from_slice(&buffer.split_to(len));
            chunked.taken(len);
        }
    }
    assert_eq!(chunked.step(&mut buffer)?, Step::Trailers);
    assert_eq!(&buffer[..], b"\r\n");
    Ok(out)
}

#[test]
fn chunks_are_put_together_however_they_come() {
    let body = b"5\r\nhello\r\n00000006;a=b; c = \"d;\\\"\";e\r\n world\r\n0\r\n\r\n";
    for size in 1..=body.len() {
        assert_eq!(unchunk(body, size).expect("good"), b"hello world", "in pieces of {size}");
    }
}

#[test]
fn chunks_that_two_readers_could_read_in_two_ways_are_refused() {
    for bad in [
        "5\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "10000000000000000\r\nhello",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;a\r\nhello\r\n0\r\n\r\n",
        "5;a=\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        "5;a b\r\nhello\r\n0\r\n\r\n",
    ] {
        for size in [1, bad.len()] {
            assert!(
                matches!(unchunk(bad.as_bytes(), size), Err(BodyError::Chunk)),
                "{bad:?} in pieces of {size}"
            );
        }
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    assert!(matches!(unchunk(long.as_bytes(), 7), Err(BodyError::Chunk)));
}

#[test]
fn trailers_lose_what_would_change_the_framing() {
    let section =
        Bytes::from_static(b"X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n");
    let trailers = parse_trailers(section, &Limits::default()).expect("good");
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["x-sum"], "1");
}
