//! The files of TLS: what they hold, and whether they hold something else than before. Problems name the file and the cure.
//!
//! Others write them at any time, and the control plane looks at them every two seconds: nothing waits for them, nothing
//! larger than what is sensible is read, and what has not changed is not read again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use sha2::{Digest, Sha256};

use crate::config::file::{FileStamp, read};
use crate::config::problem::Place;
use crate::config::value::Spanned;
use crate::net::tls::provider;

/// What is wrong with a file that the configuration names, and where it names it.
pub type FileProblem = (Place, String);

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A chain, or its key.
    Pair,
    /// Certificates of authorities. What systems trust, all of it together, has 250 KiB.
    Authorities,
    /// Revocation lists. Those of the largest authorities have tens of MiB.
    Lists,
}

impl Kind {
    /// Bytes of such a file that are read; a larger one is refused.
    pub fn most(self) -> u64 {
        let mebibytes = match self {
            Self::Pair => 1,
            Self::Authorities => 8,
            Self::Lists => 64,
        };
        mebibytes << 20
    }
}

/// A file, and what it is for.
pub type Use<'a> = (&'a Path, Kind);

/// By what it is known whether a file holds the same as before: the digest of its bytes, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print(Result<[u8; 32], String>);

impl Print {
    fn of(content: &Result<Vec<u8>, String>) -> Self {
        Self(content.as_ref().map(|bytes| Sha256::digest(bytes).into()).map_err(Clone::clone))
    }
}

fn content((path, kind): Use<'_>) -> Result<Vec<u8>, String> {
    read(path, kind.most()).map_err(|why| format!("{} {why}", path.display()))
}

/// What files hold. Each is read once, so that all that is made of a file at a time is made of the same.
#[derive(Default)]
pub struct Files(HashMap<(PathBuf, Kind), Result<Vec<u8>, String>>);

impl Files {
    fn content(&mut self, (path, kind): Use<'_>) -> &Result<Vec<u8>, String> {
        self.0.entry((path.to_owned(), kind)).or_insert_with(|| content((path, kind)))
    }

    /// What some files are known by.
    pub fn prints<'a>(&mut self, files: impl Iterator<Item = Use<'a>>) -> Vec<Print> {
        files.map(|file| Print::of(self.content(file))).collect()
    }

    fn bytes(&mut self, file: &Spanned<PathBuf>, kind: Kind) -> Result<&[u8], FileProblem> {
        let content = self.content((&file.value, kind));
        content.as_deref().map_err(|why| (file.place.clone(), why.clone()))
    }

    /// A chain and its key, which belong together.
    ///
    /// # Errors
    /// Which files are wrong, how, and what to do.
    pub fn certified_key(
        &mut self,
        cert: &Spanned<PathBuf>,
        key: &Spanned<PathBuf>,
    ) -> Result<Arc<CertifiedKey>, Vec<FileProblem>> {
        let (chain, signing) = match (self.certificates(cert, Kind::Pair), self.signing_key(key)) {
            (Ok(chain), Ok(signing)) => (chain, signing),
            (chain, signing) => return Err(chain.err().into_iter().chain(signing.err()).collect()),
        };
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| {
            let (file, cert) = (key.value.display(), cert.value.display());
            let message = format!(
                "the key in {file} does not match the certificate in {cert}; give the pair that was made together"
            );
            vec![(key.place.clone(), message)]
        })?;
        Ok(Arc::new(certified))
    }

    fn signing_key(&mut self, key: &Spanned<PathBuf>) -> Result<Arc<dyn SigningKey>, FileProblem> {
        let (place, path) = (&key.place, key.value.display());
        let parsed = PrivateKeyDer::from_pem_slice(self.bytes(key, Kind::Pair)?).map_err(|_| {
            (
                place.clone(),
                format!("{path} holds no private key in PEM form; give the key of the certificate"),
            )
        })?;
        provider().key_provider.load_private_key(parsed).map_err(|error| {
            (place.clone(), format!("the key in {path} cannot be used: {error}; use RSA, ECDSA or Ed25519"))
        })
    }

    fn certificates(
        &mut self,
        path: &Spanned<PathBuf>,
        kind: Kind,
    ) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.bytes(path, kind)?).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) | Err(_) => {
                let file = path.value.display();
                let message = format!("{file} holds no certificate in PEM form; give a file that has one");
                Err((path.place.clone(), message))
            }
        }
    }

    /// The certificates of authorities.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn authorities(&mut self, path: &Spanned<PathBuf>) -> Result<RootCertStore, FileProblem> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(path, Kind::Authorities)? {
            roots.add(certificate).map_err(|error| {
                let file = path.value.display();
                let message =
                    format!("{file} holds a certificate that cannot be used: {error}; give another file");
                (path.place.clone(), message)
            })?;
        }
        Ok(roots)
    }

    /// Revocation lists, in PEM form.
    ///
    /// # Errors
    /// Why the file is not read.
    pub fn lists(&mut self, path: &Spanned<PathBuf>) -> Result<&[u8], FileProblem> {
        self.bytes(path, Kind::Lists)
    }
}

