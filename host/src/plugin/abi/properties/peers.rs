//! `connection`, `source`, `destination` and `upstream`: who is at either end.

use std::net::SocketAddr;

use crate::net::connection::{Certificate, Tls};
use crate::plugin::abi::properties::http::nanos;
use crate::plugin::abi::properties::value::Value;
use crate::plugin::stream::Stream;

pub fn connection<'a>(stream: &'a Stream, name: &str) -> Option<Value<'a>> {
    let connection = &stream.connection;
    match name {
        "id" => Some(Value::Uint(connection.id)),
        "mtls" => Some(Value::Bool(connection.peer_certificate().is_some())),
        "requested_server_name" => Value::text(connection.server_name().unwrap_or_default()),
        // Of an exchange these are the response's.
        "termination_details" if !stream.is_http() => Value::text(stream.info.details.as_deref()?),
        // Envoy has no such attribute.
        "alpn" => {
            let tls = connection.tls.as_ref()?;
            Some(Value::list(tls.alpn.as_ref().map_or(tls.offered.as_slice(), std::slice::from_ref)))
        }
        name => of_tls(connection.tls.as_ref()?, name),
    }
}

pub fn upstream<'a>(stream: &'a Stream, name: &str) -> Option<Value<'a>> {
    let info = &stream.info;
    match name {
        "transport_failure_reason" if info.attempts > 0 => {
            Value::text(info.transport_failure.as_deref().unwrap_or_default())
        }
        "request_attempt_count" => Some(Value::Uint(info.attempts.into())),
        "cx_pool_ready_duration" => info.pool_wait.map(nanos),
        // Of a cluster that is planned too.
        "num_endpoints" => Some(Value::Uint(info.endpoints? as u64)),
        "local_address" => Some(Value::Address(info.upstream.as_ref()?.local?)),
        "address" | "port" => address(info.upstream.as_ref()?.address, name),
        name => of_tls(info.upstream.as_ref()?.tls.as_deref()?, name),
    }
}

/// Where the endpoint is. The configuration does not say of any, so that every part of it is empty.
pub fn locality<'a>(stream: &'a Stream, path: &[&str]) -> Option<Value<'a>> {
    stream.info.upstream.as_ref()?;
    match path {
        [] => Some(Value::Message(Vec::new())),
        ["region" | "zone" | "sub_zone"] => Value::text(""),
        _ => None,
    }
}

pub fn address<'a>(address: SocketAddr, name: &str) -> Option<Value<'a>> {
    match name {
        "address" => Some(Value::Address(address)),
        "port" => Some(Value::Int(address.port().into())),
        _ => None,
    }
}

/// What the handshake told. Of what is read through and not decrypted, nothing is known.
fn of_tls<'a>(tls: &'a Tls, name: &str) -> Option<Value<'a>> {
    if tls.version.is_empty() {
        return None;
    }
    let (peer, local) = (tls.peer.as_deref(), tls.local.as_deref());
    let subject = |certificate: Option<&'a Certificate>| {
        Value::text(certificate.map_or("", |certificate| &certificate.subject))
    };
    match name {
        "tls_version" => Value::text(tls.version),
        "subject_peer_certificate" => subject(peer),
        "subject_local_certificate" => subject(local),
        "uri_san_peer_certificate" => identity(peer?),
        "uri_san_local_certificate" => first(&local?.uri_sans),
        "dns_san_peer_certificate" => first(&peer?.dns_sans),
        "dns_san_local_certificate" => first(&local?.dns_sans),
        "sha256_peer_certificate_digest" => Value::text(&peer?.sha256),
        // Envoy's documents say URL-encoded; Envoy does not do so.
        "peer_certificate" => Some(Value::Made(peer?.pem().into_bytes())),
        _ => None,
    }
}

/// The first URI name, as in Envoy; but a certificate with a SPIFFE identity beside another URI has none
/// (SPIFFE X.509-SVID, section 2).
fn identity(certificate: &Certificate) -> Option<Value<'_>> {
    let spiffe = certificate.uri_sans.iter().any(|uri| uri.starts_with("spiffe://"));
    if spiffe && certificate.uri_sans.len() > 1 { None } else { first(&certificate.uri_sans) }
}

fn first(list: &[String]) -> Option<Value<'_>> {
    list.first().and_then(|value| Value::text(value))
}
