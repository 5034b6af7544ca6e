use super::*;

/// A message in protobuf's wire format, made of fields of bytes and numbers.
fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(number, bytes)| put_bytes(*number, bytes, &mut out));
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(number, value, &mut out);
    out
}

fn option(name: &str, value: &str, more: &[u8]) -> Vec<u8> {
    [message(&[(1, &message(&[(1, name.as_bytes()), (2, value.as_bytes())]))]), more.to_vec()].concat()
}

fn edit(name: &str, value: &str, how: How) -> Edit {
    Edit { name: name.to_owned(), value: value.as_bytes().to_vec(), how }
}

#[test]
fn a_request_is_told_by_the_numbers_of_the_protocol() {
    let facts = Facts {
        source: Peer {
            address: Some(("10.0.0.1".parse().expect("an address"), 300)),
            principal: "spiffe://a/b".to_owned(),
            certificate: String::new(),
        },
        time: 3_000_000_007,
        method: "GET".to_owned(),
        headers: vec![("x-a".to_owned(), "1,2".to_owned())],
        path: "/p?q".to_owned(),
        protocol: "HTTP/2".to_owned(),
        body: Some(Body::Bytes(b"\xff".to_vec())),
        extensions: vec![("k".to_owned(), "v".to_owned())],
        server_name: Some("sni".to_owned()),
        ..Facts::default()
    };
    let bytes_of = facts.encode();
    let attributes = bytes(&bytes_of, 1).expect("attributes");
    let source = bytes(attributes, 1).expect("source");
    let socket = bytes(bytes(source, 1).expect("an address"), 1).expect("a socket address");
    assert_eq!(bytes(socket, 2), Some(&b"10.0.0.1"[..]));
    assert!(fields(socket).any(|field| field == Ok((3, Value::Varint(300)))));
    assert_eq!(bytes(source, 4), Some(&b"spiffe://a/b"[..]));
    let request = bytes(attributes, 4).expect("request");
    let time: Vec<_> = fields(bytes(request, 1).expect("time")).collect();
    assert_eq!(time, [Ok((1, Value::Varint(3))), Ok((2, Value::Varint(7)))]);
    let http = bytes(request, 2).expect("http");
    for (at, text) in
        [(2, &b"GET"[..]), (3, b"\x0a\x03x-a\x12\x031,2"), (4, b"/p?q"), (10, b"HTTP/2"), (12, b"\xff")]
    {
        assert_eq!(bytes(http, at), Some(text), "{at}");
    }
    assert!(
        fields(http).any(|field| field == Ok((9, Value::Varint(u64::MAX)))),
        "a size that is not known is -1"
    );
    assert_eq!(bytes(attributes, 10), Some(&b"\x0a\x01k\x12\x01v"[..]));
    assert_eq!(bytes(attributes, 12), Some(&b"\x0a\x03sni"[..]));
}

#[test]
fn an_answer_allows_with_what_it_wants_of_the_request_and_the_response() {
    let ok = message(&[
        (2, &option("x-set", "1", &[])),
        (2, &option("x-add", "2", &message(&[(2, &number(1, 1))]))),
        (2, &option("x-if-absent", "3", &number(3, 1))),
        (2, &option("x-over", "4", &number(3, 2))),
        (2, &option("x-if-there", "5", &number(3, 3))),
        (2, &option("x-zero", "6", &message(&[(2, b"")]))),
        (2, &option("x-empty", "", &[])),
        (2, &option("x-kept-empty", "", &number(4, 1))),
        (2, &option(":path", "/admin", &[])),
        (2, &option("Host", "evil", &[])),
        (5, b"authorization"),
        (6, &option("x-response", "7", &[])),
        (7, &message(&[(1, b"a"), (2, b"b")])),
        (8, b"token"),
        (99, b"what comes in later versions"),
    ]);
    let answer = message(&[(1, b""), (3, &ok)]);
    let Decision::Allow(edits) = read(&answer).expect("an answer") else { panic!("it allows") };
    let wanted = [
        edit("x-set", "1", How::Set),
        edit("x-add", "2", How::Add),
        edit("x-if-absent", "3", How::AddIfAbsent),
        edit("x-over", "4", How::Set),
        edit("x-if-there", "5", How::SetIfThere),
        edit("x-zero", "6", How::Set),
        edit("x-kept-empty", "", How::Set),
    ];
    assert_eq!(edits.headers, wanted);
    assert_eq!(
        (edits.remove, edits.response),
        (vec!["authorization".to_owned()], vec![edit("x-response", "7", How::Set)])
    );
    assert_eq!(
        (edits.query_set, edits.query_remove),
        (vec![("a".to_owned(), "b".to_owned())], vec!["token".to_owned()])
    );
    assert_eq!(read(b""), Ok(Decision::Allow(Edits::default())), "as in Envoy");
}

#[test]
fn an_answer_denies_with_status_headers_and_body() {
    let status = message(&[(1, &number(1, 7))]);
    let plain = Decision::Deny { status: 403, headers: Vec::new(), body: Vec::new() };
    assert_eq!(read(&status), Ok(plain.clone()));
    let denied = message(&[(1, &number(1, 302)), (2, &option("location", "/login", &[])), (3, b"go")]);
    let told = Decision::Deny {
        status: 302,
        headers: vec![edit("location", "/login", How::Set)],
        body: b"go".to_vec(),
    };
    assert_eq!(read(&[status.clone(), message(&[(2, &denied)])].concat()), Ok(told));
    let unspecified = message(&[(2, &message(&[(1, &number(1, 0))]))]);
    assert_eq!(read(&[status.clone(), unspecified].concat()), Ok(plain));
    for code in [200, 204, 299, 600, 0xffff_ffff, u64::MAX] {
        let denied = message(&[(2, &message(&[(1, &number(1, code))]))]);
        assert!(read(&[status.clone(), denied].concat()).is_err(), "{code} denies nothing");
    }
}

#[test]
fn nothing_is_allowed_by_an_answer_that_cannot_be_read() {
    for answer in [
        &b"\x0a"[..],
        b"\x0a\x05\x08",
        b"\x08\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x1a\x02\x12",
        b"HTTP/1.1 200 OK",
    ] {
        assert!(read(answer).is_err(), "{}", answer.escape_ascii());
    }
    let both = message(&[(1, b""), (2, b"")]);
    assert!(read(&both).expect_err("both").to_string().contains("allows and denies"));
    let name = message(&[(3, &message(&[(5, b"\xff")]))]);
    assert!(read(&name).is_err(), "a name that is no text");
}
