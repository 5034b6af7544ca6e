use super::*;

/// What is read of some bytes, fed in pieces that are cut there: what the header says, and the bytes behind it.
fn read(bytes: &[u8], cuts: &[usize]) -> Result<Option<(Header, usize)>, ProxyError> {
    let mut reader = Reader::default();
    let (mut taken, mut from) = (0, 0);
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let (of_these, header) = reader.feed(&bytes[from..to])?;
        taken += of_these;
        if let Some(header) = header {
            return Ok(Some((header, bytes.len() - taken)));
        }
        assert_eq!(of_these, to - from, "all of it belongs to a header that is not complete");
        from = to;
    }
    Ok(None)
}

fn whole(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let whole = read(bytes, &[]);
    for cut in 0..=bytes.len() {
        assert_eq!(read(bytes, &[cut]), whole, "cut at {cut}: {}", bytes.escape_ascii());
    }
    let each: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(read(bytes, &each), whole, "byte by byte: {}", bytes.escape_ascii());
    whole
}

fn told(source: &str, destination: &str) -> Header {
    let address = |text: &str| text.parse().expect("an address");
    Header::Told { source: address(source), destination: address(destination) }
}

/// A header of version 2.
fn v2(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[version, family], &len, rest].concat()
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

#[test]
fn lines_of_version_1_are_read_however_they_are_cut_and_what_follows_is_left() {
    let four = told("192.0.2.1:12345", "198.51.100.2:443");
    let six = told("[2001:db8::1]:0", "[::ffff:192.0.2.9]:65535");
    for (line, header) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", four),
        ("PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.9 0 65535\r\n", six),
        ("PROXY UNKNOWN\r\n", Header::Own),
        ("PROXY UNKNOWN ffff:f:f:f:f:f:f:f anything  at all 65535\r\n", Header::Own),
    ] {
        assert_eq!(whole(line.as_bytes()), Ok(Some((header, 0))), "{line}");
        let more = format!("{line}PROXY UNKNOWN\r\n");
        assert_eq!(whole(more.as_bytes()), Ok(Some((header, 15))), "{line}");
        assert_eq!(whole(&line.as_bytes()[..line.len() - 1]), Ok(None), "{line}");
    }
}

#[test]
fn lines_that_are_not_to_the_letter_are_malformed() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
        "PROXY UNKNOWN\rx\r\n",
        "PROXY UNKNOWN \u{ff}\n",
    ] {
        assert_eq!(whole(line.as_bytes()), Err(ProxyError::Malformed), "{}", line.escape_debug());
    }
    assert_eq!(whole(b"PROXY TCP4 \xff\r\n"), Err(ProxyError::Malformed));
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
    assert_eq!(whole(longest.as_bytes()), Ok(Some((Header::Own, 0))));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
    assert_eq!(whole(longer.as_bytes()), Err(ProxyError::TooLong));
}

#[test]
fn what_does_not_begin_as_a_header_is_none_from_the_first_byte_that_tells() {
    for bytes in [
        "GET / HTTP/1.1\r\n",
        "POST /",
        "PROXY: x",
        "PROXx",
        "\r\n\r\nGET",
        "\x16\x03\x01",
        "\r\n\r\n\0\r\nQUIT\r",
    ] {
        assert_eq!(whole(bytes.as_bytes()), Err(ProxyError::Missing), "{}", bytes.escape_debug());
    }
    assert_eq!(whole(b""), Ok(None));
    assert_eq!(whole(&SIGNATURE), Ok(None));
}

#[test]
fn addresses_of_version_2_are_read_and_connections_of_the_proxys_own_have_none() {
    let four = told("192.0.2.1:12345", "198.51.100.2:443");
    let six = [&[0x20; 16][..], &[0x21; 16], &[0, 80, 0, 81]].concat();
    let unix = [b'/'; 216];
    for (version, family, rest, header) in [
        (0x21, 0x11, &FOUR[..], four),
        (0x20, 0x11, &FOUR, Header::Own),
        (0x20, 0x00, &[], Header::Own),
        (0x20, 0x11, &FOUR[..3], Header::Own),
        (0x20, 0xff, b"anything", Header::Own),
        (0x21, 0x00, b"anything", Header::Own),
        (
            0x21,
            0x21,
            &six,
            told(
                "[2020:2020:2020:2020:2020:2020:2020:2020]:80",
                "[2121:2121:2121:2121:2121:2121:2121:2121]:81",
            ),
        ),
        (0x21, 0x31, &unix, Header::Own),
    ] {
        let bytes = v2(version, family, rest);
        assert_eq!(whole(&bytes), Ok(Some((header, 0))), "{version:x} {family:x}");
        assert_eq!(whole(&[&bytes[..], b"GET"].concat()), Ok(Some((header, 3))), "{version:x} {family:x}");
        assert_eq!(whole(&bytes[..bytes.len() - 1]), Ok(None), "{version:x} {family:x}");
    }
}

