//! The frames of an HTTP/2 connection, as far as their heads tell (RFC 9113 section 4.1). Payloads are passed over, and
//! nothing is kept of them.

/// The kinds of frames (RFC 9113 section 6) that are told apart.
pub const DATA: u8 = 0x0;
/// Begins a stream, or ends it with trailers.
pub const HEADERS: u8 = 0x1;
/// Ends a stream out of turn.
pub const RST_STREAM: u8 = 0x3;
/// Ends the connection.
pub const GOAWAY: u8 = 0x7;
/// Goes on with what HEADERS began.
pub const CONTINUATION: u8 = 0x9;

/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 0x1;
/// The flag of the last frame of a header block.
pub const END_HEADERS: u8 = 0x4;

/// The head of a frame, in bytes.
const HEAD: usize = 9;
/// With the front of its payload.
const WITH_FRONT: usize = HEAD + FRONT;
/// What is looked at of a payload at the most: as much as tells what a GOAWAY of h2 is for.
const FRONT: usize = 18;

/// What is known of a frame before all of its payload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream that it concerns; 0 is the connection.
    pub stream: u32,
    /// The bytes of its payload.
    pub len: usize,
    /// The first of them, of RST_STREAM, HEADERS and GOAWAY; where there are none, zeros.
    pub front: [u8; FRONT],
}

impl Frame {
    /// The code of an RST_STREAM (RFC 9113 section 7).
    pub fn code(&self) -> u32 {
        let [a, b, c, d, ..] = self.front;
        u32::from_be_bytes([a, b, c, d])
    }

    fn is_looked_into(kind: u8) -> bool {
        matches!(kind, RST_STREAM | HEADERS | GOAWAY)
    }
}

/// Finds the heads of frames in the bytes of one direction, however they are cut.
#[derive(Debug)]
pub struct Scanner {
    head: [u8; WITH_FRONT],
    have: usize,
    /// What is still to come of a payload.
    skip: usize,
}

impl Scanner {
    /// A scanner for a direction that begins with so many bytes that are no frame.
    pub fn behind(preface: usize) -> Self {
        Self { head: [u8::MAX; WITH_FRONT], have: 0, skip: preface }
    }

    /// Reads on, and tells of each frame whose head is now complete.
    pub fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let (part, rest) = bytes.split_at(bytes.len().min(self.wanted() - self.have));
            if let Some(free) = self.head.get_mut(self.have..self.have + part.len()) {
                free.copy_from_slice(part);
            }
            self.have += part.len();
            bytes = rest;
            // With the head complete it is clear how much of the payload is wanted, too.
            if self.have == self.wanted() {
                self.skip = HEAD + self.len() - self.have;
                self.have = 0;
                each(self.frame());
            }
        }
    }

    /// Whether a frame has begun and is not here in full.
    pub fn is_within(&self) -> bool {
        self.have > 0 || self.skip > 0
    }

    /// Whether a frame has begun and is not here in full, unless it is known to be of this kind.
    pub fn is_within_other_than(&self, kind: u8) -> bool {
        self.have > 0 || (self.skip > 0 && self.kind() != kind)
    }

    fn wanted(&self) -> usize {
        let fronted = self.have >= HEAD && Frame::is_looked_into(self.kind());
        if fronted { WITH_FRONT.min(HEAD + self.len()) } else { HEAD }
    }

    fn kind(&self) -> u8 {
        let [_, _, _, kind, ..] = self.head;
        kind
    }

    fn len(&self) -> usize {
        let [a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    fn frame(&self) -> Frame {
        let [_, _, _, kind, flags, a, b, c, d, mut front @ ..] = self.head;
        let known = if Frame::is_looked_into(kind) { self.len() } else { 0 };
        front.iter_mut().skip(known).for_each(|byte| *byte = 0);
        // The first bit is reserved.
        let stream = u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1);
        Frame { kind, flags, stream, len: self.len(), front }
    }
}

/// A GOAWAY (RFC 9113 section 6.8) as it is sent: the last stream that was looked at, the code, and what a human reads.
pub fn goaway(last: u32, code: u32, text: &str) -> Vec<u8> {
    let len = u16::try_from(8 + text.len()).unwrap_or(8);
    let mut frame = vec![0];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last.to_be_bytes());
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(text.as_bytes().get(..usize::from(len) - 8).unwrap_or_default());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame on the wire.
    fn wire(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn every_frame_is_found_wherever_the_bytes_are_cut() {
        let mut bytes = b"PRI".to_vec();
        bytes.extend(wire(HEADERS, END_HEADERS, 1, b"headers"));
        bytes.extend(wire(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
        bytes.extend(wire(RST_STREAM, 0, 0x8000_0003, &[9, 9]));
        bytes.extend(wire(DATA, END_STREAM, 5, b""));
        bytes.extend(wire(DATA, 0, 5, &[7; 300]));
        let frame = |kind, flags, stream, len, known: &[u8]| {
            let mut front = [0; FRONT];
            front[..known.len()].copy_from_slice(known);
            Frame { kind, flags, stream, len, front }
        };
        for size in 1..bytes.len() {
            let mut scanner = Scanner::behind(3);
            let mut found = Vec::new();
            bytes.chunks(size).for_each(|chunk| scanner.scan(chunk, |frame| found.push(frame)));
            let expected = [
                frame(HEADERS, END_HEADERS, 1, 7, b"headers"),
                frame(RST_STREAM, 0, 1, 4, &[0, 0, 0, 8]),
                frame(RST_STREAM, 0, 3, 2, &[9, 9]),
                frame(DATA, END_STREAM, 5, 0, &[]),
                frame(DATA, 0, 5, 300, &[]),
            ];
            assert_eq!(found, expected, "{size}");
            assert!(!scanner.is_within(), "{size}");
        }
    }

    #[test]
    fn a_frame_that_is_not_here_in_full_is_known() {
        let mut scanner = Scanner::behind(0);
        let bytes = wire(HEADERS, END_HEADERS, 1, b"ab");
        for (byte, within) in bytes.iter().zip((1..=bytes.len()).map(|len| len < bytes.len())) {
            scanner.scan(&[*byte], |_| {});
            assert_eq!(scanner.is_within(), within);
        }
    }

    #[test]
    fn a_goaway_is_a_frame_that_ends_where_it_says() {
        let bytes = goaway(7, 11, "calm");
        assert_eq!(bytes, wire(GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11, b'c', b'a', b'l', b'm']));
    }
}
