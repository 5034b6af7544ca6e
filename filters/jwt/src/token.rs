//! Tokens (RFC 7519), in the compact form (RFC 7515 section 7.1).

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::key::{Algorithm, Key};

/// The longest token, in bytes.
const LONGEST: usize = 16 * 1024;

/// Keys that are tried for a token that names none.
const MOST_TRIED: usize = 4;

/// What the head of a token says. A member that is there twice is an error.
#[derive(Debug, Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
    /// The payload as it stands (RFC 7797), which would be another message.
    b64: Option<Value>,
}

/// The claims that are looked at here. One that is there twice is an error.
#[derive(Debug, Default, Deserialize)]
struct Registered {
    iss: Option<String>,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A token, taken apart. Nothing of it is to be believed before [`Token::is_signed_with`] says so.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    message: Vec<u8>,
    signature: Vec<u8>,
    registered: Registered,
    claims: Map<String, Value>,
}

/// What a token must be for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) audiences: &'a [String],
    /// Whether it must end some time.
    pub(crate) expires: bool,
    /// How far the clocks may be apart, in seconds.
    pub(crate) leeway: f64,
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("token over 16 KiB");
        }
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(head), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("malformed token");
        };
        let message = text.get(..head.len() + 1 + payload.len()).unwrap_or_default().to_vec();
        let decoded = |part: &[u8]| BASE64URL_NOPAD.decode(part).map_err(|_| "malformed token");
        let head: Head =
            serde_json::from_slice(&decoded(head)?).map_err(|_| "malformed head of the token")?;
        if head.crit.is_some() || head.b64.is_some() {
            return Err("token with extensions");
        }
        let algorithm = Algorithm::by_name(&head.alg).ok_or("algorithm not supported")?;
        let payload = decoded(payload)?;
        Ok(Self {
            algorithm,
            kid: head.kid,
            message,
            signature: decoded(signature)?,
            registered: serde_json::from_slice(&payload).map_err(|_| "malformed claims")?,
            claims: serde_json::from_slice(&payload).map_err(|_| "malformed claims")?,
        })
    }

    /// Who says to have issued it.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.registered.iss.as_deref()
    }

    /// The keys that it may be signed with: those of its name, or, when it names none, the first few.
    pub(crate) fn candidates<'k>(&self, keys: &'k [Key]) -> impl Iterator<Item = &'k Key> {
        let fits = |key: &&Key| {
            let named = match (&self.kid, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                // A set of keys without names has one or two.
                (Some(_), None) | (None, _) => true,
            };
            named && key.is_for(self.algorithm)
        };
        keys.iter().filter(fits).take(MOST_TRIED)
    }

    /// Whether any key is one that it may be signed with.
    pub(crate) fn knows_key(&self, keys: &[Key]) -> bool {
        self.candidates(keys).next().is_some()
    }

    /// What tells it, signature and all, from every other.
    pub(crate) fn digest(&self) -> [u8; 32] {
        // A dot is in neither: it is where one ends.
        Sha256::new()
            .chain_update(&self.message)
            .chain_update(b".")
            .chain_update(&self.signature)
            .finalize()
            .into()
    }

    /// Whether this key has signed it.
    pub(crate) fn is_signed_with(&self, key: &Key) -> bool {
        key.verifies(self.algorithm, &self.message, &self.signature)
    }

    /// Whether it is for here and for now, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check(&self, wanted: &Wanted<'_>, now: f64) -> Result<(), &'static str> {
        match self.registered.exp {
            Some(exp) if exp + wanted.leeway <= now => return Err("token expired"),
            None if wanted.expires => return Err("token without end"),
            Some(_) | None => {}
        }
        if self.registered.nbf.is_some_and(|nbf| nbf - wanted.leeway > now) {
            return Err("token not valid yet");
        }
        let meant = |audience: &String| wanted.audiences.contains(audience);
        let is_for_us = wanted.audiences.is_empty()
            || match &self.registered.aud {
                Some(Audience::One(audience)) => meant(audience),
                Some(Audience::Several(audiences)) => audiences.iter().any(meant),
                None => false,
            };
        if is_for_us { Ok(()) } else { Err("token for somebody else") }
    }

    /// A claim as text, by its path: what is in it is named by dots. Texts are as they stand, lists are joined by
    /// commas, and mappings are JSON.
    pub(crate) fn claim(&self, path: &[String]) -> Option<String> {
        let (first, rest) = path.split_first()?;
        let value =
            rest.iter().try_fold(self.claims.get(first)?, |value, name| value.as_object()?.get(name))?;
        Some(match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>()?.join(","),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
        })
    }
}

/// An item of a list. One that could be taken for several is none.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.contains(',')).then(|| text.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
