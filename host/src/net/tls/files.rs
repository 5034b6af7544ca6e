//! Certificates and keys from files, with problems that name the file and the cure.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::OwnedCertRevocationList;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::problem::Place;
use crate::config::value::Spanned;
use crate::net::tls::provider;
use crate::net::tls::renewal::Revoked;

/// What is wrong with a file that the configuration names, and where it names it.
pub type FileProblem = (Place, String);

/// Reads a chain and its key, and makes sure that they belong together.
///
/// # Errors
/// Which files are wrong, how, and what to do.
pub fn certified_key(
    cert: &Spanned<impl AsRef<Path>>,
    key: &Spanned<impl AsRef<Path>>,
) -> Result<Arc<CertifiedKey>, Vec<FileProblem>> {
    let (chain, signing) = match (certificates(cert), signing_key(key)) {
        (Ok(chain), Ok(signing)) => (chain, signing),
        (chain, signing) => return Err(chain.err().into_iter().chain(signing.err()).collect()),
    };
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|_| {
        let (file, cert) = (key.value.as_ref().display(), cert.value.as_ref().display());
        let message = format!(
            "the key in {file} does not match the certificate in {cert}; give the pair that was made together"
        );
        vec![(key.place.clone(), message)]
    })?;
    Ok(Arc::new(certified))
}

fn signing_key(key: &Spanned<impl AsRef<Path>>) -> Result<Arc<dyn SigningKey>, FileProblem> {
    let (place, path) = (&key.place, key.value.as_ref());
    let bytes = read(path).map_err(|message| (place.clone(), message))?;
    let parsed = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let message =
            format!("{} holds no private key in PEM form; give the key of the certificate", path.display());
        (place.clone(), message)
    })?;
    provider().key_provider.load_private_key(parsed).map_err(|error| {
        (
            place.clone(),
            format!("the key in {} cannot be used: {error}; use RSA, ECDSA or Ed25519", path.display()),
        )
    })
}

/// Reads a chain.
///
/// # Errors
/// What is wrong with the file.
pub fn certificates(path: &Spanned<impl AsRef<Path>>) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let (place, path) = (&path.place, path.value.as_ref());
    let bytes = read(path).map_err(|message| (place.clone(), message))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => {
            let message =
                format!("{} holds no certificate in PEM form; give a file that has one", path.display());
            Err((place.clone(), message))
        }
    }
}

/// Reads the certificates of authorities.
///
/// # Errors
/// What is wrong with the file.
pub fn authorities(path: &Spanned<impl AsRef<Path>>) -> Result<RootCertStore, FileProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            let message = format!(
                "{} holds a certificate that cannot be used: {error}; give another file",
                path.value.as_ref().display()
            );
            (path.place.clone(), message)
        })?;
    }
    Ok(roots)
}

/// Reads revocation lists.
///
/// # Errors
/// What is wrong with the file.
pub fn revocations(path: &Spanned<impl AsRef<Path>>) -> Result<Revoked, FileProblem> {
    let (place, path) = (&path.place, path.value.as_ref());
    let bytes = read(path).map_err(|message| (place.clone(), message))?;
    let wrong = |what: &str| {
        let message = format!("{} {what}; give a file that the authority has made", path.display());
        (place.clone(), message)
    };
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|_| wrong("is not in PEM form"))?;
    let mut first = None;
    for list in &lists {
        let parsed = CertificateRevocationList::from_der(list).ok().map(|(_, parsed)| parsed);
        let next = parsed.and_then(|parsed| Some(parsed.next_update()?.timestamp()));
        let known = OwnedCertRevocationList::from_der(list).is_ok();
        let next = next.filter(|_| known).ok_or_else(|| wrong("holds a list that cannot be used"))?;
        first = Some(first.map_or(next, |first: i64| first.min(next)));
    }
    let next_update = first.ok_or_else(|| wrong("holds no certificate revocation list"))?;
    Ok(Revoked { lists, next_update })
}

/// Everything that some files hold now, to tell whether they have changed.
pub fn contents<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<Option<Vec<u8>>> {
    paths.map(|path| std::fs::read(path).ok()).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        format!("{} cannot be read: {error}; relative paths start at the configuration file", path.display())
    })
}
