//! `request` and `response`.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};
use weir_abi::MapKind;

use crate::http::message::grpc_status;
use crate::plugin::abi::headers::View;
use crate::plugin::abi::properties::value::Value;
use crate::plugin::abi::time::unix_nanos;
use crate::plugin::stream::Stream;

pub fn request<'a>(stream: &'a Stream, segments: &[&str]) -> Option<Value<'a>> {
    let info = &stream.info;
    // What every stream has.
    match segments {
        ["time"] => return Some(Value::Nanos(unix_nanos(info.started_at()))),
        ["duration"] => return Some(nanos(info.started.elapsed())),
        _ => {}
    }
    let request = stream.request.as_ref()?;
    let header = |name: &str| request.headers.get(name).map(|value| Value::Text(value.as_bytes()));
    match segments {
        ["path"] => Value::text(request.target()),
        ["url_path"] => Value::text(request.url_path()),
        ["query"] => Value::text(request.query()),
        ["host"] => Some(Value::Text(request.authority.as_bytes())),
        ["scheme"] => Value::text(request.scheme.as_str()),
        ["method"] => Value::text(request.method.as_str()),
        ["protocol"] => Value::text(request.version.as_str()),
        ["id"] => header("x-request-id"),
        ["referer"] => header("referer"),
        ["useragent"] => header("user-agent"),
        // What is announced, or else what has come.
        ["size"] => match request.headers.get(CONTENT_LENGTH) {
            Some(length) => length.to_str().ok()?.parse().ok().map(Value::Int),
            None => Some(Value::Uint(info.received_bytes)),
        },
        ["total_size"] => {
            Some(Value::Uint(info.received_bytes + content(stream, MapKind::HttpRequestHeaders)))
        }
        ["headers_bytes"] => Some(Value::Uint(content(stream, MapKind::HttpRequestHeaders))),
        ["headers"] => View::of_stream(stream, MapKind::HttpRequestHeaders).map(Value::Headers),
        ["headers", name] => in_map(stream, MapKind::HttpRequestHeaders, name),
        _ => None,
    }
}

pub fn response<'a>(stream: &'a Stream, segments: &[&str]) -> Option<Value<'a>> {
    let info = &stream.info;
    let response = stream.response.as_ref();
    match segments {
        ["code"] => Some(Value::Int(response?.status.as_u16().into())),
        ["code_details"] => match &info.details {
            Some(details) => Value::text(details),
            // Weir's own answers all say why.
            None => response.and_then(|_| Value::text("via_upstream")),
        },
        ["flags"] => Some(Value::Uint(info.flags)),
        ["size"] => Some(Value::Uint(info.answered_bytes)),
        ["total_size"] => {
            let maps = [MapKind::HttpResponseHeaders, MapKind::HttpResponseTrailers];
            let content = maps.map(|kind| content(stream, kind)).iter().sum::<u64>();
            Some(Value::Uint(info.answered_bytes + content))
        }
        ["headers_bytes"] => Some(Value::Uint(content(stream, MapKind::HttpResponseHeaders))),
        ["grpc_status"] => {
            let told = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok();
            let told = stream.response_trailers.as_ref().and_then(told).or(told(&response?.headers));
            Some(Value::Int(
                told.unwrap_or_else(|| grpc_status(response.map_or(0, |r| r.status.as_u16()))).into(),
            ))
        }
        ["backend_latency"] => Some(nanos(info.upstream_ended?.since(info.upstream_began?))),
        ["headers"] => Some(map(stream, MapKind::HttpResponseHeaders)),
        ["headers", name] => in_map(stream, MapKind::HttpResponseHeaders, name),
        ["trailers"] => Some(map(stream, MapKind::HttpResponseTrailers)),
        ["trailers", name] => in_map(stream, MapKind::HttpResponseTrailers, name),
        _ => None,
    }
}

/// A duration.
pub fn nanos<'a>(duration: Duration) -> Value<'a> {
    Value::Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn map(stream: &Stream, kind: MapKind) -> Value<'_> {
    View::of_stream(stream, kind).map_or(Value::Nothing, Value::Headers)
}

/// The bytes of all names and values of a map.
fn content(stream: &Stream, kind: MapKind) -> u64 {
    View::of_stream(stream, kind).map_or(0, |view| view.content_len())
}

/// A header; several of one name are joined by commas, so that none can hide behind another.
fn in_map<'a>(stream: &'a Stream, kind: MapKind, name: &str) -> Option<Value<'a>> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return View::of_stream(stream, kind)?.get(name).map(Value::Text);
    }
    let mut values = stream.map(kind)?.get_all(name).iter();
    let first = values.next()?;
    let rest: Vec<&HeaderValue> = values.collect();
    if rest.is_empty() {
        return Some(Value::Text(first.as_bytes()));
    }
    let mut joined = first.as_bytes().to_vec();
    for value in rest {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Value::Made(joined))
}