#[test]
fn what_version_2_does_not_know_is_malformed_and_what_is_too_long_is_not_waited_for() {
    for (version, family, rest) in [
        (0x11, 0x11, &FOUR[..]),
        (0x31, 0x11, &FOUR),
        (0x22, 0x11, &FOUR),
        // Datagrams.
        (0x21, 0x12, &FOUR),
        (0x21, 0x10, &FOUR),
        (0x21, 0x13, &FOUR),
        (0x21, 0x41, &FOUR),
        (0x21, 0x11, &FOUR[..11]),
        (0x21, 0x21, &FOUR),
        (0x21, 0x31, &[0; 215]),
        (0x21, 0x01, &FOUR),
    ] {
        assert_eq!(whole(&v2(version, family, rest)), Err(ProxyError::Malformed), "{version:x} {family:x}");
    }
    let most = [&FOUR[..], &[0xea, 0x0f, 0xe1], &[7; 0xfe1]].concat();
    assert_eq!((most.len(), v2(0x21, 0x11, &most).len()), (MAX_HEADER - 16, MAX_HEADER));
    assert!(matches!(read(&v2(0x21, 0x11, &most), &[]), Ok(Some((Header::Told { .. }, 0)))));
    let mut reader = Reader::default();
    let fixed = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    assert_eq!(reader.feed(&fixed), Err(ProxyError::TooLong), "its length alone tells");
    assert!(reader.header.capacity() < 100, "no room is made for what is only announced");
}

#[test]
fn extensions_are_skipped_and_a_checksum_has_to_be_right() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    let header = told("192.0.2.1:12345", "198.51.100.2:443");
    let extended = |extensions: &[u8]| v2(0x21, 0x11, &[&FOUR[..], extensions].concat());
    for good in [&b""[..], b"\x01\0\x02h2", b"\x04\0\0", b"\x02\0\x01a\x30\0\0\xff\0\x01x"] {
        assert_eq!(whole(&extended(good)), Ok(Some((header, 0))), "{}", good.escape_ascii());
    }
    for bad in [&b"\x01"[..], b"\x01\0", b"\x01\0\x02h", b"\x01\0\0\x02", b"\x03\0\x03abc", b"\x03\0\x04abcd"]
    {
        assert_eq!(whole(&extended(bad)), Err(ProxyError::Malformed), "{}", bad.escape_ascii());
    }
    let mut sound = extended(b"\x01\0\x02h2\x03\0\x04\0\0\0\0\x04\0\x01\0");
    let at = sound.len() - 8;
    let sum = crc32c(sound.iter().copied()).to_be_bytes();
    sound[at..at + 4].copy_from_slice(&sum);
    assert_eq!(whole(&sound), Ok(Some((header, 0))));
    // Without the word that it is one, nobody knows of the checksum.
    for bit in (8 * 12..8 * sound.len()).filter(|bit| bit / 8 != at - 3) {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(read(&flipped, &[]), Ok(Some((read, 0))) if read == header), "bit {bit}");
    }
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..2000 {
        let port = random.u16(..);
        let mut end = || match round % 3 {
            0 => SocketAddr::new(IpAddr::V4(random.u32(..).into()), port),
            _ => SocketAddr::new(IpAddr::V6(random.u128(..).into()), port),
        };
        let header = match round % 5 {
            4 => Header::Own,
            _ => Header::told(end(), end()),
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = header.write(version);
            assert_eq!(whole(&bytes), Ok(Some((header, 0))), "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn both_ends_are_told_in_one_family() {
    let address = |text: &str| text.parse().expect("an address");
    let told_of = |source, destination| Header::told(address(source), address(destination));
    assert_eq!(told_of("[::ffff:192.0.2.1]:1", "192.0.2.2:2"), told("192.0.2.1:1", "192.0.2.2:2"));
    assert_eq!(told_of("192.0.2.1:1", "[2001:db8::1]:2"), told("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2"));
    assert_eq!(told_of("[2001:db8::1]:1", "192.0.2.1:2"), told("[2001:db8::1]:1", "[::ffff:192.0.2.1]:2"));
}
