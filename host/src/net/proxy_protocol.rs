//! The PROXY protocol, versions 1 and 2: who a proxy says is at the other end of its connection
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! [`Reader`] is fed bytes as they come, and takes those that belong to the header, which is never guessed: whoever
//! feeds it knows that there must be one. [`Header::write`] is the other way round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::cluster::ProxyVersion;

/// The longest header of version 2 that is read, in bytes: its addresses take 232 at most, and what follows is
/// skipped. A certificate of the client fits in.
pub const MAX_HEADER: usize = 4096;

/// The longest line of version 1, its end included (section 2.1).
const MAX_LINE: usize = 107;

/// Version 2 begins with this, which no other protocol does (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2: signature, version and command, family, length.
const FIXED: usize = 16;

/// Version 2 and the command: the connection is the proxy's own, or passed on.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Nothing of anybody else: the connection is the proxy's own (`LOCAL`, as of its health checks), or its other end
    /// has no address that could be told (`UNKNOWN`, a Unix socket). The connection's own addresses count.
    Own,
    /// Who is at the other end.
    Told {
        /// The client.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They do not begin as one.
    #[error("no PROXY protocol header; have the proxy send one, or take it out of `proxy_protocol.from`")]
    Missing,
    /// They begin as one, and go on as none.
    #[error("malformed PROXY protocol header")]
    Malformed,
    /// It is longer than a line of version 1 may be, or than [`MAX_HEADER`].
    #[error("PROXY protocol header over 107 bytes (version 1) or 4 KiB (version 2)")]
    TooLong,
}

/// Puts a header together from the bytes of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// The header as far as it is here.
    header: Vec<u8>,
}

impl Reader {
    /// Takes further bytes: how many of them belong to the header, and what it says once it is complete. As long as it is
    /// not, all of them belong to it.
    ///
    /// # Errors
    /// As soon as it is clear that this is no header.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Header>), ProxyError> {
        let before = self.header.len();
        for (taken, byte) in bytes.iter().enumerate() {
            let Some(len) = self.whole()? else {
                self.header.push(*byte);
                continue;
            };
            // The rest of version 2 in one go.
            let wanted = len - self.header.len();
            let rest = bytes.get(taken..).unwrap_or(&[]);
            let rest = rest.get(..wanted).unwrap_or(rest);
            self.header.extend_from_slice(rest);
            break;
        }
        let taken = self.header.len() - before;
        match self.whole()? {
            Some(len) if len == self.header.len() => self.parse().map(|header| (taken, Some(header))),
            Some(_) | None => Ok((taken, None)),
        }
    }

    /// How long the header is, once that is known.
    fn whole(&self) -> Result<Option<usize>, ProxyError> {
        let header = self.header.as_slice();
        if header.first() == Some(&b'P') {
            return whole_line(header);
        }
        let begun = header.len().min(SIGNATURE.len());
        if header.get(..begun) != SIGNATURE.get(..begun) {
            return Err(ProxyError::Missing);
        }
        let Some(&[version, family, high, low]) = header.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
        // Datagrams are none of a stream's.
        let known = matches!(family, 0x00 | 0x11 | 0x21 | 0x31);
        if !matches!((version, known), (LOCAL, _) | (PROXY, true)) {
            return Err(ProxyError::Malformed);
        }
        match FIXED + usize::from(u16::from_be_bytes([high, low])) {
            len if len > MAX_HEADER => Err(ProxyError::TooLong),
            len => Ok(Some(len)),
        }
    }

    /// Reads what has come whole.
    fn parse(&self) -> Result<Header, ProxyError> {
        if self.header.starts_with(b"P") {
            let line = self.header.strip_suffix(b"\r\n").ok_or(ProxyError::Malformed)?;
            return line_of(str::from_utf8(line).map_err(|_| ProxyError::Malformed)?);
        }
        let (fixed, rest) = self.header.split_first_chunk::<FIXED>().ok_or(ProxyError::Malformed)?;
        let &[.., version, family, _, _] = fixed;
        // Whatever else is said of a connection of the proxy's own is not to be looked at (section 2.2).
        if version == LOCAL {
            return Ok(Header::Own);
        }
        let (told, extensions) = addresses(family, rest)?;
        check_extensions(extensions, &self.header)?;
        Ok(told)
    }
}

/// How long a line of version 1 is, once its end is here.
fn whole_line(line: &[u8]) -> Result<Option<usize>, ProxyError> {
    const BEGIN: &[u8] = b"PROXY ";
    let begun = line.len().min(BEGIN.len());
    if line.get(..begun) != BEGIN.get(..begun) {
        return Err(ProxyError::Missing);
    }
    match *line {
        [.., b'\r', b'\n'] => Ok(Some(line.len())),
        [.., b'\n'] => Err(ProxyError::Malformed),
        [.., b'\r', other] if other != b'\n' => Err(ProxyError::Malformed),
        _ if line.len() >= MAX_LINE => Err(ProxyError::TooLong),
        _ => Ok(None),
    }
}

