//! What is derived of types says what serde takes.
#![expect(dead_code, reason = "the types are there for what is derived of them")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_sdk::prelude::*;

fn schema<T: Schema>() -> Value {
    serde_json::from_str(T::SCHEMA).expect("the compiler made JSON")
}

#[derive(Deserialize, Schema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Everything {
    /// With "quotes" and a \backslash.
    two_words: String,
    #[serde(rename = "other", default)]
    renamed: bool,
    #[serde(alias = "old")]
    new: u8,
    optional: Option<Inner>,
    many: BTreeMap<String, Vec<f64>>,
    #[serde(skip)]
    hidden: std::cell::Cell<u8>,
    #[serde(deserialize_with = "anything")]
    by_function: (),
    pair: Pair,
}

fn anything<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(from).map(|_| ())
}

/// Inner.
#[derive(Deserialize, Schema)]
struct Inner {
    #[serde(default)]
    any: Value,
}

#[derive(Deserialize, Schema)]
struct Pair(String, i8);

#[test]
fn structs_are_objects_of_what_serde_calls_their_fields() {
    let inner = json!({ "type": "object", "properties": { "any": {} }, "required": [] });
    let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
    let expected = json!({
        "type": "object",
        "properties": {
            "two-words": { "type": "string", "description": "With \"quotes\" and a \\backslash." },
            "other": { "type": "boolean" },
            "new": number, "old": number,
            "optional": { "anyOf": [inner, { "type": "null" }] },
            "many": { "type": "object", "additionalProperties": { "type": "array", "items": { "type": "number" } } },
            "by-function": {},
            "pair": {
                "type": "array", "minItems": 2, "maxItems": 2,
                "prefixItems": [{ "type": "string" }, { "type": "integer", "minimum": -128, "maximum": 127 }],
            },
        },
        "required": ["two-words", "many", "by-function", "pair"],
        "additionalProperties": false,
    });
    assert_eq!(schema::<Everything>(), expected);
    assert_eq!(Inner::DESCRIPTION, r#""description":"Inner.""#);
}

#[derive(Deserialize, Schema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    VeryStrict,
    #[serde(rename = "none")]
    Off,
    Limit(u16),
    Between {
        low: u16,
        high: u16,
    },
}

#[derive(Deserialize, Schema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Tagged {
    Nothing,
    Some { count: u16 },
}

#[derive(Deserialize, Schema)]
#[serde(untagged)]
enum Either {
    Word(String),
    Words(Vec<String>),
}

#[derive(Deserialize, Schema)]
#[serde(transparent)]
struct Wrapped {
    value: Either,
}

#[derive(Deserialize, Schema)]
#[serde(try_from = "Vec<u8>")]
enum Made {
    Empty,
    Full(u8),
}

impl From<Vec<u8>> for Made {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.first().map_or(Self::Empty, |byte| Self::Full(*byte))
    }
}

#[test]
fn a_type_that_is_made_of_another_has_that_ones_schema() {
    assert_eq!(Made::SCHEMA, <Vec<u8>>::SCHEMA);
}

#[test]
fn enums_are_words_objects_or_one_of_several() {
    let number = json!({ "type": "integer", "minimum": 0, "maximum": 65535 });
    let object = |name: &str, inner: Value| json!({ "type": "object", "properties": { name: inner }, "required": [name], "additionalProperties": false });
    let between = json!({ "type": "object", "properties": { "low": number, "high": number }, "required": ["low", "high"] });
    let words = json!({ "enum": ["very_strict", "none"] });
    let expected = json!({ "anyOf": [words, object("limit", number.clone()), object("between", between)] });
    assert_eq!(schema::<Mode>(), expected);
    let nothing =
        json!({ "type": "object", "properties": { "kind": { "const": "nothing" } }, "required": ["kind"] });
    let some = json!({
        "type": "object", "properties": { "kind": { "const": "some" }, "count": number }, "required": ["kind", "count"],
    });
    assert_eq!(schema::<Tagged>(), json!({ "anyOf": [nothing, some] }));
    let either =
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    assert_eq!((schema::<Either>(), schema::<Wrapped>()), (either.clone(), either));
}
