//! Heads: from bytes to messages, refusing what two readers could read in two ways.
//!
//! `httparse` reads the grammar; what it lets pass is refused here before it sees it (bare LF) or after (framing
//! and Host). One reading is left, or none.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode};

use crate::http::h1::Length;
use crate::http::message::{Request, Response, Scheme, Version, has_token, is_bodiless};

/// What a head may be like.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All of it, in bytes.
    pub bytes: usize,
    /// Its header fields; no more than [`MAX_FIELDS`].
    pub fields: usize,
    /// The target of a request, in bytes.
    pub target: usize,
}

/// The most header fields that can be configured.
pub const MAX_FIELDS: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 60 << 10, fields: 100, target: 16 << 10 }
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A line ends in LF alone.
    #[error("bare LF")]
    BareLf,
    /// The grammar is violated.
    #[error("malformed head")]
    Malformed,
    /// Larger than the limit.
    #[error("head too large")]
    TooLarge,
    /// More fields than the limit.
    #[error("too many header fields")]
    TooManyFields,
    /// A longer target than the limit.
    #[error("target too long")]
    TargetTooLong,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("unsupported version")]
    Version,
    /// A target in none of the forms that a proxy serves.
    #[error("invalid target")]
    Target,
    /// No Host.
    #[error("missing Host")]
    MissingHost,
    /// More than one Host.
    #[error("several Host fields")]
    SeveralHosts,
    /// A Host that is none, or that contradicts the target.
    #[error("invalid Host")]
    InvalidHost,
    /// Content-Length beside Transfer-Encoding.
    #[error("Content-Length with Transfer-Encoding")]
    LengthAndEncoding,
    /// A Content-Length that is not one number.
    #[error("invalid Content-Length")]
    ContentLength,
    /// A Transfer-Encoding other than `chunked`, or repeated, or in HTTP/1.0.
    #[error("invalid Transfer-Encoding")]
    TransferEncoding,
    /// CONNECT, which a reverse proxy does not serve.
    #[error("CONNECT is not served")]
    Connect,
}

impl HeadError {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::BareLf,
        Self::Malformed,
        Self::TooLarge,
        Self::TooManyFields,
        Self::TargetTooLong,
        Self::Version,
        Self::Target,
        Self::MissingHost,
        Self::SeveralHosts,
        Self::InvalidHost,
        Self::LengthAndEncoding,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::Connect,
    ];

    /// As metrics and logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::Malformed => "malformed_head",
            Self::TooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "unsupported_version",
            Self::Target => "invalid_target",
            Self::MissingHost => "missing_host",
            Self::SeveralHosts => "several_hosts",
            Self::InvalidHost => "invalid_host",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::ContentLength => "invalid_content_length",
            Self::TransferEncoding => "invalid_transfer_encoding",
            Self::Connect => "connect_refused",
        }
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
        Err(error) => return Err(grammar(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Malformed);
    };
    let version = version(minor)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed)?;
    let (headers, host) = header_map(&head, parsed.headers, true)?;
    let (authority, path) = target_of(&head, &method, target, host, limits)?;
    let length = framing(&headers, version)?.unwrap_or(Length::None);
    let keep_alive = keeps_alive(&headers, version);
    let expects_continue = version == Version::Http11
        && headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let request = Request { method, scheme, authority, path, version, headers };
    Ok(RequestHead { request, length, keep_alive, expects_continue })
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
        Err(error) => return Err(grammar(error)),
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(HeadError::Malformed) };
    let version = version(minor)?;
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed)?;
    let (headers, _) = header_map(&head, parsed.headers, false)?;
    // What stands in the head counts only where a body may be (RFC 9112 section 6.3), but must be sound everywhere.
    let framed = framing(&headers, version)?;
    let bodiless = is_bodiless(to, status);
    let length = if bodiless { Length::None } else { framed.unwrap_or(Length::Unknown) };
    let until_close = !bodiless && framed.is_none();
    let keep_alive = keeps_alive(&headers, version) && !until_close;
    Ok(ResponseHead { response: Response { status, headers }, length, keep_alive })
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
            let (mut trailers, _) = header_map(&section, parsed, false)?;
            for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST, header::CONNECTION]
            {
                trailers.remove(name);
            }
            Ok(trailers)
        }
        Ok(httparse::Status::Partial) => Err(HeadError::Malformed),
        Err(error) => Err(grammar(error)),
    }
}

