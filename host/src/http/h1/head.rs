//! Heads: from bytes to messages, refusing what two readers could read in two ways.
//!
//! `httparse` reads the grammar; what it lets pass is refused here before it sees it (bare LF) or after (framing
//! and Host). One reading is left, or none.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::config::limits::Underscores;
use crate::http::h1::Length;
use crate::http::h1::refused::{HeadError, is_token};
use crate::http::h1::target::target_of;
use crate::http::marks::Marks;
use crate::http::message::{Request, Response, Scheme, Version, has_token, is_bodiless, is_keep_alive};
use crate::http::path::{PathRules, is_redirected};

/// What a head may be like.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All of it, in bytes.
    pub bytes: usize,
    /// Its header fields; no more than [`MAX_FIELDS`].
    pub fields: usize,
    /// The target of a request, in bytes.
    pub target: usize,
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
    /// What is done to the path of a request.
    pub path: PathRules,
    /// What may be read ahead, and what may wait to be written, in bytes; 4 KiB at least.
    pub buffer: usize,
}

/// The most header fields that can be configured.
pub const MAX_FIELDS: usize = 256;

impl Default for Limits {
    /// Those for a peer that Weir has chosen: what it says is taken as it is, if it can be read in one way only.
    fn default() -> Self {
        let (underscores, path) = (Underscores::Allow, PathRules::NONE);
        Self { bytes: 60 << 10, fields: 100, target: 16 << 10, underscores, path, buffer: 64 << 10 }
    }
}

/// The head of a request, and what it says about its connection.
#[derive(Debug)]
pub struct RequestHead {
    /// The request. Hop-by-hop fields are still among its headers, Host is not.
    pub request: Request,
    /// Its body.
    pub length: Length,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the client is to ask again by the path that the request has now.
    pub redirected: bool,
    /// Those of its headers.
    pub marks: Marks,
}

/// The head of a response, and what it says about its connection.
#[derive(Debug)]
pub struct ResponseHead {
    /// The response. Hop-by-hop fields are still among its headers.
    pub response: Response,
    /// Its body.
    pub length: Length,
    /// Whether the connection can carry another exchange.
    pub keep_alive: bool,
    /// Those of its headers.
    pub marks: Marks,
}

/// Finds the end of a head in `buffer`, from `scanned` on. Every line must end in CRLF.
///
/// # Errors
/// When a line does not.
pub fn find_end(buffer: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    while let Some(found) = buffer.get(*scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let lf = *scanned + found;
        if lf == 0 || buffer.get(lf - 1) != Some(&b'\r') {
            return Err(HeadError::BareLf);
        }
        *scanned = lf + 1;
        // An empty line: the CRLF stands right behind the one before.
        if lf >= 3 && buffer.get(lf - 2) == Some(&b'\n') {
            return Ok(Some(lf + 1));
        }
    }
    Ok(None)
}

/// Reads a request from a head that is complete.
///
/// # Errors
/// Why it is refused.
pub fn parse_request(head: Bytes, scheme: Scheme, limits: &Limits) -> Result<RequestHead, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = fields.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Malformed),
        Err(error) => return Err(HeadError::of_grammar(&head, error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Malformed);
    };
    let version = version(minor)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Method)?;
    let (headers, host) = header_map(&head, parsed.headers, true, limits.underscores)?;
    let (authority, path) = target_of(&head, &method, target, host, limits)?;
    let marks = Marks::of(&headers);
    let length = framing(&headers, marks, version)?.unwrap_or(Length::None);
    let keep_alive = keeps_alive(&headers, marks, version);
    let expects_continue = version == Version::Http11
        && marks.has(Marks::EXPECT)
        && headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let request = Request { method, scheme, authority, path, version, headers };
    let redirected = is_redirected(target.as_bytes(), limits.path);
    Ok(RequestHead { request, length, keep_alive, expects_continue, redirected, marks })
}

/// Reads a response from a head that is complete. `to`: the method of the request that it answers.
///
/// # Errors
/// Why it is refused.
pub fn parse_response(head: Bytes, to: &Method, limits: &Limits) -> Result<ResponseHead, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = fields.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, &head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Malformed),
        Err(error) => return Err(HeadError::of_grammar(&head, error)),
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(HeadError::Malformed) };
    let version = version(minor)?;
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed)?;
    let (headers, _) = header_map(&head, parsed.headers, false, limits.underscores)?;
    // What stands in the head counts only where a body may be (RFC 9112 section 6.3), but must be sound everywhere.
    let marks = Marks::of(&headers);
    let framed = framing(&headers, marks, version)?;
    let bodiless = is_bodiless(to, status);
    let length = if bodiless { Length::None } else { framed.unwrap_or(Length::Unknown) };
    let until_close = !bodiless && framed.is_none();
    let keep_alive = keeps_alive(&headers, marks, version) && !until_close;
    Ok(ResponseHead { response: Response { status, headers }, length, keep_alive, marks })
}

