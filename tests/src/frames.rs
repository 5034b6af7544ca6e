//! HTTP/2 by hand: frames, header blocks without compression, and a client that sends what it likes.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::soon;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kinds of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// Begins a stream.
pub const HEADERS: u8 = 1;
/// Says what matters more.
pub const PRIORITY: u8 = 2;
/// Ends a stream out of turn.
pub const RST_STREAM: u8 = 3;
/// Says how the sender wants it.
pub const SETTINGS: u8 = 4;
/// Announces what nobody asked for.
pub const PUSH_PROMISE: u8 = 5;
/// Asks whether the other side is there.
pub const PING: u8 = 6;
/// Ends the connection.
pub const GOAWAY: u8 = 7;
/// Opens a window.
pub const WINDOW_UPDATE: u8 = 8;
/// Goes on with a header block.
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// The end of a header block.
pub const END_HEADERS: u8 = 0x4;
/// There is padding.
pub const PADDED: u8 = 0x8;
/// There is a priority.
pub const WITH_PRIORITY: u8 = 0x20;

/// A frame on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A number with a prefix of so many bits (RFC 7541 section 5.1). `first`: the bits before the prefix.
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// A field without indexing and without compression (RFC 7541 section 6.2.2).
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &integer(0, 7, name.len()), name, &integer(0, 7, value.len()), value].concat()
}

/// A header block.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_ref(), value.as_ref())).collect()
}

/// A request without a body.
pub fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(stream: u32, fields: &[(N, V)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields))
}

/// A GET of a path.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    request(stream, &[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

/// A reset of a stream.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// One setting (RFC 9113 section 6.5.2).
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A larger window.
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A frame that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// What became of a stream, or of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Status(u16),
    /// It was reset.
    Reset(u32),
    /// The connection was ended with this code.
    GoAway(u32),
    /// The connection was ended without a word.
    Closed,
}

/// What connections are made of.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client that sends what it likes.
pub struct Peer {
    io: Box<dyn Io>,
    /// The bytes that it has sent.
    pub sent: usize,
}

impl Peer {
    /// A connection that begins in order: with the preface and settings.
    pub async fn begin(io: impl Io + 'static) -> Self {
        let mut peer = Self::over(io);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        peer
    }

    /// A connection in the clear that begins in order.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::begin(TcpStream::connect(address).await.expect("it listens")).await
    }

    /// A connection on which nothing was said.
    pub fn over(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), sent: 0 }
    }

    /// Sends bytes. False when the connection takes no more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        let sent = async { self.io.write_all(bytes).await.and(self.io.flush().await).is_ok() };
        soon("the gateway to take it", sent).await
    }

    /// Sends bytes again and again, reading nothing, until the connection takes no more, or `times` over.
    pub async fn flood(&mut self, bytes: &[u8], times: usize) {
        for _ in 0..times {
            if !self.send(bytes).await {
                return;
            }
        }
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("a frame", async {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.io.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        })
        .await
    }

    /// What becomes of a stream: what comes first of an answer, a reset and the end of the connection.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let Some(frame) = self.next().await else { return Fate::Closed };
            match frame.kind {
                HEADERS if frame.stream == stream => return Fate::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Fate::Reset(number(&frame.payload)),
                // A connection that ends in order goes on until its streams have ended.
                GOAWAY if number(&frame.payload[4..]) != 0 => {
                    return Fate::GoAway(number(&frame.payload[4..]));
                }
                _ => {}
            }
        }
    }

    /// What becomes of the connection: the code and the text of its last GOAWAY, once it has ended. `None` when there
    /// was none.
    pub async fn end(&mut self) -> Option<(u32, String)> {
        let mut last = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                let text = String::from_utf8_lossy(&frame.payload[8..]).into_owned();
                last = Some((number(&frame.payload[4..]), text));
            }
        }
        last
    }

    /// Whether the connection still answers a ping.
    pub async fn is_alive(&mut self) -> bool {
        if !self.send(&frame(PING, 0, 0, b"are you?")).await {
            return false;
        }
        while let Some(frame) = self.next().await {
            if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == b"are you?" {
                return true;
            }
        }
        false
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The status at the front of the first header block of a connection: one of the static table (RFC 7541 appendix A), or
/// a literal, whose three digits are plain or in Huffman's code (appendix B).
fn status(block: &[u8]) -> u16 {
    // The encoder may say first how large its table is.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    let common = [200, 204, 206, 304, 400, 404, 500];
    if let 0x88..=0x8e = block[0] {
        return common[usize::from(block[0] - 0x88)];
    }
    assert_eq!(block[0] & 0x3f, 8, "a literal with the name :status: {block:?}");
    let (huffman, len) = (block[1] & 0x80 != 0, usize::from(block[1] & 0x7f));
    let value = &block[2..2 + len];
    let digits = if huffman { digits(value) } else { String::from_utf8_lossy(value).into_owned() };
    digits.parse().unwrap_or_else(|_| panic!("no status: {block:?}"))
}

/// Three digits in Huffman's code: 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let mut rest = &bits[..];
    let mut digits = String::new();
    while digits.len() < 3 {
        let short = number(&rest[..5]);
        let (digit, len) = if short <= 2 { (short, 5) } else { (number(&rest[..6]) - 0b01_1001 + 3, 6) };
        digits.push(char::from(b'0' + digit));
        rest = &rest[len..];
    }
    digits
}
