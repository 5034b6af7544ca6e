//! The argument of the foreign function `set_envoy_filter_state`.
//!
//! Envoy's protobuf message `envoy.source.extensions.common.wasm.SetEnvoyFilterStateArguments`:
//! `path = 1` (string), `value = 2` (bytes), `span = 3` (enum).

use alloc::vec::Vec;
use core::fmt;

/// The key of the filter state from which a TCP proxy takes its cluster, in Envoy and in Weir.
pub const TCP_PROXY_CLUSTER: &str = "envoy.tcp_proxy.cluster";

/// How long a value of filter state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Span {
    /// As long as the filter chain that set it.
    #[default]
    FilterChain,
    /// As long as the downstream request.
    DownstreamRequest,
    /// As long as the downstream connection.
    DownstreamConnection,
}

/// One value of filter state, as a guest hands it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilterState<'a> {
    /// The key.
    pub path: &'a str,
    /// The value.
    pub value: &'a [u8],
    /// How long it lives.
    pub span: Span,
}

/// Why bytes are not the argument of `set_envoy_filter_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterStateError;

impl fmt::Display for FilterStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the argument is not a SetEnvoyFilterStateArguments message")
    }
}

impl core::error::Error for FilterStateError {}

const PATH: u8 = (1 << 3) | LENGTH_DELIMITED;
const VALUE: u8 = (2 << 3) | LENGTH_DELIMITED;
const SPAN: u8 = 3 << 3;
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

impl<'a> FilterState<'a> {
    /// The message on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.path.len() + self.value.len() + 12);
        for (tag, bytes) in [(PATH, self.path.as_bytes()), (VALUE, self.value)] {
            out.push(tag);
            put_varint(bytes.len() as u64, &mut out);
            out.extend_from_slice(bytes);
        }
        if self.span != Span::FilterChain {
            out.extend_from_slice(&[SPAN, self.span as u8]);
        }
        out
    }

    /// Reads a message without copying it. Fields that it does not know are passed over, as protobuf asks.
    ///
    /// # Errors
    /// When the bytes are not well-formed.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, FilterStateError> {
        let mut state = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            match (tag, tag & 7) {
                (tag, _) if tag == u64::from(PATH) => {
                    state.path =
                        core::str::from_utf8(delimited(&mut bytes)?).map_err(|_| FilterStateError)?;
                }
                (tag, _) if tag == u64::from(VALUE) => state.value = delimited(&mut bytes)?,
                (tag, _) if tag == u64::from(SPAN) => {
                    state.span = match varint(&mut bytes)? {
                        0 => Span::FilterChain,
                        1 => Span::DownstreamRequest,
                        2 => Span::DownstreamConnection,
                        3.. => return Err(FilterStateError),
                    };
                }
                (_, wire) => skip(wire, &mut bytes)?,
            }
        }
        Ok(state)
    }
}

pub(crate) fn skip(wire_type: u64, bytes: &mut &[u8]) -> Result<(), FilterStateError> {
    match u8::try_from(wire_type) {
        Ok(VARINT) => varint(bytes).map(drop),
        Ok(FIXED_64) => split(bytes, 8).map(drop),
        Ok(LENGTH_DELIMITED) => delimited(bytes).map(drop),
        Ok(FIXED_32) => split(bytes, 4).map(drop),
        Ok(_) | Err(_) => Err(FilterStateError),
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn varint(bytes: &mut &[u8]) -> Result<u64, FilterStateError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(FilterStateError)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FilterStateError)
}

pub(crate) fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], FilterStateError> {
    let len = varint(bytes)?;
    split(bytes, usize::try_from(len).map_err(|_| FilterStateError)?)
}

fn split<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], FilterStateError> {
    let (head, rest) = bytes.split_at_checked(len).ok_or(FilterStateError)?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let state =
            FilterState { path: TCP_PROXY_CLUSTER, value: &[b'x'; 300], span: Span::DownstreamConnection };
        assert_eq!(FilterState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let mut bytes = FilterState { path: "p", value: b"v", span: Span::FilterChain }.encode();
        bytes.extend_from_slice(&[4 << 3, 0x96, 0x01, (5 << 3) | 2, 1, 0xff]);
        assert_eq!(FilterState::decode(&bytes).unwrap().value, b"v");
    }

    #[test]
    fn malformed_messages_are_refused_and_never_panic() {
        let good = FilterState { path: "path", value: b"value", span: Span::DownstreamRequest }.encode();
        for cut in 1..good.len() {
            // Cut between two fields it is a shorter message, elsewhere it is none.
            let _ = FilterState::decode(&good[..cut]);
        }
        assert_eq!(FilterState::decode(&[PATH, 5, b'x']), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[PATH, 1, 0xff]), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[0xff; 16]), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[SPAN, 9]), Err(FilterStateError));
    }
}
