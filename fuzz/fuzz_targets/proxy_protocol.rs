//! The PROXY protocol: what a proxy says before everything else.
//!
//! A header says the same however it is cut, and nothing behind it is taken. What is read can be written, in either
//! version, and is read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::config::cluster::ProxyVersion;
use weir::net::proxy_protocol::{Header, MAX_HEADER, ProxyError, Reader};

/// What is read of some bytes in pieces of a size: what the header says, and how many bytes it has.
fn read(bytes: &[u8], piece: usize) -> Result<Option<(Header, usize)>, ProxyError> {
    let (mut reader, mut taken) = (Reader::default(), 0);
    for piece in bytes.chunks(piece) {
        let (of_these, header) = reader.feed(piece)?;
        taken += of_these;
        assert!(of_these <= piece.len() && taken <= MAX_HEADER);
        if let Some(header) = header {
            return Ok(Some((header, taken)));
        }
        assert_eq!(of_these, piece.len(), "a header that is not complete takes all");
    }
    Ok(None)
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (piece, begun, bytes) = input;
    // Half of the inputs need not find out how version 2 begins.
    let begin: &[u8] = if begun { b"\r\n\r\n\0\r\nQUIT\n" } else { b"" };
    let bytes = [begin, bytes].concat();
    let whole = read(&bytes, bytes.len().max(1));
    assert_eq!(read(&bytes, usize::from(piece).max(1)), whole);
    let Ok(Some((header, len))) = whole else { return };
    assert_eq!(read(&bytes[..len], 1), Ok(Some((header, len))), "what stands behind it says nothing");
    assert_eq!(read(&bytes[..len - 1], 1), Ok(None), "all of it is needed");
    // As a client's address is passed on, both ends are of one family.
    let told = match header {
        Header::Own => Header::Own,
        Header::Told { source, destination } => Header::told(source, destination),
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let written = told.write(version);
        assert_eq!(read(&written, 7), Ok(Some((told, written.len()))), "{}", written.escape_ascii());
    }
});
