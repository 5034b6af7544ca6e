//! Heads onto the wire.

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::http::h1::Length;
use crate::http::message::{Request, Response};

/// Whether a body will be sent in chunks.
pub(super) fn is_chunked(length: Length) -> bool {
    length == Length::Unknown
}

/// The head of a request. `upgrade`: the connection is to change its protocol to what `Upgrade` says.
pub(super) fn request(request: &Request, length: Length, upgrade: bool, out: &mut BytesMut) {
    out.reserve(256 + request.path.len());
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(request.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    fields(&request.headers, out);
    match length {
        // A method that usually has a body says that there is none (RFC 9110 section 8.6).
        Length::None if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        Length::None => {}
        Length::Known(_) | Length::Unknown => body(length, out),
    }
    if upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What a response says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It goes on, which HTTP/1.1 takes for granted.
    Silent,
    /// It goes on, and HTTP/1.0 must be told.
    KeepAlive,
    /// It ends.
    Close,
    /// It changes its protocol.
    Upgrade,
}

/// The head of a response. `chunked`: whether the client understands the chunked coding.
pub(super) fn response(
    response: &Response,
    length: Length,
    to: &Method,
    chunked: bool,
    persistence: Persistence,
    out: &mut BytesMut,
) {
    out.reserve(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(response.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    fields(&response.headers, out);
    let bodiless = response.status.is_informational()
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match length {
        _ if bodiless => {}
        // What GET would have been told.
        _ if to == Method::HEAD => {
            if let Some(length) = response.headers.get(header::CONTENT_LENGTH) {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(length.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        Length::None => out.extend_from_slice(b"content-length: 0\r\n"),
        Length::Unknown if !chunked => {}
        Length::Known(_) | Length::Unknown => body(length, out),
    }
    match persistence {
        Persistence::Silent => {}
        Persistence::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::Upgrade => out.extend_from_slice(b"connection: upgrade\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers behind the last chunk.
pub(super) fn trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    fields(trailers, out);
    out.extend_from_slice(b"\r\n");
}

/// The line before a chunk.
pub(super) fn chunk_size(len: usize, out: &mut BytesMut) {
    let mut digits = [0; 16];
    let mut left = len;
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = HEX.get(left % 16).copied().unwrap_or(b'0');
        left /= 16;
        at -= 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or(&digits));
    out.extend_from_slice(b"\r\n");
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn body(length: Length, out: &mut BytesMut) {
    match length {
        Length::None => {}
        Length::Known(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Length::Unknown => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn decimal(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or(&digits));
}

/// All fields but those that the writer decides about.
fn fields(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        if is_framing(name) {
            continue;
        }
        out.reserve(name.as_str().len() + value.len() + 4);
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn is_framing(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION | header::HOST)
}
