//! Bodies: the frames they travel in, and the buffer in which a filter may hold and edit them.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// A piece of a body, or its end.
#[derive(Debug)]
pub enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Trailers; nothing comes after them.
    Trailers(HeaderMap),
}

/// Bytes that can be held, read and edited. A single piece that nobody edits is never copied.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Bytes,
    /// Where pieces are gathered as soon as there is more than one. Then `bytes` is empty.
    gathered: BytesMut,
}

impl Buffer {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.gathered.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.is_empty() {
            self.bytes = piece;
        } else if !piece.is_empty() {
            self.gather();
            self.gathered.extend_from_slice(&piece);
        }
    }

    /// All bytes, as a slice.
    pub fn as_slice(&self) -> &[u8] {
        if self.gathered.is_empty() { &self.bytes } else { &self.gathered }
    }

    /// Replaces a range, which is cut to what is there, by `data`.
    pub fn splice(&mut self, range: Range<usize>, data: &[u8]) {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        if start == 0 && end == self.len() {
            *self = Self { bytes: Bytes::copy_from_slice(data), gathered: BytesMut::new() };
            return;
        }
        self.gather();
        let tail = self.gathered.split_off(end);
        self.gathered.truncate(start);
        self.gathered.extend_from_slice(data);
        self.gathered.unsplit(tail);
    }

    /// Takes all bytes out.
    pub fn take(&mut self) -> Bytes {
        if self.gathered.is_empty() {
            std::mem::take(&mut self.bytes)
        } else {
            std::mem::take(&mut self.gathered).freeze()
        }
    }

    fn gather(&mut self) {
        if self.gathered.is_empty() && !self.bytes.is_empty() {
            self.gathered = BytesMut::from(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(pieces: &[&'static str]) -> Buffer {
        let mut buffer = Buffer::default();
        pieces.iter().for_each(|piece| buffer.push(Bytes::from_static(piece.as_bytes())));
        buffer
    }

    #[test]
    fn pieces_are_gathered_in_order() {
        let mut buffer = buffer(&["ab", "", "cd", "e"]);
        assert_eq!((buffer.len(), buffer.as_slice()), (5, b"abcde".as_slice()));
        assert_eq!(buffer.take(), "abcde");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_range_is_replaced_and_cut_to_what_is_there() {
        for (range, expected) in
            [(0..0, "XYabc"), (0..9, "XY"), (1..2, "aXYc"), (3..3, "abcXY"), (7..9, "abcXY"), (0..3, "XY")]
        {
            let mut buffer = buffer(&["a", "bc"]);
            buffer.splice(range.clone(), b"XY");
            assert_eq!(buffer.take(), expected, "{range:?}");
        }
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        let piece = Bytes::from(vec![1, 2, 3]);
        let at = piece.as_ptr();
        let mut buffer = Buffer::default();
        buffer.push(piece);
        assert_eq!(buffer.take().as_ptr(), at);
    }
}
