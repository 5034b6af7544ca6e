//! Properties: what a guest may know of its stream, by Envoy's attribute names.
//!
//! Numbers are 8 bytes, little-endian; booleans one byte; times and durations nanoseconds; maps in the
//! serialised form of header maps; everything else the bytes themselves.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use weir_abi::{MapKind, Status, split_path};

use crate::net::connection::{Certificate, Tls};
use crate::plugin::abi::headers::View;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::time::unix_nanos;
use crate::plugin::abi::{Answer, Len, OutLen, OutPtr, Ptr};
use crate::plugin::stream::Stream;
use crate::plugin::vm::{Starting, Vm};

pub fn proxy_get_property(
    host: &mut Host<'_>,
    path: Ptr,
    path_len: Len,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    let (path, vm) = host.bytes(path, path_len)?;
    let value = get(vm, path).ok_or(Status::NotFound)?;
    host.give(&value, data, data_len)
}

pub fn proxy_set_property(
    host: &mut Host<'_>,
    path: Ptr,
    path_len: Len,
    value: Ptr,
    value_len: Len,
) -> Answer {
    let ((path, value), vm) = host.two((path, path_len), (value, value_len))?;
    let (key, value) = (own_key(path), Bytes::copy_from_slice(value));
    let context = vm.stream().map_err(|_| Status::NotFound)?;
    Ok(context.stream.borrow_mut().info.set_state(&key, value)?)
}

pub fn proxy_get_configuration(host: &mut Host<'_>, data: OutPtr, data_len: OutLen) -> Answer {
    let root = host.vm().root()?;
    let bytes = match root.starting {
        Some(Starting::Vm) => root.spec.vm_config.clone(),
        Some(Starting::Plugin) | None => root.spec.config.clone(),
    };
    host.give(&bytes, data, data_len)
}

/// Where a guest's own property is kept: below `wasm.`, so that it can hide nothing of the host's.
fn own_key(path: &[u8]) -> Vec<u8> {
    [b"wasm.", path.strip_suffix(&[0]).unwrap_or(path)].concat()
}

/// The value of a property.
fn get(vm: &Vm, path: &[u8]) -> Option<Vec<u8>> {
    let segments = segments(path);
    if let Some(value) = segments.as_ref().and_then(|segments| of_plugin(vm, segments)) {
        return Some(value);
    }
    let stream = vm.stream().ok()?.stream.borrow();
    in_stream(&stream, path, segments.as_deref())
}

/// The value of a stream's property by its path, whose segments are joined by NUL: what Weir knows of the stream, or
/// else what a filter has set under that name. `None` when there is no such thing.
pub fn property(stream: &Stream, path: &[u8]) -> Option<Vec<u8>> {
    in_stream(stream, path, segments(path).as_deref())
}

/// The segments of a path, unless it is no text. Then it names nothing of the host's, but a filter may have set it.
///
/// Those behind the fourth are left out: nothing of the host's has so many, and a guest may write millions.
fn segments(path: &[u8]) -> Option<SmallVec<[&str; 4]>> {
    split_path(path).take(4).map(|part| str::from_utf8(part).ok()).collect()
}

fn in_stream(stream: &Stream, path: &[u8], segments: Option<&[&str]>) -> Option<Vec<u8>> {
    let known = segments.and_then(|segments| of_stream(stream, segments));
    known.or_else(|| stream.state(&own_key(path)).map(|value| value.to_vec()))
}

fn of_plugin(vm: &Vm, segments: &[&str]) -> Option<Vec<u8>> {
    let spec = &vm.root().ok()?.spec;
    match segments {
        ["plugin_name"] => text(&spec.name),
        ["plugin_root_id"] => text(&spec.root_id),
        ["plugin_vm_id"] => text(&spec.vm_id),
        // Envoy's numbers: 0 unspecified, 1 inbound, 2 outbound. A gateway's listener is neither.
        ["listener_direction"] => number(0),
        _ => None,
    }
}

fn of_stream(stream: &Stream, segments: &[&str]) -> Option<Vec<u8>> {
    match segments {
        ["request", rest @ ..] => of_request(stream, rest),
        ["response", rest @ ..] => of_response(stream, rest),
        ["connection", rest @ ..] => of_connection(stream, rest),
        ["source", rest @ ..] => address(stream.connection.peer, rest),
        ["destination", rest @ ..] => address(stream.connection.local, rest),
        ["upstream", rest @ ..] => of_upstream(stream, rest),
        ["filter_state", key] => stream.state(key.as_bytes()).map(|value| value.to_vec()),
        ["connection_id"] => number(stream.connection.id),
        ["cluster_name"] => text(stream.info.cluster.as_deref()?),
        ["route_name"] => text(stream.info.route.as_deref()?),
        _ => None,
    }
}

