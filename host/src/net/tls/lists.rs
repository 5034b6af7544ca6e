//! Revocation lists: several authorities' in one file, each of which counts for itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use webpki::OwnedCertRevocationList;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::value::Spanned;
use crate::net::tls::distinguished_name;
use crate::net::tls::files::FileProblem;
use crate::net::tls::renewal::time;

/// What authorities have revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked(Vec<List>);

/// The list of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The list itself.
    pub der: CertificateRevocationListDer<'static>,
    /// Whose it is, for people.
    authority: String,
    scope: Scope,
    /// When it was made, in seconds since 1970.
    made: i64,
    /// When it has to be replaced, in seconds since 1970. From then on it is of no use, and whoever it concerns is
    /// refused.
    next_update: i64,
}

/// What a list is about: the name of its authority, and which of the authority's certificates, when not all (RFC 5280
/// section 5.2.5).
type Scope = (Vec<u8>, Option<Vec<u8>>);

impl Revoked {
    /// The lists of a file. Of several that are about the same, the newest counts.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(bytes: &[u8], file: &Spanned<PathBuf>) -> Result<Self, FileProblem> {
        let wrong = |what: &str| {
            let path = file.value.display();
            (file.place.clone(), format!("{path} {what}; give a file that the authority has made"))
        };
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        let lists = lists.map_err(|_| wrong("is not in PEM form"))?;
        let mut newest: Vec<List> = Vec::new();
        let mut known = HashMap::new();
        for der in lists {
            let list = List::new(der).ok_or_else(|| wrong("holds a list that cannot be used"))?;
            let at = *known.entry(list.scope.clone()).or_insert(newest.len());
            match newest.get_mut(at) {
                Some(other) if other.made > list.made => {}
                Some(other) => *other = list,
                None => newest.push(list),
            }
        }
        if newest.is_empty() { Err(wrong("holds no certificate revocation list")) } else { Ok(Self(newest)) }
    }

    /// The lists, one for each authority and what it is about.
    pub fn lists(&self) -> &[List] {
        &self.0
    }

    /// When the first of them has to be replaced, in seconds since 1970.
    pub fn next_update(&self) -> Option<i64> {
        self.0.iter().map(|list| list.next_update).min()
    }

    /// The same, with lists of before in the place of those that are out of date, where there are any that are good for
    /// longer. `told` is told which are out of date although there was something before.
    pub fn or_before(self, before: &Self, file: &Path, now: i64, mut told: impl FnMut(String)) -> Self {
        let better = |list: List| {
            let lasts = |known: &&List| known.scope == list.scope && known.next_update > list.next_update;
            match (list.out_of_date(file, now), before.0.iter().find(lasts)) {
                (Some(reason), Some(known)) => {
                    told(format!("{reason}; the one before stays in force"));
                    known.clone()
                }
                (Some(_) | None, _) => list,
            }
        };
        Self(self.0.into_iter().map(better).collect())
    }

    /// Which lists are of no use at a time, and why.
    pub fn out_of_date(&self, file: &Path, now: i64) -> Vec<String> {
        self.0.iter().filter_map(|list| list.out_of_date(file, now)).collect()
    }
}

impl List {
    /// None when it is none that can be used.
    fn new(der: CertificateRevocationListDer<'static>) -> Option<Self> {
        // Whoever verifies chains has to make sense of it, too.
        OwnedCertRevocationList::from_der(&der).ok()?;
        let (_, parsed) = CertificateRevocationList::from_der(&der).ok()?;
        let mut extensions = parsed.extensions().iter();
        let about = extensions.find(|found| found.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let scope = (parsed.issuer().as_raw().to_vec(), about.map(|about| about.value.to_vec()));
        let authority = distinguished_name(parsed.issuer());
        let (made, next_update) = (parsed.last_update().timestamp(), parsed.next_update()?.timestamp());
        Some(Self { der, authority, scope, made, next_update })
    }

    fn out_of_date(&self, file: &Path, now: i64) -> Option<String> {
        let (whose, file, next) = (&self.authority, file.display(), self.next_update);
        let reason = || {
            format!(
                "a revocation list in {file}, that of {whose}, was to be replaced at {}; give a new one",
                time(next)
            )
        };
        (now >= next).then(reason)
    }
}
