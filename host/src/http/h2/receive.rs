//! From what HTTP/2 says of a request to a request: what HTTP/1 would refuse is refused, and whoever reads it behind a
//! downgrade reads the same (RFC 9113 sections 8.2, 8.3 and 10.3). h2 has refused already what breaks a connection or a
//! stream: pseudo-headers out of order, names in upper case, control characters, connection-specific fields.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, request};

use crate::config::limits::Underscores;
use crate::http::h1::{HeadError, check_authority};
use crate::http::h2::Limits;
use crate::http::message::{Request, Scheme, Version};
use crate::http::path::canonical;

/// A request in Weir's form. `scheme`: how it reached Weir.
///
/// # Errors
/// Why it is refused.
pub fn receive(parts: request::Parts, scheme: Scheme, limits: &Limits) -> Result<Request, HeadError> {
    let (method, mut headers) = (parts.method, parts.headers);
    if method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    check_values(&headers)?;
    // Crumbs of a cookie are one field: through HTTP/1 they would have come as one.
    join_cookies(&mut headers)?;
    if headers.len() > limits.fields {
        return Err(HeadError::TooManyFields);
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(HeadError::SeveralHosts);
    }
    check_length(&headers)?;
    treat_underscores(&mut headers, limits.underscores)?;
    let host = headers.remove(header::HOST);
    let authority = match (parts.uri.authority(), &host) {
        (Some(authority), _) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| HeadError::InvalidHost)?
        }
        (None, Some(host)) => host.clone(),
        (None, None) => return Err(HeadError::MissingHost),
    };
    check_authority(authority.as_bytes())?;
    // The two are to be the same (RFC 9113 section 8.3.1).
    if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(HeadError::InvalidHost);
    }
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(HeadError::Target);
    }
    let path = path_of(parts.uri.path_and_query(), &method, limits)?;
    Ok(Request { method, scheme, authority, path, version: Version::Http2, headers })
}

/// No path at all: what is left of a `:path` that is missing, or nothing but a fragment.
static NO_PATH: LazyLock<Option<PathAndQuery>> = LazyLock::new(|| PathAndQuery::try_from("#").ok());

/// The path as Weir goes on with it. It begins with a slash, or is the asterisk of OPTIONS.
fn path_of(path: Option<&PathAndQuery>, method: &Method, limits: &Limits) -> Result<HeaderValue, HeadError> {
    // As text, a path that is missing looks like a slash.
    let path = path.filter(|path| NO_PATH.as_ref() != Some(*path)).map_or("", PathAndQuery::as_str);
    if path.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    if path == "*" && method == Method::OPTIONS {
        return Ok(HeaderValue::from_static("*"));
    }
    if !path.starts_with('/') {
        return Err(HeadError::Target);
    }
    match canonical(path.as_bytes(), limits.path)? {
        Some(path) => HeaderValue::from_maybe_shared(Bytes::from(path)),
        None => HeaderValue::from_str(path),
    }
    .map_err(|_| HeadError::Target)
}

/// Whether no value begins or ends in whitespace (RFC 9113 section 8.2.1): behind a downgrade it would be another.
fn check_values(headers: &HeaderMap) -> Result<(), HeadError> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if headers.values().any(padded) { Err(HeadError::Malformed) } else { Ok(()) }
}

/// Whether there is one Content-Length, of digits and nothing else, or none. That it fits the body is h2's to say.
fn check_length(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let sound = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_none_or(sound) && lengths.next().is_none() {
        Ok(())
    } else {
        Err(HeadError::ContentLength)
    }
}

/// Does about underscores in names what is to be done.
fn treat_underscores(headers: &mut HeaderMap, action: Underscores) -> Result<(), HeadError> {
    let underscored = |name: &&HeaderName| name.as_str().contains('_');
    match action {
        Underscores::Allow => {}
        Underscores::Reject if headers.keys().any(|name| underscored(&name)) => {
            return Err(HeadError::Underscore);
        }
        Underscores::Drop if headers.keys().any(|name| underscored(&name)) => {
            let names: Vec<HeaderName> = headers.keys().filter(underscored).cloned().collect();
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
        Underscores::Reject | Underscores::Drop => {}
    }
    Ok(())
}

/// Makes one field of the crumbs that HTTP/2 may cut a cookie into (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), HeadError> {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return Ok(()) };
    let mut cookie = BytesMut::from(first.as_bytes());
    for crumb in std::iter::once(second).chain(crumbs) {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb.as_bytes());
    }
    let cookie = HeaderValue::from_maybe_shared(cookie.freeze()).map_err(|_| HeadError::Malformed)?;
    headers.insert(header::COOKIE, cookie);
    Ok(())
}

