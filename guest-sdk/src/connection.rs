//! What the host knows of the connection that a stream came over, and of the route that was chosen. Everything here can be
//! asked in every phase.
//!
//! ```
//! use weir_sdk::connection;
//! use weir_sdk::prelude::*;
//!
//! /// Only callers of the route's own trust domain may pass.
//! fn may_pass() -> Result<bool> {
//!     let wanted = connection::route_metadata("mesh", &["trust_domain"])?;
//!     let caller = connection::identity()?;
//!     Ok(caller.is_some_and(|caller| wanted.as_deref() == Some(caller.trust_domain())))
//! }
//! ```

use crate::error::Result;
use crate::identity::SpiffeId;
use crate::properties;
use crate::properties::{number, text};

/// Who is calling: the identity of the client's certificate, which the host has verified. `None` when it has none, or one
/// that is not well-formed.
///
/// # Errors
/// When the host does not answer.
pub fn identity() -> Result<Option<SpiffeId>> {
    Ok(text(&["connection", "uri_san_peer_certificate"])?.and_then(SpiffeId::parse))
}

/// Whether the client has shown a certificate, and the host has verified it.
///
/// # Errors
/// When the host does not answer.
pub fn is_mutual_tls() -> Result<bool> {
    Ok(properties::get(&["connection", "mtls"])?.is_some_and(|value| value.first() == Some(&1)))
}

/// The version of TLS, as in `TLSv1.3`. `None` without TLS.
///
/// # Errors
/// When the host does not answer.
pub fn tls_version() -> Result<Option<String>> {
    text(&["connection", "tls_version"])
}

/// The server name that the client asked for in its TLS handshake. `None` when it asked for none, or without TLS.
///
/// # Errors
/// When the host does not answer.
pub fn server_name() -> Result<Option<String>> {
    Ok(text(&["connection", "requested_server_name"])?.filter(|name| !name.is_empty()))
}

/// The subject of the client's certificate. `None` when it has none, or shows no certificate.
///
/// # Errors
/// When the host does not answer.
pub fn client_subject() -> Result<Option<String>> {
    // As of the server name, hosts have an empty one where there is none.
    Ok(text(&["connection", "subject_peer_certificate"])?.filter(|subject| !subject.is_empty()))
}

/// The first DNS name of the client's certificate.
///
/// # Errors
/// When the host does not answer.
pub fn client_dns_name() -> Result<Option<String>> {
    text(&["connection", "dns_san_peer_certificate"])
}

/// The SHA-256 of the client's certificate, in hexadecimal.
///
/// # Errors
/// When the host does not answer.
pub fn client_certificate_digest() -> Result<Option<String>> {
    text(&["connection", "sha256_peer_certificate_digest"])
}

/// The address of the client, without port.
///
/// # Errors
/// When the host does not answer.
pub fn client_ip() -> Result<Option<std::net::IpAddr>> {
    let address = text(&["source", "address"])?;
    Ok(address.and_then(|address| address.parse::<std::net::SocketAddr>().ok()).map(|address| address.ip()))
}

/// The port that the client came to.
///
/// # Errors
/// When the host does not answer.
pub fn local_port() -> Result<Option<u16>> {
    Ok(number(&["destination", "port"])?.and_then(|port| u16::try_from(port).ok()))
}

/// The name of the route.
///
/// # Errors
/// When the host does not answer.
pub fn route_name() -> Result<Option<String>> {
    text(&["xds", "route_name"])
}

/// A text of the route's metadata: of those that are meant for `namespace`, the one at this path.
///
/// # Errors
/// When the host does not answer.
pub fn route_metadata(namespace: &str, path: &[&str]) -> Result<Option<String>> {
    text(&[&["xds", "route_metadata", "filter_metadata", namespace], path].concat())
}

/// The cluster that the request goes to.
///
/// # Errors
/// When the host does not answer.
pub fn cluster_name() -> Result<Option<String>> {
    text(&["xds", "cluster_name"])
}
