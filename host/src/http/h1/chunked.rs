//! The chunked coding (RFC 9112 section 7.1).

use bytes::BytesMut;

use crate::http::h1::reader::BodyError;
use crate::http::h1::refused::is_token;

/// Where a chunked body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// Before the line with the size of a chunk.
    Size,
    /// Inside a chunk; so many bytes are left of it.
    Data(u64),
    /// Before the CRLF that ends a chunk.
    End,
    /// In the trailer section.
    Trailers,
}

/// The longest line with a size, its extensions included.
const MAX_LINE: usize = 256;

/// What the bytes so far allow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    More,
    /// So many bytes of data stand at the front.
    Data(usize),
    /// The trailer section begins at the front.
    Trailers,
}

impl Chunked {
    /// Takes framing off the front of the buffer, until data or the trailers stand there.
    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match *self {
                Self::Size => match size_line(buffer)? {
                    None => return Ok(Step::More),
                    Some((line, 0)) => {
                        let _ = buffer.split_to(line);
                        *self = Self::Trailers;
                    }
                    Some((line, size)) => {
                        let _ = buffer.split_to(line);
                        *self = Self::Data(size);
                    }
                },
                Self::Data(0) => *self = Self::End,
                Self::Data(_) if buffer.is_empty() => return Ok(Step::More),
                Self::Data(left) => {
                    let here = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    return Ok(Step::Data(here));
                }
                Self::End => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        let _ = buffer.split_to(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(BodyError::Chunk),
                    None if buffer.first().is_some_and(|byte| *byte != b'\r') => {
                        return Err(BodyError::Chunk);
                    }
                    None => return Ok(Step::More),
                },
                Self::Trailers => return Ok(Step::Trailers),
            }
        }
    }

    /// Data was taken off the front.
    pub(super) fn taken(&mut self, len: usize) {
        if let Self::Data(left) = self {
            *left = left.saturating_sub(len as u64);
        }
    }
}

/// The line with a size: its length, CRLF included, and the size. `None` while it is not complete.
fn size_line(buffer: &[u8]) -> Result<Option<(usize, u64)>, BodyError> {
    let Some(lf) = memchr::memchr(b'\n', buffer.get(..MAX_LINE.min(buffer.len())).unwrap_or(buffer)) else {
        if buffer.len() >= MAX_LINE {
            return Err(BodyError::Chunk);
        }
        // What can become no size is refused before its end has come.
        return digits(buffer.strip_suffix(b"\r").unwrap_or(buffer), false).map(|_| None);
    };
    let line = buffer.get(..lf).and_then(|line| line.strip_suffix(b"\r")).ok_or(BodyError::Chunk)?;
    Ok(digits(line, true)?.map(|size| (lf + 1, size)))
}

/// The size at the front of a line, or of the part of it that is here: one to sixteen hexadecimal digits, then nothing
/// or extensions. `None` for an empty line.
fn digits(line: &[u8], whole: bool) -> Result<Option<u64>, BodyError> {
    let len = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extensions) = line.split_at(len);
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let begun = extensions.first().is_none_or(|byte| *byte == b';') && extensions.iter().all(plain);
    if !begun || digits.len() > 16 || (digits.is_empty() && !line.is_empty()) {
        return Err(BodyError::Chunk);
    }
    if digits.is_empty() || (whole && !are_extensions(extensions)) {
        return if whole { Err(BodyError::Chunk) } else { Ok(None) };
    }
    let digits = str::from_utf8(digits).map_err(|_| BodyError::Chunk)?;
    u64::from_str_radix(digits, 16).map(Some).map_err(|_| BodyError::Chunk)
}

/// Whether it is nothing, or extensions of a chunk: `;name`, `;name=value`, `;name="value"`, with whitespace at most
/// around `=` and behind `;` (RFC 9112 section 7.1.1). Nobody looks at what they say.
fn are_extensions(mut rest: &[u8]) -> bool {
    while let Some(extension) = rest.strip_prefix(b";") {
        let (name, behind) = token(extension.trim_ascii_start());
        let Some(value) = behind.trim_ascii_start().strip_prefix(b"=") else {
            if name.is_empty() {
                return false;
            }
            rest = behind;
            continue;
        };
        let value = value.trim_ascii_start();
        let behind = match value.strip_prefix(b"\"") {
            Some(text) => quoted(text),
            None => Some(token(value)).filter(|(value, _)| !value.is_empty()).map(|(_, behind)| behind),
        };
        match behind {
            Some(behind) if !name.is_empty() => rest = behind,
            Some(_) | None => return false,
        }
    }
    rest.is_empty()
}

/// The token at the front, which may be empty, and what is behind it.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !is_token(&[*byte])).unwrap_or(text.len()))
}

/// What is behind the closing quote of a text whose opening quote was taken.
fn quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}
