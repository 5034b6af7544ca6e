//! What TLS is made of, as files have it now. Files change while Weir runs: what is good is taken up, and what was good
//! before stays in the place of what is not, each pair and each bundle for itself.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
use rustls::sign::CertifiedKey;

use crate::config::value::Spanned;
use crate::net::connection::Certificate;
use crate::net::tls::describe;
use crate::net::tls::files::{FileProblem, authorities, certified_key, revocations};

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

/// Revocation lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The lists.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them has to be replaced, in seconds since 1970. From then on it is of no use, and whoever it
    /// concerns is refused.
    pub next_update: i64,
}

/// Reads files, with what they held before at hand.
#[derive(Debug, Default)]
pub struct Renewal {
    /// What is wrong.
    pub problems: Vec<FileProblem>,
    /// When what is not valid yet will be, in seconds since 1970.
    pub again: Option<i64>,
}

impl Renewal {
    /// A pair, or, when its files are of no use now, the one before. Without one before it need not be valid now: what
    /// cannot be avoided is served, and complained about.
    pub fn pair(
        &mut self,
        cert: &Spanned<impl AsRef<Path>>,
        key: &Spanned<impl AsRef<Path>>,
        before: Option<&Arc<CertifiedKey>>,
    ) -> Option<Arc<CertifiedKey>> {
        let read = match (certified_key(cert, key), before) {
            (Ok(read), Some(before)) if read.cert == before.cert => return Some(Arc::clone(before)),
            (Ok(read), None) => return Some(read),
            (read, Some(_)) => read,
            (Err(wrong), None) => {
                self.problems.extend(wrong);
                return None;
            }
        };
        match read {
            Ok(read) => {
                let described = read.cert.first().and_then(|der| describe(der)).unwrap_or_default();
                let Some(reason) = out_of_force(&described, cert.value.as_ref(), now()) else {
                    return Some(read);
                };
                let begins = described.validity.0;
                if begins > now() {
                    self.again = Some(self.again.map_or(begins, |again| again.min(begins)));
                }
                self.problems.push((cert.place.clone(), format!("{reason}; the one before stays in force")));
            }
            Err(wrong) => self.problems.extend(wrong),
        }
        before.cloned()
    }

    /// Whom to trust: the very same as before, when that has not changed.
    pub fn trust(
        &mut self,
        ca: &Spanned<impl AsRef<Path>>,
        crl: Option<&Spanned<impl AsRef<Path>>>,
        before: Option<&Arc<Trust>>,
    ) -> Option<Arc<Trust>> {
        let roots = match authorities(ca) {
            Ok(roots) => Some(Arc::new(roots)),
            Err(problem) => {
                self.problems.push(problem);
                before.map(|before| Arc::clone(&before.roots))
            }
        };
        let revoked = match crl.map(revocations).transpose() {
            Ok(revoked) => self.in_time(revoked, crl, before),
            Err(problem) => {
                self.problems.push(problem);
                before.and_then(|before| before.revoked.clone())
            }
        };
        let made = Trust { roots: roots?, revoked };
        match before {
            Some(before) if **before == made => Some(Arc::clone(before)),
            Some(_) | None => Some(Arc::new(made)),
        }
    }

    /// Revocation lists, unless those before are to stay because these are out of date.
    fn in_time(
        &mut self,
        revoked: Option<Revoked>,
        crl: Option<&Spanned<impl AsRef<Path>>>,
        before: Option<&Arc<Trust>>,
    ) -> Option<Revoked> {
        let (Some(read), Some(crl), Some(before)) = (&revoked, crl, before.and_then(|b| b.revoked.clone()))
        else {
            return revoked;
        };
        match out_of_date(read, crl.value.as_ref(), now()) {
            Some(reason) if *read != before => {
                let message = format!("{reason}; the one before stays in force");
                self.problems.push((crl.place.clone(), message));
                Some(before)
            }
            Some(_) | None => revoked,
        }
    }

    /// What was found, in the light of what was wrong before.
    pub fn troubles(&self, before: &[Trouble]) -> Vec<Trouble> {
        let trouble = |(_, reason): &FileProblem| {
            let known = before.iter().find(|known| known.reason == *reason).cloned();
            known.unwrap_or_else(|| Trouble { reason: reason.clone(), since: SystemTime::now() })
        };
        self.problems.iter().map(trouble).collect()
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

/// Why a revocation list is of no use at a time, when it is not.
pub fn out_of_date(revoked: &Revoked, file: &Path, now: i64) -> Option<String> {
    let (file, next) = (file.display(), revoked.next_update);
    (now >= next)
        .then(|| format!("a revocation list in {file} was to be replaced at {}; give a new one", time(next)))
}

/// A time as people and machines read it (RFC 3339).
pub fn time(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}
