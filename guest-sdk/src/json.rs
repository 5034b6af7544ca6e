//! A reader of JSON (RFC 8259) for configurations.
//!
//! Every filter has one. With `serde_json`'s a header filter weighs twice as much: that writes numbers in its errors, reads
//! from streams, and is made to be fast. What is read here is the operator's, in memory, and small.

mod typed;

use std::fmt::{self, Display};

use serde::de::{self, DeserializeOwned, Unexpected};

use crate::error::{Error, Result};

/// How deep lists and mappings may nest.
const DEEPEST: usize = 128;

/// Reads a value that is all of the text.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    // That it is at this or that byte is not told: to write it weighs more than this function.
    let text = str::from_utf8(text).map_err(|_| Error::new("the configuration is not UTF-8"))?;
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader);
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(wrong) => Err(reader.told(wrong)),
    }
}

/// What is wrong.
#[derive(Debug)]
struct Wrong(String);

impl Wrong {
    #[cold]
    #[inline(never)]
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
            Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant
            | Unexpected::Enum => Self(format!("invalid type: a variant, expected {expected}")),
            Unexpected::Char(_)
            | Unexpected::Bytes(_)
            | Unexpected::Option
            | Unexpected::NewtypeStruct
            | Unexpected::Other(_) => Self(format!("invalid type, expected {expected}")),
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
    /// Nothing but spaces may follow.
    fn end(&mut self) -> Read<()> {
        self.skip_spaces();
        if self.at < self.text.len() { Err(Wrong::new("something follows the value")) } else { Ok(()) }
    }

    /// What is wrong, with the place to which the reader came.
    fn told(&self, Wrong(what): Wrong) -> Error {
        let before = self.text.get(..self.at).unwrap_or(self.text).bytes();
        let line = before.clone().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rev().take_while(|byte| *byte != b'\n').count();
        Error::new(format!("{what} at line {line} column {column}"))
    }

    /// That what comes next is not what was expected.
    fn unexpected(&mut self, expected: &dyn de::Expected) -> Wrong {
        let from = self.at;
        let passed = match self.peek() {
            Some(b'"') => self.string().map(|_| ("string ", "")),
            Some(b'{') => Ok(("map", "")),
            Some(b'[') => Ok(("sequence", "")),
            Some(b't') => self.word("true").map(|()| ("boolean `", "`")),
            Some(b'f') => self.word("false").map(|()| ("boolean `", "`")),
            Some(b'n') => self.word("null").map(|()| ("", "")),
            Some(b'-' | b'0'..=b'9') => {
                self.pass_number().map(|whole| (if whole { "integer `" } else { "number `" }, "`"))
            }
            Some(_) | None => Err(Wrong::new("expected a value")),
        };
        match passed {
            // As it is written: what makes a number of it, to write that, weighs more than all of this.
            Ok((kind, end)) => {
                let text = self.text.get(from..self.at).unwrap_or_default();
                Wrong(format!("invalid type: {kind}{text}{end}, expected {expected}"))
            }
            Err(wrong) => wrong,
        }
    }

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

    #[inline(never)]
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

    #[inline(never)]
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
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| Wrong::new("an escape that there is not"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Passes over digits; whether there are any.
    #[inline(never)]
    fn digits(&mut self) -> bool {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > from
    }

    /// Passes over a number; whether it is a whole one.
    fn pass_number(&mut self) -> Read<bool> {
        self.at += usize::from(self.peek() == Some(b'-'));
        let mut good = if self.peek() == Some(b'0') {
            self.at += 1;
            true
        } else {
            self.digits()
        };
        let begun = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            good &= self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            good &= self.digits();
        }
        // No digit follows a zero, nor anything else of a number.
        good &= !self.digits();
        if good { Ok(self.at == begun) } else { Err(Wrong::new("a number that is none")) }
    }

    fn number(&mut self) -> Read<Number> {
        let from = self.at;
        let integer = self.pass_number()?;
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

    /// Passes over a bracket.
    fn enter(&mut self) -> Read<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEEPEST { Err(Wrong::new("nested too deep")) } else { Ok(()) }
    }

    /// Passes over the bracket that must follow.
    fn leave(&mut self, bracket: u8) -> Read<()> {
        self.depth -= 1;
        self.expect(bracket)
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

#[cfg(test)]
mod tests;
