//! What TLS is made of, as files have it now. Files change while Weir runs: what is good is taken up, and what was good
//! before stays in the place of what is not, each pair and each bundle for itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::sign::CertifiedKey;

use crate::config::value::Spanned;
use crate::net::connection::Certificate;
use crate::net::tls::describe;
use crate::net::tls::files::{FileProblem, Files};
use crate::net::tls::lists::Revoked;

/// What is wrong with a file. What it held before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What it is, with the name of the file and the cure.
    pub reason: String,
    /// Since when.
    pub since: SystemTime,
}

/// Whom to trust, and whom not any more.
#[derive(Debug)]
pub struct Trust {
    /// The authorities.
    pub roots: Arc<RootCertStore>,
    /// What they have revoked.
    pub revoked: Option<Revoked>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots && self.revoked == other.revoked
    }
}

/// What was good of files when they were last taken up, by their paths, whoever names them.
#[derive(Default)]
pub struct LastGood {
    pairs: HashMap<(PathBuf, PathBuf), Arc<CertifiedKey>>,
    roots: HashMap<PathBuf, Arc<RootCertStore>>,
    revoked: HashMap<PathBuf, Revoked>,
}

impl LastGood {
    /// Notes a pair.
    pub fn pair(&mut self, cert: &Path, key: &Path, pair: &Arc<CertifiedKey>) {
        self.pairs.entry((cert.to_owned(), key.to_owned())).or_insert_with(|| Arc::clone(pair));
    }

    /// Notes who is trusted.
    pub fn trust(&mut self, ca: &Path, crl: Option<&Path>, trust: &Trust) {
        self.roots.entry(ca.to_owned()).or_insert_with(|| Arc::clone(&trust.roots));
        if let (Some(crl), Some(revoked)) = (crl, &trust.revoked) {
            self.revoked.entry(crl.to_owned()).or_insert_with(|| revoked.clone());
        }
    }
}

/// Where everything comes from: the files as they are now, and what was good of them before.
#[derive(Default)]
pub struct Sources {
    /// The files.
    pub files: Files,
    /// What was good of them.
    pub good: LastGood,
}

/// Makes what files are good for, with what they were good for before at hand.
pub struct Renewal<'a> {
    sources: &'a mut Sources,
    /// What is wrong, with nothing good before to stay in its place.
    pub problems: Vec<FileProblem>,
    /// What is wrong, and what was good before stays in its place.
    wrong: Vec<String>,
    /// When what is not valid yet will be, in seconds since 1970.
    pub again: Option<i64>,
}

impl<'a> Renewal<'a> {
    /// Of these.
    pub fn new(sources: &'a mut Sources) -> Self {
        Self { sources, problems: Vec::new(), wrong: Vec::new(), again: None }
    }

    /// A pair, or, when its files are of no use now, the one before. Without one before it need not be valid now: what
    /// cannot be avoided is served, and complained about.
    pub fn pair(&mut self, cert: &Spanned<PathBuf>, key: &Spanned<PathBuf>) -> Option<Arc<CertifiedKey>> {
        let before = self.sources.good.pairs.get(&(cert.value.clone(), key.value.clone())).cloned();
        let read = match (self.sources.files.certified_key(cert, key), before) {
            (Ok(read), None) => return Some(read),
            (Err(wrong), None) => {
                self.problems.extend(wrong);
                return None;
            }
            (Ok(read), Some(before)) if read.cert == before.cert => return Some(before),
            (read, Some(before)) => (read, before),
        };
        match read {
            (Ok(read), before) => {
                let described = read.cert.first().and_then(|der| describe(der)).unwrap_or_default();
                let Some(reason) = out_of_force(&described, &cert.value, now()) else {
                    return Some(read);
                };
                let begins = described.validity.0;
                if begins > now() {
                    self.again = Some(self.again.map_or(begins, |again| again.min(begins)));
                }
                self.wrong.push(format!("{reason}; the one before stays in force"));
                Some(before)
            }
            (Err(wrong), before) => {
                self.wrong.extend(wrong.into_iter().map(|(_, reason)| reason));
                Some(before)
            }
        }
    }

    /// Whom to trust: the very same as `known`, when that has not changed.
    pub fn trust(
        &mut self,
        ca: &Spanned<PathBuf>,
        crl: Option<&Spanned<PathBuf>>,
        known: Option<&Arc<Trust>>,
    ) -> Option<Arc<Trust>> {
        let roots = self.sources.files.authorities(ca).map(Arc::new);
        let before = self.sources.good.roots.get(&ca.value).cloned();
        let roots = self.good_or_before(roots, before);
        let revoked = match crl {
            Some(crl) => Some(self.revoked(crl)?),
            None => None,
        };
        let made = Trust { roots: roots?, revoked };
        match known {
            Some(known) if **known == made => Some(Arc::clone(known)),
            Some(_) | None => Some(Arc::new(made)),
        }
    }

    /// Revocation lists, and those before in the place of those that are out of date.
    fn revoked(&mut self, crl: &Spanned<PathBuf>) -> Option<Revoked> {
        let read = self.sources.files.lists(crl).and_then(|bytes| Revoked::read(bytes, crl));
        let before = self.sources.good.revoked.get(&crl.value).cloned();
        let read = match (read, &before) {
            (Ok(read), Some(before)) => {
                Ok(read.or_before(before, &crl.value, now(), |reason| self.wrong.push(reason)))
            }
            (read, _) => read,
        };
        self.good_or_before(read, before)
    }

    fn good_or_before<T>(&mut self, read: Result<T, FileProblem>, before: Option<T>) -> Option<T> {
        match (read, before) {
            (Ok(read), _) => Some(read),
            (Err((_, reason)), Some(before)) => {
                self.wrong.push(reason);
                Some(before)
            }
            (Err(problem), None) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// What is wrong, in the light of what was wrong before.
    pub fn troubles(&self, before: &[Trouble]) -> Vec<Trouble> {
        let trouble = |reason: &String| {
            let known = before.iter().find(|known| known.reason == *reason).cloned();
            known.unwrap_or_else(|| Trouble { reason: reason.clone(), since: SystemTime::now() })
        };
        self.wrong.iter().map(trouble).collect()
    }
}

/// Now, in seconds since 1970: certificates go by the wall clock.
pub fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

/// Why a certificate is not valid at a time, when it is not.
pub fn out_of_force(certificate: &Certificate, file: &Path, now: i64) -> Option<String> {
    let (from, to) = certificate.validity;
    let file = file.display();
    if now > to {
        return Some(format!("the certificate in {file} expired at {}; give a new one", time(to)));
    }
    (now < from).then(|| format!("the certificate in {file} is not valid before {}", time(from)))
}

/// A time as people and machines read it (RFC 3339).
pub fn time(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}