/// Reads a trailer section that is complete. Fields that would say something about framing or routing are dropped
/// (RFC 9110 section 6.5.1).
///
/// # Errors
/// Why it is refused.
pub fn parse_trailers(section: Bytes, limits: &Limits) -> Result<HeaderMap, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let room = fields.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    match httparse::parse_headers(&section, room) {
        Ok(httparse::Status::Complete((_, parsed))) => {
            let (mut trailers, _) = header_map(&section, parsed, false, limits.underscores)?;
            drop_forbidden(&mut trailers);
            Ok(trailers)
        }
        Ok(httparse::Status::Partial) => Err(HeadError::Malformed),
        Err(error) => Err(HeadError::of_grammar(&section, error)),
    }
}

/// Drops the trailers that would say something about framing or routing (RFC 9110 section 6.5.1).
pub fn drop_forbidden(trailers: &mut HeaderMap) {
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST, header::CONNECTION] {
        trailers.remove(name);
    }
}

fn version(minor: u8) -> Result<Version, HeadError> {
    match minor {
        0 => Ok(Version::Http10),
        1 => Ok(Version::Http11),
        _ => Err(HeadError::Version),
    }
}

/// Headers that Weir adds to a request.
const ADDED: usize = 4;

/// The fields as a map, whose values share the bytes of the head. With `host`, Host is taken apart, and there is
/// one at the most.
fn header_map(
    head: &Bytes,
    fields: &[httparse::Header<'_>],
    host: bool,
    underscores: Underscores,
) -> Result<(HeaderMap, Option<HeaderValue>), HeadError> {
    // What Weir adds to a request is to find room.
    let mut map = HeaderMap::with_capacity(fields.len() + if host { ADDED } else { 0 });
    let mut found = None;
    for field in fields {
        let underscored = || field.name.as_bytes().contains(&b'_');
        match underscores {
            Underscores::Reject if underscored() => return Err(HeadError::Underscore),
            Underscores::Drop if underscored() => continue,
            Underscores::Allow | Underscores::Reject | Underscores::Drop => {}
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed)?;
        let value = value_of(head, field.value)?;
        if host && name == header::HOST {
            if found.replace(value).is_some() {
                return Err(HeadError::SeveralHosts);
            }
        } else {
            map.append(name, value);
        }
    }
    Ok((map, found))
}

pub(super) fn value_of(head: &Bytes, value: &[u8]) -> Result<HeaderValue, HeadError> {
    HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| HeadError::Malformed)
}

/// What the fields say about the body (RFC 9112 section 6): one Content-Length, or one `Transfer-Encoding: chunked`,
/// or neither.
fn framing(headers: &HeaderMap, marks: Marks, version: Version) -> Result<Option<Length>, HeadError> {
    if !marks.has(Marks::TRANSFER_ENCODING.and(Marks::CONTENT_LENGTH)) {
        return Ok(None);
    }
    if marks.has(Marks::TRANSFER_ENCODING) {
        if marks.has(Marks::CONTENT_LENGTH) {
            return Err(HeadError::LengthAndEncoding);
        }
        let chunked = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if version == Version::Http10 || !only(headers, &header::TRANSFER_ENCODING).is_some_and(chunked) {
            return Err(HeadError::TransferEncoding);
        }
        return Ok(Some(Length::Unknown));
    }
    let length = only(headers, &header::CONTENT_LENGTH).and_then(|length| decimal(length.as_bytes()));
    match length.ok_or(HeadError::ContentLength)? {
        0 => Ok(Some(Length::None)),
        length => Ok(Some(Length::Known(length))),
    }
}

/// The value of a field that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn keeps_alive(headers: &HeaderMap, marks: Marks, version: Version) -> bool {
    if !marks.has(Marks::CONNECTION) {
        return version > Version::Http10;
    }
    let all = headers.get_all(header::CONNECTION);
    if all.iter().all(is_keep_alive) {
        return true;
    }
    let mut options = all.iter();
    match version {
        Version::Http10 => options.any(|value| has_token(value, "keep-alive")),
        Version::Http11 | Version::Http2 => !options.any(|value| has_token(value, "close")),
    }
}

/// Looks at the first bytes of a request, as far as they are here: what is no method is refused at once, and not when
/// the head is complete, which it may never be.
///
/// # Errors
/// When no request begins so.
pub fn check_beginning(buffer: &[u8]) -> Result<(), HeadError> {
    match buffer {
        // Perhaps an empty line before the request.
        [] | [b'\r'] => Ok(()),
        [b'\r', b'\n', ..] => Err(HeadError::Malformed),
        [b'\r', ..] => Err(HeadError::BareCr),
        [b'\n', ..] => Err(HeadError::BareLf),
        [0, ..] => Err(HeadError::Nul),
        [byte, ..] if is_token(&[*byte]) => Ok(()),
        _ => Err(HeadError::Method),
    }
}

/// Drops an empty line before a request: old clients send one behind a body (RFC 9112 section 2.2). True when there
/// was one.
pub fn skip_empty_line(buffer: &mut BytesMut) -> bool {
    let empty = buffer.starts_with(b"\r\n");
    if empty {
        let _ = buffer.split_to(2);
    }
    empty
}