fn grammar(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => HeadError::Malformed,
    }
}

fn version(minor: u8) -> Result<Version, HeadError> {
    match minor {
        0 => Ok(Version::Http10),
        1 => Ok(Version::Http11),
        _ => Err(HeadError::Version),
    }
}

/// The fields as a map, whose values share the bytes of the head. With `host`, Host is taken apart, and there is
/// one at the most.
fn header_map(
    head: &Bytes,
    fields: &[httparse::Header<'_>],
    host: bool,
) -> Result<(HeaderMap, Option<HeaderValue>), HeadError> {
    let mut map = HeaderMap::with_capacity(fields.len());
    let mut found = None;
    for field in fields {
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

fn value_of(head: &Bytes, value: &[u8]) -> Result<HeaderValue, HeadError> {
    HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| HeadError::Malformed)
}

/// Authority and path of a request (RFC 9112 section 3.2).
fn target_of(
    head: &Bytes,
    method: &Method,
    target: &str,
    host: Option<HeaderValue>,
    limits: &Limits,
) -> Result<(HeaderValue, HeaderValue), HeadError> {
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    if method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    // A fragment never travels, and a reader that cut it off would see another path.
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HeadError::Target);
    }
    let host = host.ok_or(HeadError::MissingHost)?;
    check_authority(host.as_bytes())?;
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        return Ok((host, value_of(head, target.as_bytes())?));
    }
    let lower =
        |scheme: &str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let rest = match () {
        () if lower("http://") => target.get(7..),
        () if lower("https://") => target.get(8..),
        () => return Err(HeadError::Target),
    };
    let rest = rest.unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    check_authority(authority.as_bytes())?;
    // The two are to be the same (RFC 9112 section 3.2.2): whoever reads the one must not see another host.
    if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) {
        return Err(HeadError::InvalidHost);
    }
    let path = match path.as_bytes().first() {
        Some(b'/') => value_of(head, path.as_bytes())?,
        Some(_) => HeaderValue::from_str(&format!("/{path}")).map_err(|_| HeadError::Target)?,
        None => HeaderValue::from_static("/"),
    };
    Ok((host, path))
}

/// An authority is a host and perhaps a port; never a user.
fn check_authority(authority: &[u8]) -> Result<(), HeadError> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // Almost all are names without port; the others are looked at more closely.
    if !authority.is_empty() && authority.iter().all(plain) {
        return Ok(());
    }
    match Authority::try_from(authority) {
        Ok(parsed) if !authority.contains(&b'@') && !parsed.host().is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(HeadError::InvalidHost),
    }
}

/// What the fields say about the body (RFC 9112 section 6): one Content-Length, or one `Transfer-Encoding: chunked`,
/// or neither.
fn framing(headers: &HeaderMap, version: Version) -> Result<Option<Length>, HeadError> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (encodings.next(), lengths.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(HeadError::LengthAndEncoding),
        (Some(encoding), None) => {
            let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !chunked || encodings.next().is_some() || version == Version::Http10 {
                return Err(HeadError::TransferEncoding);
            }
            Ok(Some(Length::Unknown))
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(HeadError::ContentLength);
            }
            match decimal(length.as_bytes()).ok_or(HeadError::ContentLength)? {
                0 => Ok(Some(Length::None)),
                length => Ok(Some(Length::Known(length))),
            }
        }
    }
}

/// Digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let mut options = headers.get_all(header::CONNECTION).iter();
    match version {
        Version::Http10 => options.any(|value| has_token(value, "keep-alive")),
        Version::Http11 | Version::Http2 => !options.any(|value| has_token(value, "close")),
    }
}

/// Drops one empty line before a request: old clients send one behind a body (RFC 9112 section 2.2).
pub fn skip_empty_line(buffer: &mut BytesMut) {
    if buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
}
