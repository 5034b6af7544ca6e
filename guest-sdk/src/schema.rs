//! What a configuration may be, as JSON Schema: for whoever checks one before the filter sees it.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! /// Who may call.
//! #[derive(Deserialize, Schema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// The keys that are known.
//!     keys: Vec<String>,
//!     /// The header that a key comes in.
//!     #[serde(default)]
//!     header: Option<String>,
//! }
//!
//! assert_eq!(
//!     Config::SCHEMA,
//!     r#"{"type":"object","properties":{"keys":{"type":"array","items":{"type":"string"},"description":"The keys that are known."},"header":{"anyOf":[{"type":"string"},{"type":"null"}],"description":"The header that a key comes in."}},"required":["keys"],"additionalProperties":false}"#
//! );
//! ```
//!
//! The derive reads the attributes of serde, so that the schema says what `Deserialize` takes. It is made by the compiler:
//! the attribute of the filter lays it into a custom section of the module, beside code and data, where it costs a running
//! plugin nothing. `weir check` holds configurations against it and names the line that does not fit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};

pub use weir_sdk_macros::Schema;

/// A type that can say, as JSON Schema, what serde makes it of. Derive it beside `Deserialize`.
pub trait Schema {
    /// The schema.
    const SCHEMA: &'static str;

    /// What the type's documentation says.
    const DESCRIPTION: &'static str = "";

    /// Whether a field of this type may be left out, without any attribute.
    const OPTIONAL: bool = false;
}

/// The longest schema of a type, in bytes.
const LONGEST: usize = 24 << 10;

/// A text that is put together by the compiler.
#[doc(hidden)]
#[derive(Debug)]
pub struct Text {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; LONGEST], len: 0 };

    /// The parts, one behind the other.
    #[must_use]
    pub const fn concat(parts: &[&str]) -> Self {
        let mut text = Self::EMPTY;
        text.add(parts, false);
        text
    }

    /// The parts that are not empty, with commas between them, in the brackets.
    #[must_use]
    pub const fn list(open: &str, parts: &[&str], close: &str) -> Self {
        let mut text = Self::EMPTY;
        text.add(&[open], false);
        text.add(parts, true);
        text.add(&[close], false);
        text
    }

    /// An object of JSON with a further member, which is written `"name":value`. None is added when that is empty.
    #[must_use]
    pub const fn with(object: &str, member: &str) -> Self {
        let mut text = Self::EMPTY;
        text.add(&[object], false);
        if !member.is_empty() {
            // Its closing brace.
            text.len -= 1;
            let comma = if text.len > 1 { "," } else { "" };
            text.add(&[comma, member, "}"], false);
        }
        text
    }

    /// What a module says of itself. See [`weir_abi::PLUGIN_SECTION`].
    #[must_use]
    pub const fn describe(name: &str, version: &str, grants: &str, config: &str) -> Self {
        let begin = if config.is_empty() { "" } else { r#","config":"# };
        Self::concat(&[
            r#"{"name":""#,
            name,
            r#"","version":""#,
            version,
            r#"","sdk":"weir-sdk "#,
            env!("CARGO_PKG_VERSION"),
            r#"""#,
            grants,
            begin,
            config,
            "}",
        ])
    }

    /// What was put together.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => "{}",
        }
    }

    const fn add(&mut self, mut parts: &[&str], commas: bool) {
        let mut any = false;
        while let Some((part, others)) = parts.split_first() {
            if commas && any && !part.is_empty() {
                self.push(b',');
            }
            any |= !part.is_empty();
            let mut bytes = part.as_bytes();
            while let Some((byte, rest)) = bytes.split_first() {
                self.push(*byte);
                bytes = rest;
            }
            parts = others;
        }
    }

    const fn push(&mut self, byte: u8) {
        let (_, free) = self.bytes.split_at_mut(self.len);
        let Some((place, _)) = free.split_first_mut() else {
            panic!("the schema of a configuration may have 24 KiB");
        };
        *place = byte;
        self.len += 1;
    }
}

/// Gives types a schema that is written out.
macro_rules! plain {
    ($($schema:literal: $($ty:ty),*;)*) => {
        $($(impl Schema for $ty {
            const SCHEMA: &'static str = $schema;
        })*)*
    };
}

