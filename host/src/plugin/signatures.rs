//! Whose signatures plugins have to bear, when the configuration asks for any, and whether they do.
//!
//! The format is minisign's: Ed25519, in a file `NAME.wasm.sig` beside `NAME.wasm`. What is verified is the very bytes that
//! were read, not a file.

use std::path::Path;

use minisign_verify::{Error, PublicKey, Signature};

/// The keys by one of which every plugin has to be signed.
#[derive(Debug, Clone)]
pub struct Keys(Vec<PublicKey>);

/// A public key in base64 has so many characters.
const BASE64: usize = 56;

/// A file of minisign's with a public key is not larger.
const MOST_OF_KEY: u64 = 4096;

impl Keys {
    /// These keys.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Whether some bytes are signed by one of the keys. `plugin`: whose they are. `signature`: the content of the file beside
    /// them, or why there is none.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn verify(&self, plugin: &str, bytes: &[u8], signature: Result<&[u8], &str>) -> Result<(), String> {
        let file = format!("{plugin}.wasm.sig");
        let sign = format!("sign it: `minisign -Sm {plugin}.wasm -x {file}`");
        let text = signature.map_err(|reason| {
            format!(
                "it is not signed, and `plugins.require_signature` asks for that: {file}: {reason}; {sign}"
            )
        })?;
        let signature = std::str::from_utf8(text).ok().and_then(|text| Signature::decode(text).ok());
        let signature =
            signature.ok_or_else(|| format!("{file} is not a signature in minisign's format; {sign}"))?;
        let mut known = false;
        for key in &self.0 {
            // Signatures of the bytes themselves are older than those of their hash, and as good.
            match key.verify(bytes, &signature, true) {
                Ok(()) => return Ok(()),
                Err(Error::UnexpectedKeyId) => {}
                Err(_) => known = true,
            }
        }
        Err(if known {
            format!("{file} is a signature of other bytes, or no true one; {sign}")
        } else {
            "it is signed with a key that is not in `plugins.require_signature`; sign it with one that is, or add the \
             key there"
                .to_owned()
        })
    }
}

/// Reads a public key: its line in base64, or the path of a file of minisign's. Relative paths start at `folder`.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn public_key(text: &str, folder: &Path) -> Result<PublicKey, String> {
    if let Ok(key) = PublicKey::from_base64(text) {
        return Ok(key);
    }
    let path = folder.join(text);
    // A key that was mistyped is no path.
    if !text.ends_with(".pub") && !path.exists() {
        return Err(format!(
            "`{text}` is no public key; write the second line of minisign's .pub file ({BASE64} characters, the first of \
             them `RW`), or the path of that file"
        ));
    }
    let shown = path.display();
    let size = std::fs::metadata(&path).map_err(|error| format!("{shown} cannot be read: {error}"))?.len();
    let read = if size <= MOST_OF_KEY { std::fs::read_to_string(&path) } else { Ok(String::new()) };
    let content = read.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    PublicKey::decode(&content).map_err(|_| {
        format!(
            "{shown} holds no public key of minisign's; make one with `minisign -G`, and name its .pub file"
        )
    })
}