/// Looks at files again and again, and reads those that may have changed.
#[derive(Debug, Default)]
pub struct Watched {
    /// What was found in the round before.
    known: HashMap<(PathBuf, Kind), Look>,
    /// What was found in this one.
    found: HashMap<(PathBuf, Kind), Look>,
}

#[derive(Debug)]
struct Look {
    /// By which the file is known to be the same; none when it has to be read again.
    stamp: Option<FileStamp>,
    print: Print,
}

impl Watched {
    /// Begins another round: files that were not looked at in the last one are forgotten.
    pub fn begin(&mut self) {
        self.known = std::mem::take(&mut self.found);
    }

    /// What some files are known by now.
    pub fn prints<'a>(&mut self, files: impl Iterator<Item = Use<'a>>) -> Vec<Print> {
        files.map(|file| self.look(file, SystemTime::now())).collect()
    }

    fn look(&mut self, (path, kind): Use<'_>, now: SystemTime) -> Print {
        let key = (path.to_owned(), kind);
        if let Some(found) = self.found.get(&key) {
            return found.print.clone();
        }
        // Before it is read: what changes meanwhile is seen as a change the next time.
        let stamp = FileStamp::at(path);
        let known = self.known.remove(&key).filter(|known| known.stamp.is_some() && known.stamp == stamp);
        let look = known.unwrap_or_else(|| Look {
            stamp: stamp.filter(|stamp| stamp.has_settled(now)),
            print: Print::of(&content((path, kind))),
        });
        let print = look.print.clone();
        self.found.insert(key, look);
        print
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Looks at a file in a round of its own.
    fn look(watched: &mut Watched, path: &Path, now: SystemTime) -> Print {
        watched.begin();
        watched.look((path, Kind::Pair), now)
    }

    /// How many bytes this thread has read.
    fn bytes_read() -> u64 {
        let io = fs::read_to_string("/proc/thread-self/io").expect("the kernel counts");
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
        read.expect("it counts bytes that are read")
    }

    #[test]
    fn what_has_not_changed_is_not_read_again_once_its_time_stamp_is_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pem");
        let size = 500_000;
        fs::write(&path, vec![b'a'; size]).expect("it can be written");
        let (mut watched, later) = (Watched::default(), SystemTime::now() + Duration::from_secs(10));
        let before = bytes_read();
        let first = look(&mut watched, &path, later);
        let once = bytes_read();
        assert!(once - before >= size as u64, "it is read");
        (0..10).for_each(|_| assert_eq!(look(&mut watched, &path, later), first));
        assert!(bytes_read() - once < size as u64, "it is not read again");
        // Changed in its place, with the size and the time that it had: the kernel knows.
        let time = fs::metadata(&path).and_then(|meta| meta.modified()).expect("a time");
        while FileStamp::at(&path) == watched.found[&(path.clone(), Kind::Pair)].stamp {
            fs::write(&path, vec![b'b'; size]).expect("it can be written");
            let file = fs::File::options().write(true).open(&path).expect("it is there");
            file.set_modified(time).expect("a time stamp");
        }
        assert_ne!(look(&mut watched, &path, later), first);
        fs::remove_file(&path).expect("it is there");
        assert!(look(&mut watched, &path, later).0.expect_err("it is gone").contains("cannot be read"));
    }

    #[test]
    fn a_change_is_seen_that_leaves_the_time_stamp_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pem");
        let mut watched = Watched::default();
        // Time stamps of many a file system are the same for some milliseconds at least.
        for turn in 0..2000_u32 {
            let content = format!("{turn:04}");
            fs::write(&path, &content).expect("it can be written");
            let wanted = Print::of(&Ok(content.into_bytes()));
            assert_eq!(look(&mut watched, &path, SystemTime::now()), wanted);
        }
    }
}
