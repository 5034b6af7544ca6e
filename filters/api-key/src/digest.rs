//! Keys, of which only a digest is kept.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Result};

/// A key as it is written: exactly one of `key`, `sha256` and `environment`.
#[derive(Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfig {
    /// What the key is called. Several keys may have one name, as while one is replaced.
    name: String,
    /// The key itself.
    key: Option<String>,
    /// Its SHA-256 in hexadecimal.
    sha256: Option<String>,
    /// A variable of the environment that holds it.
    environment: Option<String>,
}

/// What is shown of a key is its name.
impl std::fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KeyConfig {
    /// The name and the digest of the key at a place of the list.
    pub(crate) fn digest(
        self,
        at: usize,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(String, Digest)> {
        let name = self.name;
        if name.is_empty() {
            return Err(Error::new(format!("keys[{at}]: `name` is empty; say whose key it is")));
        }
        let digest = match (self.key, self.sha256, self.environment) {
            (Some(key), None, None) => Digest::of(checked(&name, &key)?),
            (None, Some(hex), None) => Digest::from_hex(&hex).ok_or_else(|| {
                let cure = "it has 64 hexadecimal digits: `printf %s KEY | sha256sum`";
                Error::new(format!("keys[{at}] (`{name}`): `sha256` is not a SHA-256; {cure}"))
            })?,
            (None, None, Some(known)) => {
                let value = variable(&known).ok_or_else(|| {
                    let cure = format!("give it to the filter with `grants: {{ environment: [{known}] }}`");
                    Error::new(format!("keys[{at}] (`{name}`): the variable `{known}` is not set; {cure}"))
                })?;
                Digest::of(checked(&name, &value)?)
            }
            _ => {
                return Err(Error::new(format!(
                    "keys[{at}] (`{name}`) needs exactly one of `key`, `sha256` and `environment`"
                )));
            }
        };
        Ok((name, digest))
    }
}

/// A key that can be carried, and cannot be guessed at once.
fn checked<'k>(name: &str, key: &'k str) -> Result<&'k [u8]> {
    const SHORTEST: usize = 16;
    if key.len() < SHORTEST {
        let cure = "`openssl rand -hex 32` makes a good one";
        return Err(Error::new(format!("the key of `{name}` has less than {SHORTEST} bytes; {cure}")));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(format!(
            "the key of `{name}` cannot stand in a header; use ASCII without spaces"
        )));
    }
    Ok(key.as_bytes())
}

/// The SHA-256 of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// That of some bytes.
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether they are the same, in a time that does not depend on where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        filter_parts::text::same(&self.0, &other.0)
    }
}