fn of_request(stream: &Stream, segments: &[&str]) -> Option<Vec<u8>> {
    let request = stream.request.as_ref()?;
    let header = |name: &str| request.headers.get(name).map(|value| value.as_bytes().to_vec());
    match segments {
        ["path"] => text(request.target()),
        ["url_path"] => text(request.url_path()),
        ["query"] => text(request.query()),
        ["host"] => Some(request.authority.as_bytes().to_vec()),
        ["scheme"] => text(request.scheme.as_str()),
        ["method"] => text(request.method.as_str()),
        ["protocol"] => text(request.version.as_str()),
        ["id"] => header("x-request-id"),
        ["referer"] => header("referer"),
        ["useragent"] => header("user-agent"),
        ["time"] => number(unix_nanos(stream.info.started_at)),
        ["duration"] => duration(stream.info.started.elapsed()),
        ["size"] => number(stream.info.received_bytes),
        ["total_size"] => {
            let head = View::of_stream(stream, MapKind::HttpRequestHeaders)?.content_len();
            number(stream.info.received_bytes + head)
        }
        ["headers"] => Some(View::of_stream(stream, MapKind::HttpRequestHeaders)?.encode()),
        ["headers", name] => in_map(stream, MapKind::HttpRequestHeaders, name),
        _ => None,
    }
}

fn of_response(stream: &Stream, segments: &[&str]) -> Option<Vec<u8>> {
    let response = stream.response.as_ref()?;
    match segments {
        ["code"] => number(response.status.as_u16().into()),
        ["code_details"] => text(stream.info.details.as_deref()?),
        ["size"] => number(stream.info.answered_bytes),
        ["total_size"] => {
            let head = View::of_stream(stream, MapKind::HttpResponseHeaders)?.content_len();
            number(stream.info.answered_bytes + head)
        }
        ["grpc_status"] => {
            let trailers = stream.response_trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
            let value = trailers.or_else(|| response.headers.get("grpc-status"))?;
            number(value.to_str().ok()?.parse().ok()?)
        }
        ["headers"] => Some(View::of_stream(stream, MapKind::HttpResponseHeaders)?.encode()),
        ["headers", name] => in_map(stream, MapKind::HttpResponseHeaders, name),
        ["trailers"] => Some(View::of_stream(stream, MapKind::HttpResponseTrailers)?.encode()),
        ["trailers", name] => in_map(stream, MapKind::HttpResponseTrailers, name),
        _ => None,
    }
}

fn of_connection(stream: &Stream, segments: &[&str]) -> Option<Vec<u8>> {
    let connection = &stream.connection;
    let tls = || connection.tls.as_ref();
    let peer = || tls()?.peer.as_deref();
    let local = || tls()?.local.as_deref();
    match segments {
        ["id"] => number(connection.id),
        ["mtls"] => Some(vec![u8::from(connection.peer_certificate().is_some())]),
        ["requested_server_name"] => text(connection.server_name()?),
        ["tls_version"] => {
            tls().map(|Tls { version, .. }| version).filter(|v| !v.is_empty()).and_then(|v| text(v))
        }
        ["subject_peer_certificate"] => text(&peer()?.subject),
        ["subject_local_certificate"] => text(&local()?.subject),
        ["uri_san_peer_certificate"] => identity(peer()?),
        ["uri_san_local_certificate"] => first(&local()?.uri_sans),
        ["dns_san_peer_certificate"] => first(&peer()?.dns_sans),
        ["dns_san_local_certificate"] => first(&local()?.dns_sans),
        ["sha256_peer_certificate_digest"] => {
            peer().map(|Certificate { sha256, .. }| sha256.clone().into_bytes())
        }
        ["termination_details"] => text(stream.info.details.as_deref()?),
        _ => None,
    }
}

fn of_upstream(stream: &Stream, segments: &[&str]) -> Option<Vec<u8>> {
    let upstream = stream.info.upstream.as_ref()?;
    match segments {
        ["local_address"] => text(&upstream.local?.to_string()),
        rest => address(upstream.address, rest),
    }
}

fn address(address: SocketAddr, segments: &[&str]) -> Option<Vec<u8>> {
    match segments {
        ["address"] => text(&address.to_string()),
        ["port"] => number(address.port().into()),
        _ => None,
    }
}

fn in_map(stream: &Stream, kind: MapKind, name: &str) -> Option<Vec<u8>> {
    View::of_stream(stream, kind)?.get(&name.to_ascii_lowercase()).map(<[u8]>::to_vec)
}

/// The first URI name, as in Envoy; but a certificate with a SPIFFE identity beside another URI has none
/// (SPIFFE X.509-SVID, section 2).
fn identity(certificate: &Certificate) -> Option<Vec<u8>> {
    let spiffe = certificate.uri_sans.iter().any(|uri| uri.starts_with("spiffe://"));
    if spiffe && certificate.uri_sans.len() > 1 { None } else { first(&certificate.uri_sans) }
}

fn first(list: &[String]) -> Option<Vec<u8>> {
    list.first().and_then(|value| text(value))
}

#[expect(clippy::unnecessary_wraps, reason = "it ends arms that have other values too")]
fn text(value: &str) -> Option<Vec<u8>> {
    Some(value.as_bytes().to_vec())
}

#[expect(clippy::unnecessary_wraps, reason = "it ends arms that have other values too")]
fn number(value: u64) -> Option<Vec<u8>> {
    Some(value.to_le_bytes().to_vec())
}

fn duration(value: Duration) -> Option<Vec<u8>> {
    number(u64::try_from(value.as_nanos()).ok()?)
}
