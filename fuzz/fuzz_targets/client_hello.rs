//! What a TLS client says first, in any records and pieces.
//!
//! However it is cut, the same is read of it; and where rustls reads a ClientHello of it, too, that has the same name and
//! the same protocols.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;
use weir::net::client_hello::{ClientHello, HelloError, Reader};

#[derive(Debug, Arbitrary)]
struct Input {
    wire: Wire,
    cuts: [u16; 6],
}

#[derive(Debug, Arbitrary)]
enum Wire {
    /// Whatever comes.
    Raw(Vec<u8>),
    /// A message in records that end after each of these bytes.
    Hello { extensions: Vec<Extension>, behind: Vec<u8>, records: [u16; 3] },
}

#[derive(Debug, Arbitrary)]
enum Extension {
    Name(Vec<Part>),
    Names(Vec<(u8, Vec<Part>)>),
    Protocols(Vec<Vec<u8>>),
    Padding(u16),
    Any(u16, Vec<u8>),
}

/// A part of a name.
#[derive(Debug, Arbitrary)]
enum Part {
    Word(u8),
    Byte(u8),
    Many(u8),
}

const WORDS: [&str; 12] =
    ["a", "example", ".", "com", "xn--", "xn--mnchen-3ya", "127.0.0.1", "::1", "*", "_", "-", "B"];

impl Part {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Word(at) => out.extend_from_slice(WORDS[usize::from(*at) % WORDS.len()].as_bytes()),
            Self::Byte(byte) => out.push(*byte),
            Self::Many(times) => out.extend(std::iter::repeat_n(b'x', usize::from(*times))),
        }
    }
}

/// Bytes with their length before them, in two bytes.
fn vector(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn host(kind: u8, parts: &[Part]) -> Vec<u8> {
    let mut name = Vec::new();
    parts.iter().for_each(|part| part.write(&mut name));
    [&[kind], vector(&name).as_slice()].concat()
}

impl Extension {
    fn written(&self) -> Vec<u8> {
        let (kind, data) = match self {
            Self::Name(parts) => (0, vector(&host(0, parts))),
            Self::Names(names) => {
                let names: Vec<u8> = names.iter().flat_map(|(kind, parts)| host(kind % 2, parts)).collect();
                (0, vector(&names))
            }
            Self::Protocols(list) => {
                let one = |name: &Vec<u8>| [&[name.len() as u8], name.as_slice()].concat();
                (16, vector(&list.iter().flat_map(one).collect::<Vec<u8>>()))
            }
            Self::Padding(len) => (21, vec![0; usize::from(*len)]),
            Self::Any(kind, data) => (*kind, data.clone()),
        };
        [&u16::to_be_bytes(kind), vector(&data).as_slice()].concat()
    }
}

/// What no ClientHello of rustls lacks: supported versions, groups, signature algorithms.
const USUAL: &[u8] = b"\0\x2b\0\x03\x02\x03\x04\0\x0a\0\x04\0\x02\0\x1d\0\x0d\0\x04\0\x02\x08\x04";

fn wire(wire: &Wire) -> Vec<u8> {
    let (extensions, behind, records) = match wire {
        Wire::Raw(bytes) => return bytes.clone(),
        Wire::Hello { extensions, behind, records } => (extensions, behind, records),
    };
    let written: Vec<u8> = extensions.iter().flat_map(Extension::written).collect();
    let head = [b"\x03\x03".as_slice(), &[7; 32], b"\0", b"\0\x02\x13\x01", b"\x01\0"].concat();
    let body = [head, vector(&[USUAL, &written].concat())].concat();
    let message = [&[1], &(body.len() as u32).to_be_bytes()[1..], &body, behind].concat();
    let (mut out, mut rest) = (Vec::new(), message.as_slice());
    let mut ends = records.iter().map(|end| usize::from(*end));
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(rest.len().min(ends.next().unwrap_or(1 << 14)).min(1 << 14));
        out.extend([b"\x16\x03\x01", vector(record).as_slice()].concat());
        rest = behind;
    }
    out
}

fn in_pieces(wire: &[u8], cuts: &[u16]) -> Result<Option<ClientHello>, HelloError> {
    let (mut reader, mut rest) = (Reader::default(), wire);
    for cut in cuts {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*cut)));
        if let Some(hello) = reader.feed(piece)? {
            return Ok(Some(hello));
        }
        rest = behind;
    }
    reader.feed(rest)
}

fuzz_target!(|input: Input| {
    let wire = wire(&input.wire);
    let whole = in_pieces(&wire, &[]);
    let cut = in_pieces(&wire, &input.cuts);
    // An error may be seen earlier in pieces, or what follows a whole message not at all.
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
        (Err(_), Err(_)) => {}
        _ => panic!("{whole:?} at once, {cut:?} in pieces: {}", wire.escape_ascii()),
    }
    let Ok(Some(hello)) = whole else { return };
    let mut acceptor = Acceptor::default();
    // What it cannot take is its own affair.
    let _ = acceptor.read_tls(&mut wire.as_slice());
    let Ok(Some(accepted)) = acceptor.accept() else { return };
    let other = accepted.client_hello();
    let name = other.server_name().map(|name| name.to_ascii_lowercase());
    assert_eq!(hello.server_name, name.map(|name| name.trim_end_matches('.').to_owned()));
    let protocols: Vec<Vec<u8>> = other.alpn().map(|list| list.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    assert_eq!(hello.alpn, protocols);
});
