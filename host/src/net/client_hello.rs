//! Reads what a TLS client says first, without taking it from the stream.
//!
//! [`Reader`] is fed the bytes as they come and reassembles the handshake message across TCP segments and TLS
//! records (RFC 8446 section 5.1). It keeps no copy of what does not belong to the message; whoever feeds it
//! keeps the bytes and passes them on unchanged.

use std::net::IpAddr;

/// The longest ClientHello, in bytes of the handshake message. Post-quantum key shares take about 1.3 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name in its canonical form; `None` when the client sent none.
    pub server_name: Option<String>,
    /// The application protocols that it offers, in its order.
    pub alpn: Vec<Vec<u8>>,
}

/// Why bytes are not a ClientHello that Weir routes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are no TLS handshake record.
    #[error("not TLS")]
    NotTls,
    /// A record or the message is malformed.
    #[error("malformed ClientHello")]
    Malformed,
    /// The message is longer than [`MAX_HELLO`].
    #[error("ClientHello over 16 KiB")]
    TooLong,
    /// The server name is none that a host can have: an IP address, not ASCII, bad IDNA, too long, or there twice.
    #[error("invalid server name")]
    InvalidServerName,
}

/// Puts a ClientHello together from the bytes of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// The handshake message as far as it is here.
    message: Vec<u8>,
    /// The header of the record that is being read, as far as it is here.
    header: Vec<u8>,
    /// Bytes of the current record's body that are still to come.
    record: usize,
}

const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAX_RECORD: usize = 1 << 14;

impl Reader {
    /// Takes further bytes. `None` as long as the message is not complete.
    ///
    /// # Errors
    /// As soon as it is clear that the bytes are no ClientHello to route by.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        while !bytes.is_empty() {
            if self.record == 0 {
                let (part, rest) = bytes.split_at(bytes.len().min(RECORD_HEADER - self.header.len()));
                self.header.extend_from_slice(part);
                bytes = rest;
                self.open_record()?;
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.record));
            self.message.extend_from_slice(part);
            self.record -= part.len();
            bytes = rest;
            if let Some(body) = self.complete()? {
                return parse(body).map(Some);
            }
        }
        Ok(None)
    }

    /// Looks at the record header as soon as its bytes arrive.
    fn open_record(&mut self) -> Result<(), HelloError> {
        let first = self.message.is_empty();
        let wrong = if first { HelloError::NotTls } else { HelloError::Malformed };
        match *self.header.as_slice() {
            [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 0..=3] | [HANDSHAKE, 3, 0..=3, _] => Ok(()),
            [HANDSHAKE, 3, 0..=3, high, low] => {
                let len = usize::from(u16::from_be_bytes([high, low]));
                // An empty handshake record is forbidden (RFC 8446 section 5.1).
                if len == 0 || len > MAX_RECORD {
                    return Err(wrong);
                }
                self.record = len;
                self.header.clear();
                Ok(())
            }
            _ => Err(wrong),
        }
    }

    /// The body of the message once it is all here.
    fn complete(&self) -> Result<Option<&[u8]>, HelloError> {
        match *self.message.as_slice() {
            [] | [CLIENT_HELLO] | [CLIENT_HELLO, _] | [CLIENT_HELLO, _, _] => Ok(None),
            [CLIENT_HELLO, high, mid, low, ref body @ ..] => {
                let len = u32::from_be_bytes([0, high, mid, low]) as usize;
                if len > MAX_HELLO {
                    return Err(HelloError::TooLong);
                }
                Ok(body.get(..len))
            }
            _ => Err(HelloError::NotTls),
        }
    }
}

/// Reads from the front of bytes whose lengths a stranger chose.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], HelloError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        let (&byte, rest) = self.0.split_first().ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    fn short(&mut self) -> Result<u16, HelloError> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A vector with a length of one byte.
    fn vector8(&mut self) -> Result<Cursor<'a>, HelloError> {
        let len = self.byte()?;
        self.take(len.into()).map(Cursor)
    }

    /// A vector with a length of two bytes.
    fn vector16(&mut self) -> Result<Cursor<'a>, HelloError> {
        let len = self.short()?;
        self.take(len.into()).map(Cursor)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// Reads the body of a ClientHello (RFC 8446 section 4.1.2).
fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut body = Cursor(body);
    body.take(2 + 32)?; // legacy_version, random
    body.vector8()?; // legacy_session_id
    body.vector16()?; // cipher_suites
    body.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello { server_name: None, alpn: Vec::new() };
    if body.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.vector16()?;
    if !body.is_empty() {
        return Err(HelloError::Malformed);
    }
    let (mut named, mut alpn) = (false, false);
    while !extensions.is_empty() {
        let kind = extensions.short()?;
        let data = extensions.vector16()?;
        match kind {
            SERVER_NAME if std::mem::replace(&mut named, true) => return Err(HelloError::InvalidServerName),
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN if std::mem::replace(&mut alpn, true) => return Err(HelloError::Malformed),
            ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// The one host name of the extension (RFC 6066 section 3).
fn server_name(mut data: Cursor<'_>) -> Result<String, HelloError> {
    let mut list = data.vector16()?;
    let kind = list.byte()?;
    let name = list.vector16()?;
    if kind != HOST_NAME || !list.is_empty() || !data.is_empty() {
        return Err(HelloError::InvalidServerName);
    }
    let name = str::from_utf8(name.0).map_err(|_| HelloError::InvalidServerName)?;
    canonical_name(name).ok_or(HelloError::InvalidServerName)
}

fn protocols(mut data: Cursor<'_>) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut list = data.vector16()?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(list.vector8()?.0.to_vec());
    }
    Ok(protocols)
}

/// The one form in which a host name is compared: lower case, no trailing dot, labels of letters, digits, `-`
/// and `_`, valid IDNA, never an IP address.
pub fn canonical_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or(&name);
    // Nothing that ends in a number is a name: `127.1` and `0x7f.1` are addresses to some resolvers.
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if name.len() > 253 || numeric || name.parse::<IpAddr>().is_ok() || !name.split('.').all(label) {
        return None;
    }
    // A-labels must be what their own decoding encodes to.
    if name.split('.').any(|label| label.starts_with("xn--")) {
        let (_, checked) = idna::domain_to_unicode(&name);
        checked.ok()?;
        if idna::domain_to_ascii(&name).ok().as_deref() != Some(&name) {
            return None;
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests;
