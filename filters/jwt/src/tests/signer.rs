//! Who signs tokens: another implementation than the one that verifies them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

/// Who signs.
pub enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signer {
    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    pub fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    pub fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().expect("a key"))
    }

    pub fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero().to_vec();
                let e = public.exponent().big_endian_without_leading_zero().to_vec();
                json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref().get(1..).expect("a point");
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": if x.len() == 32 { "P-256" } else { "P-384" }, "x": b64(x), "y": b64(y) })
            }
            Self::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) }),
        };
        jwk["kid"] = kid.map_or(Value::Null, Value::from);
        jwk
    }

    pub fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding = match alg {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &rng, message, &mut signature).expect("a signature");
                signature
            }
            Self::Ec(pair) => pair.sign(&rng, message).expect("a signature").as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub fn token(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", b64(head.to_string()), b64(claims.to_string()));
        let alg = head["alg"].as_str().unwrap_or_default();
        let signature = self.sign(alg, message.as_bytes());
        format!("{message}.{}", b64(signature))
    }
}
