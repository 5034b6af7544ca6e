//! A reader of JSON (RFC 8259) for configurations.
//!
//! Every filter has one. With `serde_json`'s a header filter weighs twice as much: that writes numbers in its errors, reads
//! from streams, and is made to be fast. What is read here is the operator's, in memory, and small.

use std::fmt::{self, Display};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

use crate::error::{Error, Result};

/// How deep lists and mappings may nest.
const DEEPEST: usize = 128;

/// Reads a value that is all of the text.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let text = str::from_utf8(text)?;
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader).and_then(|value| {
        reader.skip_spaces();
        if reader.at < text.len() { Err(Wrong::new("something follows the value")) } else { Ok(value) }
    });
    value.map_err(|Wrong(what)| {
        let before = text.get(..reader.at).unwrap_or(text).bytes();
        let line = before.clone().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rev().take_while(|byte| *byte != b'\n').count();
        Error::new(format!("{what} at line {line} column {column}"))
    })
}

/// What is wrong.
#[derive(Debug)]
struct Wrong(String);

impl Wrong {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: Display>(what: T) -> Self {
        Self(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        // Fractions are not shown: what writes them weighs more than all of this.
        match found {
            Unexpected::Float(_) => Self(format!("invalid type: a fraction, expected {expected}")),
            Unexpected::Unit => Self(format!("invalid type: null, expected {expected}")),
            Unexpected::Bool(value) => Self(format!("invalid type: boolean `{value}`, expected {expected}")),
            Unexpected::Str(text) => Self(format!("invalid type: string \"{text}\", expected {expected}")),
            Unexpected::Unsigned(n) => Self(format!("invalid type: integer `{n}`, expected {expected}")),
            Unexpected::Signed(n) => Self(format!("invalid type: integer `{n}`, expected {expected}")),
            Unexpected::Seq => Self(format!("invalid type: sequence, expected {expected}")),
            Unexpected::Map => Self(format!("invalid type: map, expected {expected}")),
            _ => Self(format!("invalid type, expected {expected}")),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let Self(what) = Self::invalid_type(found, expected);
        Self(what.replacen("type", "value", 1))
    }
}

type Read<T> = std::result::Result<T, Wrong>;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The first byte of what comes next.
    fn begin(&mut self) -> Read<u8> {
        self.skip_spaces();
        self.peek().ok_or_else(|| Wrong::new("the text ends too early"))
    }

    /// Passes over a byte that must be there.
    fn expect(&mut self, byte: u8) -> Read<()> {
        if self.begin()? != byte {
            return Err(Wrong(format!("expected `{}`", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Read<()> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(Wrong::new("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn string(&mut self) -> Read<String> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            out.push_str(self.text.get(from..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(Wrong::new("a control character in a text")),
                None => return Err(Wrong::new("the text ends too early")),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) {
                    self.word("\\u").map_err(|_| Wrong::new("half of a character"))?;
                    let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    let low = low.ok_or_else(|| Wrong::new("half of a character"))?;
                    code = 0x10000 + ((code - 0xd800) << 10) + low;
                }
                char::from_u32(code).ok_or_else(|| Wrong::new("half of a character"))?
            }
            _ => return Err(Wrong::new("an escape that there is not")),
        })
    }

    fn hex(&mut self) -> Read<u32> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        self.at += 4;
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| Wrong::new("an escape that there is not"))
    }

    /// How many digits come next.
    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Read<Number> {
        let from = self.at;
        let bad = || Wrong::new("a number that is none");
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading = self.peek();
        let whole = self.digits();
        if whole == 0 || (whole > 1 && leading == Some(b'0')) {
            return Err(bad());
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(bad());
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(bad());
            }
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        if integer {
            if let Ok(number) = text.parse() {
                return Ok(Number::Unsigned(number));
            }
            if let Ok(number) = text.parse() {
                return Ok(Number::Signed(number));
            }
        }
        Ok(Number::Float(float(text)))
    }

    fn enter(&mut self) -> Read<()> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(Wrong::new("nested too deep")) } else { Ok(()) }
    }
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

