//! The argument of the foreign function `declare_property`.
//!
//! Envoy's protobuf message `envoy.source.extensions.common.wasm.DeclarePropertyArguments`: `name = 1` (string),
//! `readonly = 2` (bool), `type = 3` (enum), `schema = 4` (bytes), `span = 5` (enum). What a host needs of it.

use crate::filter_state::FilterStateError;
use crate::protobuf::{self, Value};

/// How a plugin's own property is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeclareProperty<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it stays as it is first set.
    pub readonly: bool,
    /// Whether it is a text (type 1). Everything else is bytes to a host that knows no schemas.
    pub text: bool,
}

const NAME: u64 = 1;
const READONLY: u64 = 2;
const TYPE: u64 = 3;

impl<'a> DeclareProperty<'a> {
    /// Reads a message without copying it. Fields that it does not know are passed over, as protobuf asks.
    ///
    /// # Errors
    /// When the bytes are not well-formed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FilterStateError> {
        let mut declared = Self::default();
        for field in protobuf::fields(bytes) {
            match field.map_err(|_| FilterStateError)? {
                (NAME, Value::Bytes(name)) => {
                    declared.name = core::str::from_utf8(name).map_err(|_| FilterStateError)?;
                }
                (READONLY, Value::Varint(readonly)) => declared.readonly = readonly != 0,
                (TYPE, Value::Varint(kind)) => declared.text = kind == 1,
                _ => {}
            }
        }
        Ok(declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_read_and_what_is_malformed_is_refused() {
        let declared = DeclareProperty { name: "own", readonly: true, text: true };
        let bytes = b"\x0a\x03own\x10\x01\x18\x01\x22\x01s\x28\x02";
        assert_eq!(DeclareProperty::decode(bytes), Ok(declared));
        assert_eq!(DeclareProperty::decode(b""), Ok(DeclareProperty::default()));
        for wrong in [&b"\xff"[..], b"\x0a\x09own", b"\x0a\x01\xff", b"\x10", b"\x23"] {
            assert_eq!(DeclareProperty::decode(wrong), Err(FilterStateError), "{wrong:?}");
        }
    }
}
