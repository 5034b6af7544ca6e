//! What the host knows of the stream, by Envoy's attribute names.
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::properties;
//!
//! /// Tells filters behind this one, and the access log, what was decided.
//! fn note(tenant: &str) -> Result<()> {
//!     let size = properties::number(&["request", "size"])?.unwrap_or(0);
//!     let agent = properties::text(&["request", "headers", "user-agent"])?.unwrap_or_default();
//!     properties::set(&["tenant"], format!("{tenant} {agent} {size}"))
//! }
//! ```

use weir_abi::join_path;

use crate::error::{Explain, Result};
use crate::raw;

/// The bytes of a property, by the segments of its path; `None` when there is none.
///
/// # Errors
/// When the host does not answer.
pub fn get(path: &[&str]) -> Result<Option<Vec<u8>>> {
    raw::property(&join_path(path)).explain(|| format!("reading property `{}`", path.join(".")))
}

/// A property as text; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// When the host does not answer.
pub fn text(path: &[&str]) -> Result<Option<String>> {
    Ok(get(path)?.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// A property as a number. Numbers are 8 bytes, little-endian; a shorter value counts as if it were filled up
/// with zeros.
///
/// # Errors
/// When the host does not answer.
pub fn number(path: &[&str]) -> Result<Option<u64>> {
    let value = get(path)?;
    Ok(value.map(|value| value.iter().take(8).rev().fold(0, |number, &byte| (number << 8) | u64::from(byte))))
}

/// Sets a property of the filter's own, which later filters of the stream can read by the same path.
///
/// # Errors
/// When the host does not take it.
pub fn set(path: &[&str], value: impl AsRef<[u8]>) -> Result<()> {
    let what = || format!("setting property `{}`", path.join("."));
    raw::set_property(&join_path(path), value.as_ref()).explain(what)
}

/// The server name that the client asked for in its TLS handshake.
///
/// # Errors
/// When the host does not answer.
pub fn server_name() -> Result<Option<String>> {
    text(&["connection", "requested_server_name"])
}

/// The caller's SPIFFE identity: the URI name of its certificate. The host gives it only for a certificate that it
/// has verified.
///
/// # Errors
/// When the host does not answer.
pub fn spiffe_id() -> Result<Option<String>> {
    Ok(text(&["connection", "uri_san_peer_certificate"])?.filter(|uri| uri.starts_with("spiffe://")))
}

/// Whether the response that begins is the upstream's, and not one that the host or a filter made.
pub(crate) fn is_of_upstream() -> bool {
    raw::property(&join_path(&["response", "code_details"])) == Ok(Some(b"via_upstream".to_vec()))
}

/// The address of the downstream, as `address:port`.
///
/// # Errors
/// When the host does not answer.
pub fn source_address() -> Result<Option<String>> {
    text(&["source", "address"])
}