/// A number with a fraction or an exponent, to the last place but one.
fn float(text: &str) -> f64 {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (mut value, mut scale, mut fraction) = (0.0_f64, exponent.parse::<i32>().unwrap_or(9999), false);
    for digit in digits.bytes() {
        match digit {
            b'.' => fraction = true,
            b'-' => {}
            digit => {
                value = value * 10.0 + f64::from(digit - b'0');
                scale = scale.saturating_sub(i32::from(fraction));
            }
        }
    }
    let scaled =
        if scale < 0 { value / 10_f64.powi(scale.saturating_neg()) } else { value * 10_f64.powi(scale) };
    if text.starts_with('-') { -scaled } else { scaled }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.begin()? {
            b'"' => visitor.visit_string(self.string()?),
            b'{' => {
                self.enter()?;
                self.at += 1;
                let value = visitor.visit_map(Items { reader: self, first: true })?;
                self.expect(b'}')?;
                self.depth -= 1;
                Ok(value)
            }
            b'[' => {
                self.enter()?;
                self.at += 1;
                let value = visitor.visit_seq(Items { reader: self, first: true })?;
                self.expect(b']')?;
                self.depth -= 1;
                Ok(value)
            }
            b't' => self.word("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word("false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.word("null").and_then(|()| visitor.visit_unit()),
            b'-' | b'0'..=b'9' => match self.number()? {
                Number::Unsigned(number) => visitor.visit_u64(number),
                Number::Signed(number) => visitor.visit_i64(number),
                Number::Float(number) => visitor.visit_f64(number),
            },
            _ => Err(Wrong::new("expected a value")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.begin()? == b'n' {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        if self.begin()? == b'"' {
            return visitor.visit_enum(de::value::StringDeserializer::new(self.string()?));
        }
        self.expect(b'{')?;
        self.enter()?;
        let value = visitor.visit_enum(Variant(self))?;
        self.expect(b'}')?;
        self.depth -= 1;
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// What is in brackets.
struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    first: bool,
}

impl Items<'_, '_> {
    /// Whether there is another one, before which the comma is passed over.
    fn another(&mut self, end: u8) -> Read<bool> {
        if self.reader.begin()? == end {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.reader.expect(b',')?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if !self.another(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if !self.another(b'}')? {
            return Ok(None);
        }
        self.reader.begin()?;
        let key = self.reader.string()?;
        seed.deserialize(Key(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<T::Value> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// A key: a text, which a type may want as a number.
struct Key(String);

impl<'de> de::Deserializer<'de> for Key {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_string(self.0)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_string(self.0),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_enum(de::value::StringDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

/// A variant with something in it: a mapping of one entry.
struct Variant<'r, 'a>(&'r mut Reader<'a>);

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Read<(V::Value, Self)> {
        let value = seed.deserialize(&mut *self.0)?;
        self.0.expect(b':')?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = Wrong;

    fn unit_variant(self) -> Read<()> {
        de::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Read<V::Value> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Read<V::Value> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    /// Good and bad, as `serde_json` has it, too.
    const TEXTS: [&str; 48] = [
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "7",
        "-7",
        "18446744073709551615",
        "-9223372036854775808",
        "1.5",
        "-2.25e2",
        "1E+3",
        "12e-1",
        "\"\"",
        r#""a\"b\\c\/\b\f\n\r\t""#,
        r#""\u00e4\ud83d\ude00 ä😀""#,
        "[]",
        "[ ]",
        "[1, [2], {}]",
        "{}",
        r#"{ "a" : 1 , "b" : [ ] }"#,
        r#"{"a":{"b":null}}"#,
        "",
        " ",
        "nul",
        "truex",
        "tru",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "\"",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\ud800""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        "[1",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "1 2",
    ];

    #[test]
    fn what_is_json_is_read_as_serde_json_reads_it_and_what_is_none_is_refused() {
        for text in TEXTS {
            let theirs: Option<Value> = serde_json::from_str(text).ok();
            // `-0` is a fraction to the one and a whole number to the other.
            let ours: Option<Value> = read(text.as_bytes()).ok();
            let same = ours == theirs
                || ours.as_ref().zip(theirs.as_ref()).is_some_and(|(a, b)| a.as_f64() == b.as_f64());
            assert!(same, "{text}: {ours:?}, not {theirs:?}");
        }
        let deep = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(
            read::<Value>(deep(127).as_bytes()).is_ok() && read::<Value>(deep(100_000).as_bytes()).is_err()
        );
        assert!(read::<Value>(b"\"\xff\"").is_err());
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        One(u8),
        Two(u8, u8),
        Named { a: Option<String> },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        kinds: Vec<Kind>,
        ports: BTreeMap<u16, f64>,
        #[serde(default)]
        wrapped: Option<Wrapped>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Wrapped(char);

    #[test]
    fn types_are_read_as_serde_describes_them() {
        let text = r#"{"kinds": ["plain", {"one": 1}, {"two": [1, 2]}, {"named": {"a": null}}],
                       "ports": {"80": 1, "443": 0.5}, "wrapped": "x"}"#;
        let config: Config = read(text.as_bytes()).expect("a configuration");
        assert_eq!(config, serde_json::from_str(text).expect("the same"));
        assert_eq!(config.kinds, [Kind::Plain, Kind::One(1), Kind::Two(1, 2), Kind::Named { a: None }]);
        let error = |text: &str| read::<Config>(text.as_bytes()).expect_err("refused").to_string();
        assert_eq!(
            error("{\n  \"kind\": 1}"),
            "unknown field `kind`, expected one of `kinds`, `ports`, `wrapped` at line 2 column 8"
        );
        assert!(
            error(r#"{"kinds": [{"one": 256}]}"#).starts_with("invalid value: integer `256`, expected u8")
        );
        assert!(error(r#"{"kinds": 1.5}"#).starts_with("invalid type: a fraction, expected a sequence"));
        assert!(error(r#"{"kinds": []}"#).starts_with("missing field `ports`"));
    }
}
