//! Redirects: where to, made of the configuration and the request.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::config::route::{Redirect, RedirectScheme};
use crate::http::h1::HeadError;
use crate::http::message::Request;
use crate::plugin::stream::LocalReply;
use crate::proxy::reply::{is_grpc, refusal};

/// The answer that sends the client elsewhere.
pub fn reply(redirect: &Redirect, request: &Request) -> LocalReply {
    let location =
        HeaderValue::try_from(location(redirect, request)).unwrap_or(HeaderValue::from_static("/"));
    LocalReply {
        status: redirect.status.0,
        headers: vec![(header::LOCATION, location)],
        body: Bytes::new(),
        grpc_status: None,
        details: "redirect".into(),
    }
}

/// The answer that has the client ask again by the canonical path, as Envoy's `UNESCAPE_AND_REDIRECT` does. A caller that
/// speaks gRPC, which follows no redirects, is refused.
pub fn to_itself(request: &Request) -> LocalReply {
    if is_grpc(request) {
        return refusal(HeadError::EscapedSlash);
    }
    let location = match request.target() {
        // Where slashes are not merged, it would name another host (RFC 3986 section 4.2).
        path if path.starts_with("//") => HeaderValue::try_from(format!("/.{path}")).ok(),
        _ => None,
    };
    LocalReply {
        status: StatusCode::TEMPORARY_REDIRECT,
        headers: vec![(header::LOCATION, location.unwrap_or_else(|| request.path.clone()))],
        body: Bytes::new(),
        grpc_status: None,
        details: HeadError::EscapedSlash.as_str().into(),
    }
}

fn location(redirect: &Redirect, request: &Request) -> String {
    let scheme = redirect.scheme.map_or(request.scheme.as_str(), RedirectScheme::word);
    let authority = request.authority.to_str().unwrap_or_default();
    let path = redirect.path.as_deref().unwrap_or_else(|| request.target());
    let authority = match (&redirect.host, redirect.port) {
        (None, None) if redirect.scheme.is_none() => authority.to_owned(),
        // The port of the old scheme is not that of the new one.
        (None, None) => request.host().to_owned(),
        (Some(host), None) => host.clone(),
        (host, Some(port)) => format!("{}:{port}", host.as_deref().unwrap_or_else(|| request.host())),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};

    use super::*;
    use crate::config::route::RedirectStatus;
    use crate::http::message::{Scheme, Version};

    #[test]
    fn what_is_not_set_is_taken_from_the_request() {
        let request = Request {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: HeaderValue::from_static("a.example:8080"),
            path: HeaderValue::from_static("/x?y=1"),
            version: Version::Http11,
            headers: HeaderMap::new(),
        };
        let status = RedirectStatus(StatusCode::MOVED_PERMANENTLY);
        let none = Redirect { scheme: None, host: None, port: None, path: None, status };
        let to = |redirect: Redirect| location(&redirect, &request);
        assert_eq!(to(none.clone()), "http://a.example:8080/x?y=1");
        assert_eq!(
            to(Redirect { scheme: Some(RedirectScheme::Https), ..none.clone() }),
            "https://a.example/x?y=1"
        );
        assert_eq!(to(Redirect { port: Some(8443), ..none.clone() }), "http://a.example:8443/x?y=1");
        let elsewhere = Redirect { host: Some("b.example".into()), path: Some("/z".into()), ..none };
        assert_eq!(to(elsewhere), "http://b.example/z");
    }
}
