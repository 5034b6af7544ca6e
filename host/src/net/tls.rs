//! TLS by rustls: listeners that terminate it, and connections to clusters.

pub mod client;
pub mod files;
pub mod lists;
pub mod renewal;
pub mod server;
pub mod tickets;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::net::connection::Certificate;

/// The algorithms: aws-lc's, X25519MLKEM768 first, TLS 1.2 and 1.3.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// HTTP/2, as ALPN names it.
pub const H2: &[u8] = b"h2";

/// HTTP/1.1, as ALPN names it.
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// What is to be known of a certificate. `None` when it cannot be read, which one that was verified always can.
pub fn describe(der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let mut described = Certificate {
        subject: distinguished_name(parsed.subject()),
        issuer: distinguished_name(parsed.issuer()),
        sha256: hex(&Sha256::digest(der)),
        serial: hex(&parsed.serial.to_bytes_be()),
        validity: (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()),
        der: der.into(),
        ..Certificate::default()
    };
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for name in &names.value.general_names {
            if let GeneralName::URI(uri) = name {
                described.uri_sans.push((*uri).to_owned());
            } else if let GeneralName::DNSName(name) = name {
                described.dns_sans.push((*name).to_owned());
            } else if let GeneralName::IPAddress(address) = name {
                described.ip_sans.extend(ip_address(address));
            }
        }
    }
    Some(described)
}

/// An address as certificates have it (RFC 5280 section 4.2.1.6).
fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A version of the protocol by the name that it has in properties and logs. Empty for one that is not spoken here.
pub fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(_) | None => "",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name as RFC 4514 writes it: the last part first, parts joined by commas.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let mut parts: Vec<String> = name
        .iter_attributes()
        .map(|attribute| {
            let kind = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            let value = attribute.as_str().unwrap_or_default();
            let mut escaped = String::with_capacity(value.len());
            for c in value.chars() {
                if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            format!("{kind}={escaped}")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}