plain! {
    r#"{"type":"string"}"#: String, char, std::path::PathBuf;
    r#"{"type":"boolean"}"#: bool;
    r#"{"type":"null"}"#: ();
    r#"{"type":"number"}"#: f32, f64;
    r#"{"type":"integer","minimum":0,"maximum":255}"#: u8;
    r#"{"type":"integer","minimum":0,"maximum":65535}"#: u16;
    r#"{"type":"integer","minimum":0,"maximum":4294967295}"#: u32;
    r#"{"type":"integer","minimum":0}"#: u64, u128, usize;
    r#"{"type":"integer","minimum":1,"maximum":255}"#: NonZeroU8;
    r#"{"type":"integer","minimum":1,"maximum":65535}"#: NonZeroU16;
    r#"{"type":"integer","minimum":1,"maximum":4294967295}"#: NonZeroU32;
    r#"{"type":"integer","minimum":1}"#: NonZeroU64, NonZeroUsize;
    r#"{"type":"integer","minimum":-128,"maximum":127}"#: i8;
    r#"{"type":"integer","minimum":-32768,"maximum":32767}"#: i16;
    r#"{"type":"integer","minimum":-2147483648,"maximum":2147483647}"#: i32;
    r#"{"type":"integer"}"#: i64, i128, isize;
    r#"{"type":"string","format":"ip"}"#: std::net::IpAddr, std::net::Ipv4Addr, std::net::Ipv6Addr;
    "{}": serde_json::Value;
    r#"{"type":"object"}"#: serde_json::Map<String, serde_json::Value>;
}

impl<T: Schema> Schema for Option<T> {
    const SCHEMA: &'static str =
        const { &Text::concat(&[r#"{"anyOf":["#, T::SCHEMA, r#",{"type":"null"}]}"#]) }.as_str();
    const DESCRIPTION: &'static str = T::DESCRIPTION;
    const OPTIONAL: bool = true;
}

impl<T: Schema> Schema for Box<T> {
    const SCHEMA: &'static str = T::SCHEMA;
    const DESCRIPTION: &'static str = T::DESCRIPTION;
    const OPTIONAL: bool = T::OPTIONAL;
}

/// Gives generic types the schema of a list or of a mapping.
macro_rules! container {
    ($($open:literal, $close:literal: $(($($generics:tt)*) $ty:ty),*;)*) => {
        $($(impl<$($generics)*> Schema for $ty {
            const SCHEMA: &'static str = const { &Text::concat(&[$open, T::SCHEMA, $close]) }.as_str();
        })*)*
    };
}

container! {
    r#"{"type":"array","items":"#, "}": (T: Schema) Vec<T>, (T: Schema) BTreeSet<T>, (T: Schema, S) HashSet<T, S>;
    r#"{"type":"object","additionalProperties":"#, "}":
        (K, T: Schema) BTreeMap<K, T>, (K, T: Schema, S) HashMap<K, T, S>;
}

/// A text as the bytes of a static.
#[doc(hidden)]
#[must_use]
pub const fn bytes<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(text.as_bytes());
    bytes
}

/// The schema of a type that may have none, for the filter's attribute: what an inherent constant says goes before what
/// a trait says, where there is such a constant.
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T>(std::marker::PhantomData<T>);

impl<T: Schema> Probe<T> {
    /// With what its documentation says.
    pub const SCHEMA: &'static str = const { &Text::with(T::SCHEMA, T::DESCRIPTION) }.as_str();
}

/// What holds of a type without a schema.
#[doc(hidden)]
pub trait Unknown {
    const SCHEMA: &'static str = "";
}

impl<T> Unknown for Probe<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_puts_texts_together() {
        const LIST: &str = const { &Text::list("[", &["", "1", "", "2"], "]") }.as_str();
        assert_eq!(LIST, "[1,2]");
        assert_eq!(Text::with("{}", r#""a":1"#).as_str(), r#"{"a":1}"#);
        assert_eq!(Text::with(r#"{"b":2}"#, r#""a":1"#).as_str(), r#"{"b":2,"a":1}"#);
        assert_eq!(Text::with("{}", "").as_str(), "{}");
    }

    #[test]
    fn types_without_a_schema_have_none_and_others_their_own() {
        struct Bare;
        assert_eq!(
            Probe::<Vec<Option<bool>>>::SCHEMA,
            r#"{"type":"array","items":{"anyOf":[{"type":"boolean"},{"type":"null"}]}}"#
        );
        assert_eq!(Probe::<Bare>::SCHEMA, "");
    }
}
