//! The PROXY protocol in tests, written and read by hand: nothing here comes from the code under test.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
pub const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A line of version 1 for a client.
pub fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (family, to) = if client.is_ipv4() { (4, "198.51.100.2") } else { (6, "2001:db8:9::2") };
    format!("PROXY TCP{family} {} {to} {} 443\r\n", client.ip(), client.port()).into_bytes()
}

/// A header of version 2: version and command, family, what follows.
///
/// # Panics
/// When it is longer than can be.
pub fn v2_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, rest].concat()
}

/// A header of version 2 for a client, with an extension that nobody knows.
pub fn v2(client: &str) -> Vec<u8> {
    let (family, addresses) = match client.parse().expect("an address") {
        SocketAddr::V4(client) => {
            (0x11, [&client.ip().octets()[..], &[198, 51, 100, 2], &client.port().to_be_bytes()].concat())
        }
        SocketAddr::V6(client) => {
            let to = std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 2);
            (0x21, [&client.ip().octets()[..], &to.octets(), &client.port().to_be_bytes()].concat())
        }
    };
    v2_of(0x21, family, &[&addresses[..], &443_u16.to_be_bytes(), b"\xea\0\x03abc"].concat())
}

/// Reads a header of either version, and not a byte of what follows it.
///
/// # Errors
/// When the connection ends before.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut header = vec![socket.read_u8().await?];
    if header == b"P" {
        while !header.ends_with(b"\r\n") {
            header.push(socket.read_u8().await?);
        }
        return Ok(header);
    }
    header.resize(16, 0);
    socket.read_exact(&mut header[1..]).await?;
    let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + len, 0);
    socket.read_exact(&mut header[16..]).await?;
    Ok(header)
}

/// What a header says, for people: the client and where it went, or that it is nobody's.
///
/// # Panics
/// When it is no header that Weir would send.
pub fn told(header: &[u8]) -> String {
    if header.starts_with(b"PROXY ") {
        let line = String::from_utf8_lossy(header);
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        return match words[..] {
            ["PROXY", "UNKNOWN"] => "nobody".to_owned(),
            ["PROXY", "TCP4" | "TCP6", from, to, from_port, to_port] => {
                format!("{from} {from_port} > {to} {to_port}")
            }
            _ => panic!("{line}"),
        };
    }
    let address = |octets: &[u8]| match octets.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(octets).expect("four")),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(octets).expect("sixteen")),
    };
    let size = match (header[12], header[13], header.len()) {
        (0x20, 0, 16) => return "nobody".to_owned(),
        (0x21, 0x11, 28) => 4,
        (0x21, 0x21, 52) => 16,
        odd => panic!("{odd:?}"),
    };
    let (from, to) = (&header[16..16 + size], &header[16 + size..16 + 2 * size]);
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let ports = 16 + 2 * size;
    format!("{} {} > {} {}", address(from), port(ports), address(to), port(ports + 2))
}
