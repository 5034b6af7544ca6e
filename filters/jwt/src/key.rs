//! Keys that verify (RFC 7517), and the algorithms that go with each (RFC 7518, RFC 8037).
//!
//! An algorithm goes with one kind of key and nothing else: a token never says what its signature is verified by. There
//! are no algorithms with shared secrets here, and none is `none`.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature as EdSignature, VerifyingKey as EdKey};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::{BoxedUint, Pkcs1v15Sign, PublicKey};
use serde::Deserialize;
use sha2::{Digest, Sha256, Sha384, Sha512};
use weir_sdk::schema::Schema;

/// The algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Schema)]
pub(crate) enum Algorithm {
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    #[serde(alias = "Ed25519")]
    EdDSA,
}

impl Algorithm {
    /// All of them, with their names.
    const ALL: [(&str, Self); 7] = [
        ("RS256", Self::RS256),
        ("RS384", Self::RS384),
        ("RS512", Self::RS512),
        ("ES256", Self::ES256),
        ("ES384", Self::ES384),
        ("EdDSA", Self::EdDSA),
        // RFC 9864
        ("Ed25519", Self::EdDSA),
    ];

    /// By its name, which is compared as it stands.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Those that may be used when nothing is said: all that take less than the CPU time that a filter has by itself.
    pub(crate) fn usual() -> Vec<Self> {
        vec![Self::RS256, Self::RS384, Self::RS512, Self::ES256, Self::EdDSA]
    }
}

/// A key as it is written in a set. What else stands there is not looked at.
#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A set of keys as it is written.
#[derive(Debug, Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// A key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    /// The only algorithm that it is for, when it says so.
    only: Option<Algorithm>,
    public: Public,
}

#[derive(Debug, Clone)]
enum Public {
    Rsa(PublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    Ed25519(EdKey),
}

/// The most keys of a set that are taken.
const MOST_KEYS: usize = 64;

/// The keys of a set (RFC 7517 section 5). Those of other kinds, and those that are not for signatures, are passed
/// over; why is told for each that is broken.
///
/// # Errors
/// When it is no set, or nothing in it is of use.
pub(crate) fn read_set(json: &[u8]) -> Result<(Vec<Key>, Vec<String>), String> {
    let set: JwkSet =
        serde_json::from_slice(json).map_err(|error| format!("it is no set of keys: {error}"))?;
    let (mut keys, mut odd) = (Vec::new(), Vec::new());
    for (at, value) in set.keys.into_iter().take(MOST_KEYS).enumerate() {
        match serde_json::from_value::<Jwk>(value)
            .map_err(|error| error.to_string())
            .and_then(|jwk| jwk.key())
        {
            Ok(Some(key)) => keys.push(key),
            Ok(None) => {}
            Err(why) => odd.push(format!("keys[{at}]: {why}")),
        }
    }
    if keys.is_empty() {
        let why = if odd.is_empty() { "it has none for RS, ES or EdDSA".to_owned() } else { odd.join("; ") };
        return Err(format!("no key is of use: {why}"));
    }
    Ok((keys, odd))
}

impl Jwk {
    /// The key, unless it is of another kind or for something else.
    fn key(self) -> Result<Option<Key>, String> {
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig")
            || self.key_ops.as_ref().is_some_and(|ops| !verifies(ops))
        {
            return Ok(None);
        }
        let only = match self.alg.as_deref() {
            None => None,
            Some(name) => match Algorithm::by_name(name) {
                Some(algorithm) => Some(algorithm),
                None => return Ok(None),
            },
        };
        let public = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => self.rsa()?,
            ("EC", Some("P-256")) => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&self.point(32)?);
                Public::P256(key.map_err(|_| "its point is not on the curve")?)
            }
            ("EC", Some("P-384")) => {
                let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(&self.point(48)?);
                Public::P384(key.map_err(|_| "its point is not on the curve")?)
            }
            ("OKP", Some("Ed25519")) => {
                let bytes: [u8; 32] = field("x", &self.x)?.try_into().map_err(|_| "`x` has not 32 bytes")?;
                let key = EdKey::from_bytes(&bytes).map_err(|_| "its point is not on the curve")?;
                if key.is_weak() {
                    return Err("it verifies anything".to_owned());
                }
                Public::Ed25519(key)
            }
            _ => return Ok(None),
        };
        Ok(Some(Key { kid: self.kid, only, public }))
    }

    fn rsa(&self) -> Result<Public, String> {
        let number = |name, value| Ok::<_, String>(BoxedUint::from_be_slice_vartime(&field(name, value)?));
        let (n, e) = (number("n", &self.n)?, number("e", &self.e)?);
        // RFC 7518 section 3.3 asks for 2048. More than 4096 would take too long.
        let key = PublicKey::new_with_size_limits(n, e, 2048..=4096);
        key.map(Public::Rsa).map_err(|error| format!("an RSA key of 2048 to 4096 bits is wanted: {error}"))
    }

    /// The point of a curve whose coordinates have so many bytes (SEC 1 section 2.3.3).
    fn point(&self, len: usize) -> Result<Vec<u8>, String> {
        let (x, y) = (field("x", &self.x)?, field("y", &self.y)?);
        if x.len() != len || y.len() != len {
            return Err(format!("`x` and `y` have not {len} bytes"));
        }
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    }
}

fn field(name: &str, value: &Option<String>) -> Result<Vec<u8>, String> {
    let value = value.as_ref().ok_or_else(|| format!("`{name}` is missing"))?;
    BASE64URL_NOPAD.decode(value.as_bytes()).map_err(|_| format!("`{name}` is not base64url without padding"))
}

impl Key {
    /// Whether it is for an algorithm.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.public, algorithm) {
            (Public::Rsa(_), Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512)
            | (Public::P256(_), Algorithm::ES256)
            | (Public::P384(_), Algorithm::ES384)
            | (Public::Ed25519(_), Algorithm::EdDSA) => true,
            (Public::Rsa(_) | Public::P256(_) | Public::P384(_) | Public::Ed25519(_), _) => false,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether a signature is one of this key, by this algorithm.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        match (&self.public, algorithm) {
            (Public::Rsa(key), Algorithm::RS256) => {
                key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature).is_ok()
            }
            (Public::Rsa(key), Algorithm::RS384) => {
                key.verify(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(message), signature).is_ok()
            }
            (Public::Rsa(key), Algorithm::RS512) => {
                key.verify(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(message), signature).is_ok()
            }
            (Public::P256(key), Algorithm::ES256) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(&Sha256::digest(message), &signature).is_ok()),
            (Public::P384(key), Algorithm::ES384) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(&Sha384::digest(message), &signature).is_ok()),
            (Public::Ed25519(key), Algorithm::EdDSA) => EdSignature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            (Public::Rsa(_) | Public::P256(_) | Public::P384(_) | Public::Ed25519(_), _) => false,
        }
    }
}
