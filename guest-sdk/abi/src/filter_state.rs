//! The argument of the foreign function `set_envoy_filter_state`.
//!
//! Envoy's protobuf message `envoy.source.extensions.common.wasm.SetEnvoyFilterStateArguments`:
//! `path = 1` (string), `value = 2` (bytes), `span = 3` (enum).

use alloc::vec::Vec;
use core::fmt;

use crate::protobuf::{self, Value};

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

const PATH: u64 = 1;
const VALUE: u64 = 2;
const SPAN: u64 = 3;

impl<'a> FilterState<'a> {
    /// The message on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.path.len() + self.value.len() + 12);
        protobuf::put_bytes(PATH, self.path.as_bytes(), &mut out);
        protobuf::put_bytes(VALUE, self.value, &mut out);
        if self.span != Span::FilterChain {
            protobuf::put_varint(SPAN, self.span as u64, &mut out);
        }
        out
    }

    /// Reads a message without copying it. Fields that it does not know are passed over, as protobuf asks.
    ///
    /// # Errors
    /// When the bytes are not well-formed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FilterStateError> {
        let mut state = Self::default();
        for field in protobuf::fields(bytes) {
            match field.map_err(|_| FilterStateError)? {
                (PATH, Value::Bytes(path)) => {
                    state.path = core::str::from_utf8(path).map_err(|_| FilterStateError)?;
                }
                (VALUE, Value::Bytes(value)) => state.value = value,
                (SPAN, Value::Varint(span)) => {
                    state.span = match span {
                        0 => Span::FilterChain,
                        1 => Span::DownstreamRequest,
                        2 => Span::DownstreamConnection,
                        3.. => return Err(FilterStateError),
                    };
                }
                _ => {}
            }
        }
        Ok(state)
    }
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
        assert_eq!(FilterState::decode(&[10, 5, b'x']), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[10, 1, 0xff]), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[0xff; 16]), Err(FilterStateError));
        assert_eq!(FilterState::decode(&[24, 9]), Err(FilterStateError));
    }
}