/// What a line of version 1 says (section 2.1).
fn line_of(line: &str) -> Result<Header, ProxyError> {
    let mut words = line.split(' ');
    let protocol = (words.next(), words.next());
    if protocol == (Some("PROXY"), Some("UNKNOWN")) {
        // Whatever follows is not to be looked at.
        return Ok(Header::Own);
    }
    let mut word = || words.next().ok_or(ProxyError::Malformed);
    let [source, destination, source_port, destination_port] = [word()?, word()?, word()?, word()?];
    let address = |text: &str| -> Option<IpAddr> {
        match protocol.1 {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            Some(_) | None => None,
        }
    };
    let told = || {
        let source = (address(source)?, port(source_port)?).into();
        let destination = (address(destination)?, port(destination_port)?).into();
        Some(Header::Told { source, destination })
    };
    told().filter(|_| words.next().is_none()).ok_or(ProxyError::Malformed)
}

/// A port in decimal, without a sign or zeros before it.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| digits && plain)
}

/// The addresses of version 2, and what follows them.
fn addresses(family: u8, block: &[u8]) -> Result<(Header, &[u8]), ProxyError> {
    let told = |source: IpAddr, destination: IpAddr, ports: &[u8; 4]| {
        let [a, b, c, d] = *ports;
        let source = (source, u16::from_be_bytes([a, b])).into();
        Header::Told { source, destination: (destination, u16::from_be_bytes([c, d])).into() }
    };
    match family {
        0x11 => {
            let (source, rest) = block.split_first_chunk::<4>().ok_or(ProxyError::Malformed)?;
            let (destination, rest) = rest.split_first_chunk::<4>().ok_or(ProxyError::Malformed)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(ProxyError::Malformed)?;
            Ok((told((*source).into(), (*destination).into(), ports), rest))
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(ProxyError::Malformed)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::Malformed)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(ProxyError::Malformed)?;
            Ok((told((*source).into(), (*destination).into(), ports), rest))
        }
        // Two paths of 108 bytes, which are no addresses of ours.
        0x31 => {
            let rest = block.get(216..).ok_or(ProxyError::Malformed)?;
            Ok((Header::Own, rest))
        }
        // Unspecified: what follows is not to be looked at.
        0x00 => Ok((Header::Own, &[])),
        _ => Err(ProxyError::Malformed),
    }
}

/// Skips what follows the addresses; a checksum, when there is one, has to be right (section 2.2.3).
fn check_extensions(mut rest: &[u8], header: &[u8]) -> Result<(), ProxyError> {
    const CRC32C: u8 = 3;
    while let Some((&[kind, high, low], more)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, more) = more.split_at_checked(len).ok_or(ProxyError::Malformed)?;
        rest = more;
        if kind != CRC32C {
            continue;
        }
        let told = <[u8; 4]>::try_from(value).map_err(|_| ProxyError::Malformed)?;
        // It is made over the header with zeros in its own place.
        let at = header.len() - rest.len() - told.len();
        let (before, after) = (header.get(..at), header.get(at + told.len()..));
        let parts = [before.unwrap_or(&[]), &[0; 4], after.unwrap_or(&[])];
        if crc32c(parts.into_iter().flatten().copied()) != u32::from_be_bytes(told) {
            return Err(ProxyError::Malformed);
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(ProxyError::Malformed) }
}

/// CRC-32C (RFC 3385): the checksum of SCTP. A header is short, and seldom has one.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

impl Header {
    /// Who is at the other end of a connection that is passed on.
    pub fn told(source: SocketAddr, destination: SocketAddr) -> Self {
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let (from, to) = match (from, to) {
            // Both are of one family.
            (IpAddr::V4(from), IpAddr::V6(_)) => (from.to_ipv6_mapped().into(), to),
            (IpAddr::V6(_), IpAddr::V4(to)) => (from, to.to_ipv6_mapped().into()),
            same => same,
        };
        let source = SocketAddr::new(from, source.port());
        Self::Told { source, destination: SocketAddr::new(to, destination.port()) }
    }

    /// The header on the wire.
    pub fn write(&self, version: ProxyVersion) -> Vec<u8> {
        match version {
            ProxyVersion::V1 => self.line().into_bytes(),
            ProxyVersion::V2 => self.binary(),
        }
    }

    fn line(&self) -> String {
        let Self::Told { source, destination } = self else { return "PROXY UNKNOWN\r\n".to_owned() };
        let family = if source.is_ipv4() { 4 } else { 6 };
        let (from, to) = (source.ip(), destination.ip());
        format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), destination.port())
    }

    fn binary(&self) -> Vec<u8> {
        const TCP4: u8 = 0x11;
        const TCP6: u8 = 0x21;
        let mut header = Vec::with_capacity(FIXED + 36);
        header.extend_from_slice(&SIGNATURE);
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        match self {
            Self::Own => header.extend_from_slice(&[LOCAL, 0, 0, 0]),
            Self::Told { source, destination } => {
                let (family, len) = if source.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
                header.extend_from_slice(&[PROXY, family, 0, len]);
                [source, destination].iter().for_each(|end| header.extend(octets(end.ip())));
                [source, destination].iter().for_each(|end| header.extend(end.port().to_be_bytes()));
            }
        }
        header
    }
}

#[cfg(test)]
mod tests;
