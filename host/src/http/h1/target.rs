//! What a request is for: its authority and its path.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;

use crate::http::h1::head::{Limits, value_of};
use crate::http::h1::refused::HeadError;
use crate::http::path::canonical;

/// Authority and path of a request (RFC 9112 section 3.2).
pub(super) fn target_of(
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
    let host = host.ok_or(HeadError::MissingHost)?;
    check_authority(host.as_bytes())?;
    if target.starts_with('/') {
        return Ok((host, path_of(head, target, limits)?));
    }
    if target == "*" && method == Method::OPTIONS {
        return Ok((host, HeaderValue::from_static("*")));
    }
    let lower =
        |scheme: &str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let rest = match () {
        () if lower("http://") => target.get(7..),
        () if lower("https://") => target.get(8..),
        () => return Err(HeadError::Target),
    };
    let rest = rest.unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    check_authority(authority.as_bytes())?;
    // The two are to be the same (RFC 9112 section 3.2.2): whoever reads the one must not see another host.
    if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) {
        return Err(HeadError::InvalidHost);
    }
    let path = match path.as_bytes().first() {
        Some(b'/') => path_of(head, path, limits)?,
        Some(_) => {
            let path = Bytes::from(format!("/{path}"));
            path_of(&path, str::from_utf8(&path).unwrap_or_default(), limits)?
        }
        None => HeaderValue::from_static("/"),
    };
    Ok((host, path))
}

/// A path, which stands in `head`, as Weir goes on with it.
fn path_of(head: &Bytes, path: &str, limits: &Limits) -> Result<HeaderValue, HeadError> {
    match canonical(path.as_bytes(), limits.path)? {
        None => value_of(head, path.as_bytes()),
        Some(path) => HeaderValue::from_maybe_shared(Bytes::from(path)).map_err(|_| HeadError::Target),
    }
}

/// An authority is a host and perhaps a port; never a user.
///
/// # Errors
/// When it is none, or one that readers read in different ways: an escaped name, a port without a number.
pub fn check_authority(authority: &[u8]) -> Result<(), HeadError> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // Almost all are names without port; the others are looked at more closely.
    if !authority.is_empty() && authority.iter().all(plain) {
        return Ok(());
    }
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']').ok_or(HeadError::InvalidHost)?;
            let (address, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let address = str::from_utf8(address).ok().and_then(|address| address.parse::<Ipv6Addr>().ok());
            (address.is_some(), behind.get(1..).unwrap_or_default())
        }
        None => {
            let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
            let (name, port) = authority.split_at_checked(end).unwrap_or((authority, &[]));
            (!name.is_empty() && name.iter().all(plain), port)
        }
    };
    let port = match port {
        [] => true,
        [b':', digits @ ..] => {
            let digits = Some(digits).filter(|digits| digits.iter().all(u8::is_ascii_digit));
            digits.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u16>().ok()).is_some()
        }
        _ => false,
    };
    if host && port { Ok(()) } else { Err(HeadError::InvalidHost) }
}
