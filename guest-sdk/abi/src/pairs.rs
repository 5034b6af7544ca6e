//! How header maps and property maps cross the boundary.
//!
//! A little-endian count, then for each pair the lengths of key and value, then for each pair the key, a NUL,
//! the value, a NUL. An empty map is no bytes at all; a lone zero byte is read as an empty map too.

use alloc::vec::Vec;
use core::fmt;

/// The most pairs that one serialised map may hold (proxy-wasm-cpp-host's limit).
pub const MAX_PAIRS: usize = 1024;

/// The most bytes that one serialised map may take (proxy-wasm-cpp-host's limit).
pub const MAX_PAIRS_BYTES: usize = 1024 * 1024;

/// Why bytes are not a serialised map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairsError {
    /// Over [`MAX_PAIRS_BYTES`].
    TooLarge,
    /// Over [`MAX_PAIRS`].
    TooMany,
    /// Ends before the lengths say so.
    Truncated,
    /// A key or a value is not followed by NUL.
    MissingNul,
    /// Goes on after the last pair.
    TrailingBytes,
}

impl fmt::Display for PairsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the serialised map is larger than 1 MiB",
            Self::TooMany => "the serialised map has more than 1024 pairs",
            Self::Truncated => "the serialised map ends too early",
            Self::MissingNul => "a key or value in the serialised map is not followed by NUL",
            Self::TrailingBytes => "the serialised map goes on after its last pair",
        })
    }
}

impl core::error::Error for PairsError {}

/// The number of bytes that [`encode_pairs`] will append.
pub fn encoded_pairs_len<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    let (count, bytes) = pairs.fold((0, 0), |(n, bytes), (k, v)| (n + 1, bytes + 8 + k.len() + v.len() + 2));
    if count == 0 { 0 } else { 4 + bytes }
}

/// Appends the serialised form of a map to `out`. The pairs are walked more than once.
pub fn encode_pairs<'a, I>(pairs: impl Fn() -> I, out: &mut Vec<u8>)
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let count = pairs().count();
    if count == 0 {
        return;
    }
    out.extend_from_slice(&wire_len(count));
    for (key, value) in pairs() {
        out.extend_from_slice(&wire_len(key.len()));
        out.extend_from_slice(&wire_len(value.len()));
    }
    for (key, value) in pairs() {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
}

/// A length as it stands on the wire. Nothing in a 32-bit guest is longer than `u32::MAX`.
fn wire_len(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads a serialised map without copying it. The whole map is checked before the first pair is given out.
///
/// # Errors
/// When the bytes are not a well-formed map within the limits.
pub fn decode_pairs(bytes: &[u8]) -> Result<Pairs<'_>, PairsError> {
    if bytes.is_empty() || bytes == [0] {
        return Ok(Pairs { lengths: &[], data: &[] });
    }
    if bytes.len() > MAX_PAIRS_BYTES {
        return Err(PairsError::TooLarge);
    }
    let (count, rest) = bytes.split_first_chunk::<4>().ok_or(PairsError::Truncated)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
    if count > MAX_PAIRS {
        return Err(PairsError::TooMany);
    }
    let (lengths, data) = rest.split_at_checked(count * 8).ok_or(PairsError::Truncated)?;
    let pairs = Pairs { lengths, data };
    let mut walk = pairs.clone();
    while !walk.lengths.is_empty() {
        walk.step()?;
    }
    if walk.data.is_empty() { Ok(pairs) } else { Err(PairsError::TrailingBytes) }
}

/// The pairs of a serialised map, in order, borrowed from its bytes.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
}

impl<'a> Pairs<'a> {
    fn step(&mut self) -> Result<(&'a [u8], &'a [u8]), PairsError> {
        let (lens, lengths) = self.lengths.split_first_chunk::<8>().ok_or(PairsError::Truncated)?;
        let [k0, k1, k2, k3, v0, v1, v2, v3] = *lens;
        let (key, data) = take(self.data, u32::from_le_bytes([k0, k1, k2, k3]))?;
        let (value, data) = take(data, u32::from_le_bytes([v0, v1, v2, v3]))?;
        *self = Self { lengths, data };
        Ok((key, value))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step().ok()
    }
}

/// Splits `len` bytes and the NUL behind them off the front.
fn take(data: &[u8], len: u32) -> Result<(&[u8], &[u8]), PairsError> {
    let len = usize::try_from(len).map_err(|_| PairsError::Truncated)?;
    let (item, rest) = data.split_at_checked(len).ok_or(PairsError::Truncated)?;
    match rest.split_first() {
        Some((0, rest)) => Ok((item, rest)),
        Some(_) => Err(PairsError::MissingNul),
        None => Err(PairsError::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_pairs(|| pairs.iter().copied(), &mut out);
        assert_eq!(out.len(), encoded_pairs_len(pairs.iter().copied()));
        out
    }

    #[test]
    fn what_was_encoded_is_decoded_with_repeated_keys_in_order() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"set-cookie", b""), (b"a", b"2\0")];
        let bytes = encode(&pairs);
        assert_eq!(decode_pairs(&bytes).unwrap().collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn an_empty_map_has_no_bytes_and_a_lone_zero_is_one_too() {
        assert!(encode(&[]).is_empty());
        assert_eq!(decode_pairs(&[]).unwrap().count(), 0);
        assert_eq!(decode_pairs(&[0]).unwrap().count(), 0);
    }

    #[test]
    fn malformed_maps_are_refused_with_their_reason() {
        let good = encode(&[(b"key", b"value")]);
        let refused = |bytes: &[u8]| decode_pairs(bytes).map(Iterator::count).unwrap_err();
        for cut in 1..good.len() {
            assert_eq!(refused(&good[..cut]), PairsError::Truncated, "cut at {cut}");
        }
        let mut no_nul = good.clone();
        no_nul[15] = b'x';
        assert_eq!(refused(&no_nul), PairsError::MissingNul);
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(refused(&longer), PairsError::TrailingBytes);
        assert_eq!(refused(&1025u32.to_le_bytes()), PairsError::TooMany);
        assert_eq!(refused(&u32::MAX.to_le_bytes()), PairsError::TooMany);
        assert_eq!(refused(&vec![0; MAX_PAIRS_BYTES + 1]), PairsError::TooLarge);
    }
}
