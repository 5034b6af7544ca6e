//! Certificates for the demo and the tests: an authority of their own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's own certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for these names: DNS names, and identities that begin with `spiffe://`.
    ///
    /// # Errors
    /// When a name is none.
    pub fn sign(&self, common_name: &str, names: &[&str]) -> anyhow::Result<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        for name in names {
            let name = if name.contains("://") {
                SanType::URI((*name).try_into()?)
            } else {
                match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName((*name).try_into()?),
                }
            };
            params.subject_alt_names.push(name);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        validity(&mut params);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certificate { cert, key: key.serialize_pem() })
    }
}

/// Long enough for every demo, whatever its clock says.
fn validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
}

impl Certificate {
    /// Writes `NAME.pem` and `NAME.key` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&cert, &self.cert).with_context(|| format!("cannot write {}", cert.display()))?;
        fs::write(&key, &self.key).with_context(|| format!("cannot write {}", key.display()))?;
        Ok((cert, key))
    }
}
