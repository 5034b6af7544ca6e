//! Certificates for the demo and the tests: an authority of their own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// The number of its next certificate.
    next: AtomicU64,
}

/// A certificate with its key, as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain.
    pub cert: String,
    /// The key.
    pub key: String,
    serial: u64,
}

/// From when to when something is valid.
pub type Validity = (SystemTime, SystemTime);

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
        Ok(Self { issuer: Issuer::new(params, key), pem, next: AtomicU64::new(1) })
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
        self.sign_for(common_name, names, None)
    }

    /// Signs a certificate that is valid then.
    ///
    /// # Errors
    /// When a name is none.
    pub fn sign_for(
        &self,
        common_name: &str,
        names: &[&str],
        valid: Option<Validity>,
    ) -> anyhow::Result<Certificate> {
        let mut params = CertificateParams::default();
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
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
        if let Some((from, to)) = valid {
            params.not_before = date_time_ymd(1970, 1, 1) + from.duration_since(SystemTime::UNIX_EPOCH)?;
            params.not_after = date_time_ymd(1970, 1, 1) + to.duration_since(SystemTime::UNIX_EPOCH)?;
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certificate { cert, key: key.serialize_pem(), serial })
    }

    /// A list of what the authority has revoked, as PEM, which is to be replaced after some time.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn revoke(&self, revoked: &[&Certificate], next: SystemTime) -> anyhow::Result<String> {
        let next_update = date_time_ymd(1970, 1, 1) + next.duration_since(SystemTime::UNIX_EPOCH)?;
        let revoked = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from(certificate.serial),
            revocation_time: date_time_ymd(2020, 1, 2),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: next_update - Duration::from_secs(24 * 60 * 60),
            next_update,
            crl_number: SerialNumber::from(self.next.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
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
