//! As much of protobuf's wire format as the contract needs: the fields of a message, and how to write them.

use alloc::vec::Vec;

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a boolean or an enum.
    Varint(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    /// Eight or four bytes.
    Fixed(&'a [u8]),
}

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The fields of a message: their numbers and values, in order. It ends with the first that is malformed.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

/// The fields of a message.
#[must_use]
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

/// The last value of a field of bytes; `None` when there is none, or when the message is malformed.
#[must_use]
pub fn bytes(message: &[u8], number: u64) -> Option<&[u8]> {
    let mut found = None;
    for field in fields(message) {
        match field.ok()? {
            (at, Value::Bytes(bytes)) if at == number => found = Some(bytes),
            _ => {}
        }
    }
    found
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Value<'a>), Malformed> {
    let tag = varint(bytes)?;
    let value = match (tag & 7) as u8 {
        VARINT => Value::Varint(varint(bytes)?),
        FIXED_64 => Value::Fixed(split(bytes, 8)?),
        LENGTH_DELIMITED => {
            let len = varint(bytes)?;
            Value::Bytes(split(bytes, usize::try_from(len).map_err(|_| Malformed)?)?)
        }
        FIXED_32 => Value::Fixed(split(bytes, 4)?),
        _ => return Err(Malformed),
    };
    Ok((tag >> 3, value))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn split<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(head)
}

/// Appends a field of bytes.
pub fn put_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put((number << 3) | u64::from(LENGTH_DELIMITED), out);
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a field with a number.
pub fn put_varint(number: u64, value: u64, out: &mut Vec<u8>) {
    put((number << 3) | u64::from(VARINT), out);
    put(value, out);
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
