//! Claims about the ClientHello reader. The good messages come from rustls.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::*;

/// What rustls says first to `name`.
fn hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(name).expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes all");
    bytes
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    Reader::default().feed(bytes)
}

/// One handshake message in records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in message.chunks(size) {
        out.extend_from_slice(&[22, 3, 1]);
        out.extend_from_slice(&(chunk.len() as u16).to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out
}

/// A ClientHello with these extensions.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, data) in extensions {
        list.extend_from_slice(&kind.to_be_bytes());
        list.extend_from_slice(&(data.len() as u16).to_be_bytes());
        list.extend_from_slice(data);
    }
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&(list.len() as u16).to_be_bytes());
    body.extend_from_slice(&list);
    let mut message = vec![1];
    message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend_from_slice(&body);
    message
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    let mut data = ((name.len() + 3) as u16).to_be_bytes().to_vec();
    data.push(0);
    data.extend_from_slice(&(name.len() as u16).to_be_bytes());
    data.extend_from_slice(name);
    (0, data)
}

#[test]
fn name_and_protocols_are_read_from_a_real_hello_with_a_post_quantum_key_share() {
    let bytes = hello("prod.orders.meshproxy.internal");
    assert!(bytes.len() > 1300, "X25519MLKEM768 makes it large: {}", bytes.len());
    let hello = read(&bytes).expect("TLS").expect("complete");
    assert_eq!(hello.server_name.as_deref(), Some("prod.orders.meshproxy.internal"));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn a_hello_split_at_every_byte_is_the_same_hello() {
    let bytes = hello("a.example");
    let whole = read(&bytes).expect("TLS");
    for split in 0..bytes.len() {
        let mut reader = Reader::default();
        assert_eq!(reader.feed(&bytes[..split]), Ok(None), "split at {split}");
        assert_eq!(reader.feed(&bytes[split..]), Ok(whole.clone()), "split at {split}");
    }
}

#[test]
fn records_of_any_size_make_the_same_hello() {
    let message = message(&[sni(b"a.example")]);
    for size in 1..message.len() {
        let mut reader = Reader::default();
        let mut found = None;
        for byte in records(&message, size) {
            found = reader.feed(&[byte]).expect("TLS");
        }
        assert_eq!(found.expect("complete").server_name.as_deref(), Some("a.example"), "records of {size}");
    }
}

#[test]
fn what_is_not_tls_is_told_by_its_first_bytes() {
    assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(HelloError::NotTls));
    assert_eq!(read(b"SSH-2.0-x"), Err(HelloError::NotTls));
    assert_eq!(read(&[22, 9]), Err(HelloError::NotTls));
    assert_eq!(read(&[22, 3, 1, 0, 0]), Err(HelloError::NotTls), "an empty record");
    assert_eq!(read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Err(HelloError::NotTls), "a ServerHello");
    assert_eq!(read(&[0x80, 0x2e, 1, 3, 1]), Err(HelloError::NotTls), "SSL 2");
}

#[test]
fn other_records_inside_the_hello_are_refused() {
    let mut bytes = records(&message(&[sni(b"a.example")])[..10], 10);
    bytes.extend_from_slice(&[21, 3, 1, 0, 2, 1, 0]);
    assert_eq!(read(&bytes), Err(HelloError::Malformed));
}

#[test]
fn a_hello_over_16_kib_is_refused_at_its_length_and_one_below_is_read() {
    let big = |len: usize| message(&[sni(b"a.example"), (21, vec![0; len])]);
    let below = big(MAX_HELLO - 100);
    assert!(read(&records(&below, 4096)).expect("TLS").is_some());
    let above = records(&big(MAX_HELLO), 4096);
    assert_eq!(read(&above[..9]), Err(HelloError::TooLong), "nothing more is waited for");
}

#[test]
fn truncated_lengths_inside_are_malformed_and_never_panic() {
    let good = message(&[sni(b"a.example"), (16, vec![0, 3, 2, b'h', b'2'])]);
    for at in 4..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = read(&records(&bad, 1 << 14));
        }
    }
    let mut cut = good.clone();
    cut.truncate(good.len() - 4);
    let len = (cut.len() - 4) as u32;
    cut[1..4].copy_from_slice(&len.to_be_bytes()[1..]);
    assert_eq!(read(&records(&cut, 1 << 14)), Err(HelloError::Malformed));
}

#[test]
fn no_extension_is_no_name() {
    assert_eq!(read(&records(&message(&[]), 99)).expect("TLS").expect("complete").server_name, None);
}

#[test]
fn a_second_server_name_is_refused_wherever_it_stands() {
    let twice = message(&[sni(b"a.example"), sni(b"b.example")]);
    assert_eq!(read(&records(&twice, 999)), Err(HelloError::InvalidServerName));
    let mut data = sni(b"a.example").1[2..].to_vec();
    data.extend_from_slice(&sni(b"b.example").1[2..]);
    let mut list = (data.len() as u16).to_be_bytes().to_vec();
    list.extend_from_slice(&data);
    assert_eq!(read(&records(&message(&[(0, list)]), 999)), Err(HelloError::InvalidServerName));
}

#[test]
fn names_are_canonical_or_refused() {
    let good = [
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("_x.a-b.example", "_x.a-b.example"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("XN--MNCHEN-3YA.DE", "xn--mnchen-3ya.de"),
        ("localhost", "localhost"),
    ];
    for (name, canonical) in good {
        assert_eq!(canonical_name(name).as_deref(), Some(canonical), "{name}");
    }
    let long = "a.".repeat(127) + "example";
    let label = "a".repeat(64) + ".example";
    let bad = [
        "",
        ".",
        "a..example",
        ".example",
        "a.example..",
        "127.0.0.1",
        "::1",
        "[::1]",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "0X7F000001",
        "127.0X1",
        "münchen.de",
        "a b.example",
        "a\0.example",
        "-a.example",
        "a-.example",
        "xn--.de",
        "xn--a.de",
        "xn--mnchen-3yb-.de",
        &long,
        &label,
    ];
    for name in bad {
        assert_eq!(canonical_name(name), None, "{name:?}");
    }
}