/// Makes trailers fit to be passed on. Fields that would say something about framing or routing are dropped (RFC 9110
/// section 6.5.1).
///
/// # Errors
/// Why they are refused.
pub fn receive_trailers(trailers: &mut HeaderMap, underscores: Underscores) -> Result<(), HeadError> {
    check_values(trailers)?;
    treat_underscores(trailers, underscores)?;
    crate::http::h1::head::drop_forbidden(trailers);
    Ok(())
}

/// The same for trailers of an answer, where whitespace around a value is taken off: gRPC's messages may end in some, and
/// the endpoint is not to lose its status for it.
///
/// # Errors
/// None that can come: what is left of a value is one.
pub fn answered_trailers(trailers: &mut HeaderMap) -> Result<(), HeadError> {
    for value in trailers.values_mut() {
        let trimmed = value.as_bytes().trim_ascii();
        if trimmed.len() < value.len() {
            *value = HeaderValue::from_bytes(trimmed).map_err(|_| HeadError::Malformed)?;
        }
    }
    crate::http::h1::head::drop_forbidden(trailers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h2::ledger::FrameLimits;
    use crate::http::path::PathRules;

    const LIMITS: Limits = Limits {
        streams: 1,
        stream_window: 1,
        connection_window: 1,
        header_bytes: 1,
        send_buffer: 1,
        frames: FrameLimits { resets: 1, errors: 1, control: 1 },
        head_timeout: std::time::Duration::ZERO,
        stream_idle: std::time::Duration::ZERO,
        linger: (0, std::time::Duration::ZERO),
        fields: 5,
        target: 20,
        underscores: Underscores::Reject,
        path: PathRules::NONE,
    };

    fn read(uri: &'static str, headers: &[(&'static str, &'static str)]) -> Result<Request, HeadError> {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        receive(parts, Scheme::Http, &LIMITS)
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_field_again() {
        let crumbs = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")];
        let headers = read("http://a/", &crumbs).expect("a request").headers;
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        assert!(read("http://a/", &[("cookie", "a=1"); 6]).is_ok(), "they count as one");
    }

    #[test]
    fn whitespace_around_values_is_taken_off_in_trailers_of_answers_and_refused_in_those_of_requests() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-message", HeaderValue::from_static("no such key: "));
        assert!(receive_trailers(&mut trailers.clone(), Underscores::Reject).is_err());
        answered_trailers(&mut trailers).expect("trailers");
        assert_eq!(trailers["grpc-message"], "no such key:");
    }

    #[test]
    fn what_http1_would_refuse_is_refused() {
        for (uri, headers, error) in [
            ("ftp://a/", &[][..], HeadError::Target),
            ("http://u@a/", &[], HeadError::InvalidHost),
            ("http://a/", &[("host", "b")], HeadError::InvalidHost),
            ("/", &[], HeadError::MissingHost),
            ("/", &[("host", "a"), ("host", "a")], HeadError::SeveralHosts),
            ("*", &[("host", "a")], HeadError::Target),
            ("http://a/", &[("content-length", "1"), ("content-length", "1")], HeadError::ContentLength),
            ("http://a/", &[("content-length", "+1")], HeadError::ContentLength),
            ("http://a/", &[("content-length", "")], HeadError::ContentLength),
            ("http://a/", &[("x", "1 ")], HeadError::Malformed),
            ("http://a/", &[("x", "\t1")], HeadError::Malformed),
            ("http://a/", &[("a_b", "1")], HeadError::Underscore),
            ("http://a/aaaaaaaaaaaaaaaaaaaa", &[], HeadError::TargetTooLong),
            ("http://a/", &[("x", "1"); 6], HeadError::TooManyFields),
        ] {
            assert_eq!(read(uri, headers).err(), Some(error), "{uri} {headers:?}");
        }
    }
}
